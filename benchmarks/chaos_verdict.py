"""What was said beside what was heard: nothing of it asks the program how it is doing.

Said is what the event log on disk holds and what went out as JSON lines; heard is what a durable
subscriber got.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, JsonValue

from mmstream.benchmarks.chaos_proxy import Number

Fields = dict[str, JsonValue]
STEPS: Final = ("start", "update", "end")


@dataclass(frozen=True, slots=True)
class Message:
    """An event's step, as it was said or heard."""

    number: Number
    id: str
    type: str
    source: str
    is_late: bool
    rest: Fields
    """All of it but `late`."""

    @classmethod
    def of(cls, fields: Fields) -> Self:
        """Read from a payload; a `topic` in it is left out."""
        rest = {name: value for name, value in fields.items() if name not in {"late", "topic"}}
        number = Number(str(fields["boot_id"]), int(str(fields["seq"])))
        return cls(
            number,
            id=str(fields["id"]),
            type=str(fields["type"]),
            source=str(fields["source"]),
            is_late=bool(fields["late"]),
            rest=rest,
        )


@dataclass(frozen=True, slots=True)
class Records:
    """The four accounts of one run."""

    on_disk: Sequence[Message]
    """In the event log after the run."""
    waiting: frozenset[Number]
    """Of those, what the log still has for the broker."""
    said: Sequence[Message]
    """As JSON lines."""
    heard: Sequence[Message]
    """By the subscriber, in the order in which they came."""
    acknowledged: frozenset[Number]
    """By the broker, as seen on the wire."""
    killed: frozenset[str] = frozenset()
    """The boots that ended by `kill -9`."""


class Counts(BaseModel):
    """What became of the messages of one run."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    said: int
    """Different messages on disk or in the JSON lines."""
    lost: int
    """On disk, or said without a `kill -9`, and never heard; the broker had not acknowledged it."""
    forgotten: int
    """Never heard, though the broker had acknowledged it: its own loss."""
    waiting: int
    """Never heard, and still on disk for the next start."""
    unspooled: int
    """Said as JSON lines and killed before the disk had it: the last ones of a boot."""
    repeated: int
    """Deliveries beyond the first: what a subscriber drops by id, type and seq."""
    duplicates: int
    """What is twice all the same: a number with two meanings, a second start or end."""
    altered: int
    """Heard otherwise than it was said, or never said at all."""
    disordered: int
    """Steps of an event, or messages of a source, that came before one that was said before."""
    gaps: int
    """Numbers missing between 0 and the last of a boot that was heard."""
    stuck: int
    """Events that were heard to start and not to end."""
    late: int
    """Heard as `late`."""
    restarted: int
    """Events that a later boot has ended."""


def judge(records: Records) -> Counts:
    """Compare the accounts."""
    said = {one.number: one for one in (*records.said, *records.on_disk)}
    first = first_heard(records.heard)
    heard = {one.number for one in first}
    unspooled = _unspooled(records, heard)
    missing = said.keys() - heard - unspooled
    waiting = missing & records.waiting
    forgotten = (missing - waiting) & records.acknowledged
    return Counts(
        said=len(said),
        lost=len(missing - waiting - forgotten),
        forgotten=len(forgotten),
        waiting=len(waiting),
        unspooled=len(unspooled),
        repeated=len(records.heard) - len(first),
        duplicates=_n_duplicates(first),
        altered=sum(not _is_as_said(one, said) for one in records.heard),
        disordered=_n_disordered(first, said.values()),
        gaps=_n_gaps(heard),
        stuck=_n_stuck(first),
        late=sum(one.is_late for one in first),
        restarted=sum(one.rest.get("end_reason") == "restart" for one in first),
    )


def first_heard(heard: Iterable[Message]) -> list[Message]:
    """What a subscriber keeps who drops by id, type and seq what has come before."""
    kept: dict[tuple[str, str, int], Message] = {}
    for one in heard:
        kept.setdefault((one.id, one.type, one.number.seq), one)
    return list(kept.values())


def _unspooled(records: Records, heard: set[Number]) -> set[Number]:
    """Only the tail of a boot that was killed: what lies before one on disk has been lost."""
    on_disk = {one.number for one in records.on_disk}
    last: dict[str, int] = {}
    for number in on_disk | heard:
        last[number.boot_id] = max(number.seq, last.get(number.boot_id, -1))
    only_said = {one.number for one in records.said} - on_disk - heard
    return {
        number
        for number in only_said
        if number.boot_id in records.killed and number.seq > last.get(number.boot_id, -1)
    }


def _n_duplicates(first: Sequence[Message]) -> int:
    numbers = Counter(one.number for one in first)
    ends = Counter((one.id, one.type) for one in first if one.type != "update")
    return sum(n - 1 for n in (*numbers.values(), *ends.values()))


def _is_as_said(one: Message, said: dict[Number, Message]) -> bool:
    return one.number in said and said[one.number].rest == one.rest


def _n_disordered(first: Sequence[Message], said: Iterable[Message]) -> int:
    boots = {boot: n for n, boot in enumerate(dict.fromkeys(one.number.boot_id for one in said))}

    def place(one: Message) -> tuple[int, int]:
        return boots.get(one.number.boot_id, len(boots)), one.number.seq

    by_event: defaultdict[str, list[int]] = defaultdict(list)
    by_source: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in first:
        by_event[one.id].append(STEPS.index(one.type))
        by_source[one.source].append(place(one))
    n_steps = sum(_n_falls(steps) for steps in by_event.values())
    return n_steps + sum(_n_falls(places) for places in by_source.values())


def _n_falls(values: Sequence[int] | Sequence[tuple[int, int]]) -> int:
    return sum(after < before for before, after in pairwise(values))  # type: ignore[operator] # alike


def _n_gaps(heard: set[Number]) -> int:
    seqs: dict[str, list[int]] = {}
    for number in heard:
        seqs.setdefault(number.boot_id, []).append(number.seq)
    return sum(max(of_boot) + 1 - len(of_boot) for of_boot in seqs.values())


def _n_stuck(first: Sequence[Message]) -> int:
    ids = {kind: {one.id for one in first if one.type == kind} for kind in ("start", "end")}
    return len(ids["start"] - ids["end"])
