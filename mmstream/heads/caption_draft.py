"""A caption as a head makes it, and how it becomes a message."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from mmstream.heads.events import HeadItem
from mmstream.media import Span, SpokenWord
from mmstream.messages import Caption, Decided, Word, epoch_secs, iso_utc

CaptionKind = Literal["speech", "sound", "scene"]

ENGLISH: Final = "en"
"""What captions of sound and of the scene are written in."""


class CaptionPart(Protocol):
    """Makes one kind of captions. Pure, of one source; after `SourceStarted` it begins anew."""

    def push(self, item: HeadItem, events: Sequence[Decided]) -> Sequence[Decided]:
        """Take an item and the events that it decided; give the captions that follow."""
        ...

    def flush(self) -> Sequence[Decided]:
        """No more items come: give the rest."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a caption says, on the source's clock."""

    id: str
    state: Literal["partial", "final"] = "final"
    revision: int = 0
    kind: CaptionKind
    text: str
    span: Span
    words: Sequence[SpokenWord] = ()
    n_steady: int = 0
    confidence: float = 0.0
    language: str = ENGLISH
    on_screen: bool | None = None

    def decided(self, *, source: str, at_ns: int, utc_offset_ns: int) -> Decided:
        """The message; `at_ns` is the instant of the last thing that it rests on."""
        start_ns, end_ns = utc_offset_ns + self.span.start_ns, utc_offset_ns + self.span.end_ns
        caption = Caption(
            id=self.id,
            state=self.state,
            revision=self.revision,
            source=source,
            text=self.text,
            kind=self.kind,
            ts_start=iso_utc(start_ns),
            t_start=epoch_secs(start_ns),
            ts_end=iso_utc(end_ns),
            t_end=epoch_secs(end_ns),
            words=tuple(_told(word, utc_offset_ns) for word in self.words),
            steady=self.n_steady,
            confidence=round(self.confidence, 4),
            language=self.language,
            on_screen=self.on_screen,
        )
        return Decided(caption, at_ns)


def caption_id(
    node: str, source: str, kind: CaptionKind, start_utc_ns: int, *, number: int = 0, what: str = ""
) -> str:
    """The id of a caption: a hash of what makes it this one, so that a replay gives the same.

    `start_utc_ns`: of what it belongs to (the utterance); `number`: which one of that, from 0.
    """
    text = f"{node}/{source}/caption/{kind}/{start_utc_ns}/{number}/{what}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _told(word: SpokenWord, utc_offset_ns: int) -> Word:
    return Word(
        text=word.text,
        t_start=epoch_secs(utc_offset_ns + word.span.start_ns),
        t_end=epoch_secs(utc_offset_ns + word.span.end_ns),
        confidence=round(word.confidence, 4),
    )
