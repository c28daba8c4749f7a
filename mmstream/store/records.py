"""A message as rows, and back without loss."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import JsonValue, ValidationError

from mmstream.errors import StateError, StoreError
from mmstream.messages import (
    Alert,
    Caption,
    Content,
    Event,
    Evidence,
    NumberedStamp,
    Published,
)

ContentName = Literal["event", "alert", "caption"]

_CONTENTS: Final[Mapping[ContentName, type[Content]]] = {
    "event": Event,
    "alert": Alert,
    "caption": Caption,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a message says of its entry: the columns of `entries`."""

    content: ContentName
    id: str
    source: str
    kind: str | None
    """audio, video, av of an event; speech, sound, scene of a caption."""
    label: str | None
    """Of an event; the rule of an alert."""
    text: str
    """Of a caption."""
    notes: tuple[str, ...]
    """Labels and notes of the evidence, each once."""
    t_start: float
    """Seconds since 1970."""
    t_end: float | None
    """Seconds since 1970."""
    top_score: float | None
    end_reason: str | None
    type: Literal["start", "update", "end"] | None
    """Which step in the life of an event."""

    @property
    def is_open(self) -> bool:
        """Whether an `end` must follow."""
        return self.type in {"start", "update"}


def facts_of(content: Content) -> Facts:
    """What is to be found again.

    Raises:
        StateError: it is no event, alert or final caption.
    """
    match content:
        case Event():
            return _event_facts(content)
        case Alert():
            return _alert_facts(content)
        case Caption(state="final"):
            return _caption_facts(content)
    msg = f"{type(content).__name__} need not arrive: the store does not take it"
    raise StateError(msg)


def to_published(content: ContentName, payload: str | bytes) -> Published:
    """The message whose `to_json` is `payload`.

    Raises:
        StoreError: it is none that this version of mmstream knows.
    """
    try:
        fields: JsonValue = json.loads(payload)
        if not isinstance(fields, dict):
            msg = "no object"
            raise TypeError(msg)  # noqa: TRY301 - as the others
        stamped = {name: fields.pop(name) for name in NumberedStamp.model_fields if name in fields}
        said = _CONTENTS[content].model_validate(fields)
        return Published(said, NumberedStamp.model_validate(stamped))
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        msg = f"a stored {content} cannot be read: {str(error).splitlines()[0]}"
        raise StoreError(msg) from None


def _event_facts(event: Event) -> Facts:
    return Facts(
        content="event",
        id=event.id,
        source=event.source,
        kind=event.kind,
        label=event.label,
        text="",
        notes=_notes(event.evidence),
        t_start=event.t_start,
        t_end=event.t_end,
        top_score=event.top_score,
        end_reason=event.end_reason,
        type=event.type,
    )


def _alert_facts(alert: Alert) -> Facts:
    return Facts(
        content="alert",
        id=alert.id,
        source=alert.source,
        kind=None,
        label=alert.rule,
        text="",
        notes=_notes(alert.evidence),
        t_start=alert.t_start,
        t_end=None,
        top_score=None,
        end_reason=None,
        type=None,
    )


def _caption_facts(caption: Caption) -> Facts:
    return Facts(
        content="caption",
        id=caption.id,
        source=caption.source,
        kind=caption.kind,
        label=None,
        text=caption.text,
        notes=(),
        t_start=caption.t_start,
        t_end=caption.t_end,
        top_score=None,
        end_reason=None,
        type=None,
    )


def _notes(evidence: Iterable[Evidence]) -> tuple[str, ...]:
    said = [words for one in evidence for words in (one.label, one.note) if words]
    return tuple(dict.fromkeys(" ".join(words.split()) for words in said))  # each in one line
