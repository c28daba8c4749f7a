"""How long after a reconnect the retained topics are true.

The truth is what the JSON lines have said by then; that the broker's picture is the same counts
only once all of it was written anew over the new connection.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import merge
from typing import Final, Literal

from pydantic import JsonValue

ONLINE: Final = "online"
DELIVERING: Final = ("online", "degraded")
"""States of a source's health in which its status is `online`."""

Fields = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Line:
    """A message as it came to us."""

    by: Literal["program", "broker"]
    at_ns: int
    """When, by our clock."""
    topic: str
    """Below `mmstream/<node>/`."""
    payload: str


@dataclass(slots=True)
class Truth:
    """What the retained topics should say, by topic."""

    values: dict[str, str] = field(default_factory=lambda: {"status": ONLINE})
    _open: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """By source: the label of each event, by its id."""
    _labels: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def take(self, line: Line) -> None:
        """Something was said."""
        source, _, what = line.topic.partition("/")
        if what == "health":
            state = json.loads(line.payload)["state"]
            self.values[f"{source}/status"] = ONLINE if state in DELIVERING else "offline"
        elif what == "event":
            self._take_event(source, json.loads(line.payload))

    def _take_event(self, source: str, event: Fields) -> None:
        label, event_id = str(event["label"]), str(event["id"])
        self._labels[source].add(label)
        if event["type"] == "end":
            self._open[source].pop(event_id, None)
        else:
            self._open[source][event_id] = label
        self.values[f"{source}/open"] = ids(self._open[source])
        for known in self._labels[source]:
            is_on = known in self._open[source].values()
            self.values[f"{source}/state/{known}"] = "ON" if is_on else "OFF"


def ids(events: Iterable[str]) -> str:
    """The ids of events, as one value that can be compared."""
    return " ".join(sorted(events))


def secs_until_true(
    said: Sequence[Line], heard: Sequence[Line], *, since_ns: int, until_ns: int
) -> float | None:
    """From `since_ns` on; None: it was not before `until_ns`."""
    truth = Truth()
    anew: dict[str, str] = {}
    for line in merge(said, heard, key=lambda line: line.at_ns):
        if line.at_ns >= until_ns:
            return None
        if line.by == "program":
            truth.take(line)
        elif line.at_ns >= since_ns:
            anew[line.topic] = _value(line)
        if line.at_ns >= since_ns and truth.values.items() <= anew.items():
            return (line.at_ns - since_ns) / 1e9
    return None


def _value(line: Line) -> str:
    if line.topic.endswith("/open"):
        return ids(str(event["id"]) for event in json.loads(line.payload)["events"])
    return line.payload
