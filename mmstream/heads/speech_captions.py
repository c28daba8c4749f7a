"""What is said -> captions: partials while it is, a final for each two lines (`first_cut`).

    words      so we went | to the station and ...
    committed  ^^^^^^^^^^
    caption 0  partial .. partial .. final
    caption 1                        partial .. final

An utterance has its captions one after the other, one open at a time. The words of its finals are
the committed words of the utterance, each once. An open caption whose words have all gone ends
with a final whose text is empty, if any partial had shown them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mmstream.errors import StateError
from mmstream.heads.caption_cuts import first_cut, joined
from mmstream.heads.caption_draft import Draft, caption_id
from mmstream.heads.events import HeadItem, Tuning
from mmstream.heads.speaker_sight import SpeakerSight
from mmstream.media import Scores, SourceEnded, SourceStalled, SourceStarted, Span, Spoken
from mmstream.messages import Decided


@dataclass(slots=True)
class _Open:
    """An utterance that is not over, and its open caption."""

    start_ns: int
    spoken: Spoken
    number: int = 0
    """Of the open caption within the utterance."""
    n_done: int = 0
    """How many words are in finals."""
    revision: int = 0
    """The next one of the open caption; 0: nothing of it was shown."""
    shown: tuple[str, int] | None = None
    """Text and number of steady words that it was last shown with."""
    span: Span | None = None
    """That it was last shown with."""


class SpeechCaptions:
    """Captions of what is said at one source (`CaptionPart`)."""

    def __init__(self, *, node: str, source: str) -> None:
        """Nothing is said yet."""
        self._node = node
        self._source = source
        self._utc_offset_ns: int | None = None
        self._sight = SpeakerSight()
        self._open: _Open | None = None
        self._closed_ns: int | None = None
        """When the last utterance began that is over."""

    def push(self, item: HeadItem, _events: Sequence[Decided]) -> Sequence[Decided]:
        """Take the next words; give the captions that they change.

        Raises:
            StateError: scores with words came before `SourceStarted`.
        """
        match item:
            case SourceStarted():
                closed = self._close()
                self._utc_offset_ns = item.utc_offset_ns
                self._sight, self._closed_ns = SpeakerSight(), None
                return closed
            case SourceStalled() | SourceEnded():
                return self._close()
            case Scores():
                self._sight.take(item)
                return [one for spoken in item.spoken for one in self._hear(spoken)]
            case Tuning():
                return []

    def flush(self) -> Sequence[Decided]:
        """End what is open with the words that it has."""
        return self._close()

    def _hear(self, spoken: Spoken) -> list[Decided]:
        told: list[Decided] = []
        if self._open is not None and self._open.spoken.utterance != spoken.utterance:
            told += self._close()
        if self._open is None:
            start_ns = spoken.span.start_ns
            if self._closed_ns is not None and start_ns <= self._closed_ns:
                return told  # of an utterance that a stall has ended
            self._open = _Open(start_ns, spoken)
        self._open.spoken = spoken
        told += self._cut(self._open, spoken.n_committed)
        return told + (self._close() if spoken.is_last else self._revise(self._open))

    def _close(self) -> list[Decided]:
        """End the open utterance: all its words are final, and nothing is left open."""
        now, self._open = self._open, None
        if now is None:
            return []
        self._closed_ns = now.start_ns
        told = self._cut(now, len(now.spoken.words))
        if now.spoken.words[now.n_done :] or now.revision:
            told.append(self._final(now, len(now.spoken.words)))
        return told

    def _cut(self, now: _Open, n_sure: int) -> list[Decided]:
        """Finals of those of the first `n_sure` words that are captions for good."""
        told = []
        while n_words := first_cut(now.spoken.words[now.n_done : n_sure]):
            told.append(self._final(now, now.n_done + n_words))
        return told

    def _final(self, now: _Open, end: int) -> Decided:
        """End the open caption with the words up to `end`; the next one begins there."""
        final = self._caption(now, end, is_final=True)
        now.number += 1
        now.n_done = end
        now.revision, now.shown, now.span = 0, None, None
        return final

    def _revise(self, now: _Open) -> list[Decided]:
        """A partial, if it says something else than before."""
        text = joined(now.spoken.words[now.n_done :])
        says = (text, self._n_steady(now))
        if says == (now.shown or ("", 0)):
            return []
        partial = self._caption(now, len(now.spoken.words), is_final=False)
        now.shown = says
        now.revision += 1
        return [partial]

    @staticmethod
    def _n_steady(now: _Open) -> int:
        """How many words of the open caption stay as they are until it is final."""
        return max(0, max(now.spoken.n_committed, now.spoken.n_steady) - now.n_done)

    def _caption(self, now: _Open, end: int, *, is_final: bool) -> Decided:
        if self._utc_offset_ns is None:
            msg = f"words of {self._source} came before SourceStarted"
            raise StateError(msg)
        words = now.spoken.words[now.n_done : end]
        if words:
            now.span = Span(words[0].span.start_ns, max(word.span.end_ns for word in words))
        span = now.span or now.spoken.span
        start_utc_ns = self._utc_offset_ns + now.start_ns
        draft = Draft(
            id=caption_id(self._node, self._source, "speech", start_utc_ns, number=now.number),
            state="final" if is_final else "partial",
            revision=now.revision,
            kind="speech",
            text=joined(words),
            span=span,
            words=words,
            n_steady=len(words) if is_final else self._n_steady(now),
            confidence=sum(word.confidence for word in words) / max(1, len(words)),
            language=now.spoken.language,
            on_screen=self._sight.on_screen(span),
        )
        return draft.decided(
            source=self._source,
            at_ns=now.spoken.span.end_ns,
            utc_offset_ns=self._utc_offset_ns,
        )
