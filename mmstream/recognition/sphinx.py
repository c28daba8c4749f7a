"""pocketsphinx 5 in a process of its own, since it holds the interpreter's lock for up to 650 ms.

Its answers depend on the level of each cepstral coefficient. Here each utterance begins anew with
the mean of its own first half second, and again with that of its first second: a word error rate
of 38 % on 18 recordings, against 50 % with pocketsphinx' constant and 36.5 % where the whole file
is known beforehand. A decoder keeps a little of what it heard (its scorer's best Gaussians), so the
same sound says the same from the start of a source on, not utterance by utterance.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from pocketsphinx import Decoder

from mmstream.errors import ScorerError
from mmstream.media import NS_PER_SEC, Floats, Hypothesis, Span, SpokenWord, Take
from mmstream.recognition.spawned import ChildLostError, Spawned, serve

_LOG = logging.getLogger(__name__)
_RATE_HZ: Final = 16_000
_FRAME_NS: Final = NS_PER_SEC // 100
_LEVELLED_AT: Final = (_RATE_HZ // 2, _RATE_HZ)
"""After so many samples of an utterance it is begun anew with what they say of the level."""
_UNKNOWN: Final = 0.5
"""The confidence of words before the lattice search, which alone gives probabilities."""
_PRONUNCIATION: Final = re.compile(r"\(\d+\)$")
_FILLERS: Final = ("<", "[", "+")


@dataclass(frozen=True, slots=True)
class Piece:
    """The sound of an utterance that the child does not have yet."""

    source: str
    begins: bool
    """Whether it is the first of its utterance."""
    pcm: bytes
    """16-bit samples at 16 kHz."""
    is_last: bool


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A source that has ended."""

    source: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A word, in frames of 10 ms since the utterance began; `end` does not belong to it."""

    text: str
    start: int
    end: int
    confidence: float


@dataclass(frozen=True, slots=True)
class _Sent:
    utterance: int
    n_samples: int


class Pocketsphinx:
    """The child seen from here (`stages.Recogniser`).

    Confidences are posterior probabilities from the lattice of the whole utterance; before its
    end there are none, and 0.5 stands for them. A child that dies is replaced once in a call and
    gets the whole take again, so no sound is lost; `n_restarts` counts them.
    """

    def __init__(self, language: str) -> None:
        """Start the child and wait until it has loaded its model.

        Raises:
            ScorerError: it does not come up.
        """
        self._language = language
        self._sent: dict[str, _Sent] = {}
        self.n_restarts = 0
        self._child = _start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def recognise(self, takes: Sequence[Take]) -> Sequence[Hypothesis]:
        """One per take, in order.

        Raises:
            ScorerError: a take is not at 16 kHz, or the child died twice over it.
        """
        return [self._recognise(take) for take in takes]

    def forget(self, source: str) -> None:
        """Drop the decoder of a source."""
        if self._sent.pop(source, None) is None:
            return
        try:
            self._child.ask(Forgotten(source))
        except ChildLostError as error:
            self._restart(error)

    def close(self) -> None:
        """End the child."""
        self._child.close()

    def _recognise(self, take: Take) -> Hypothesis:
        if take.rate_hz != _RATE_HZ:
            msg = f"pocketsphinx: sound at {take.rate_hz} Hz; allowed: {_RATE_HZ}"
            raise ScorerError(msg)
        try:
            segments = self._child.ask(self._piece(take))
        except ChildLostError as error:
            self._restart(error)
            try:
                segments = self._child.ask(self._piece(take))
            except ChildLostError as again:
                msg = f"pocketsphinx: {again}, twice over the same sound"
                raise ScorerError(msg) from None
        self._sent[take.source] = _Sent(take.utterance, take.samples.size)
        words = tuple(_words(segments, take.span))
        return Hypothesis(
            take.source, take.utterance, take.span, words, self._language, is_last=take.is_last
        )

    def _piece(self, take: Take) -> Piece:
        sent = self._sent.get(take.source)
        begins = sent is None or sent.utterance != take.utterance
        n_sent = 0 if sent is None or begins else sent.n_samples
        return Piece(take.source, begins, _pcm(take.samples[n_sent:]), take.is_last)

    def _restart(self, error: ChildLostError) -> None:
        self._child.close()
        self._sent.clear()
        self.n_restarts += 1
        _LOG.warning("pocketsphinx: %s; started again", error)
        self._child = _start()


def _start() -> Spawned[Piece | Forgotten, tuple[Segment, ...]]:
    child = Spawned[Piece | Forgotten, tuple[Segment, ...]](__name__)
    try:
        child.ask(Forgotten(""))  # answered once all is loaded
    except ChildLostError as error:
        child.close()
        msg = f"pocketsphinx: {error} before it was ready"
        raise ScorerError(msg) from None
    return child


def _pcm(samples: Floats) -> bytes:
    return np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def _words(segments: Sequence[Segment], span: Span) -> Iterator[SpokenWord]:
    for segment in segments:
        start_ns = min(span.start_ns + segment.start * _FRAME_NS, span.end_ns)
        end_ns = min(span.start_ns + segment.end * _FRAME_NS, span.end_ns)
        yield SpokenWord(segment.text, Span(start_ns, end_ns), segment.confidence)


def _decoder() -> Decoder:
    return Decoder(loglevel="FATAL", dither=False)


@dataclass(slots=True)
class _Listening:
    """In the child: one source's decoder and what it has heard of an utterance."""

    decoder: Decoder = field(default_factory=_decoder)
    heard: bytearray = field(default_factory=bytearray)
    n_decoded: int = 0
    """Bytes."""
    n_levelled: int = 0
    is_open: bool = False

    def hear(self, piece: Piece) -> tuple[Segment, ...]:
        if piece.begins:
            self._end()
            self.heard.clear()
            self.n_levelled = 0
        self.heard += piece.pcm
        self._level(is_last=piece.is_last)
        if not self.is_open:
            return ()
        rest = bytes(self.heard[self.n_decoded :])
        if rest:
            self.decoder.process_raw(rest)
        self.n_decoded = len(self.heard)
        if piece.is_last:
            self._end()
        return tuple(_segments(self.decoder, is_last=piece.is_last))

    def _level(self, *, is_last: bool) -> None:
        n_samples = len(self.heard) // 2
        enough = max((n for n in _LEVELLED_AT if n <= n_samples), default=0)
        if not enough and is_last:
            enough = n_samples
        if enough <= self.n_levelled:
            return
        self._end()
        self.decoder.start_stream()  # forgets the noise of what was before
        self.decoder.start_utt()
        first = bytes(self.heard[: enough * 2])
        self.decoder.process_raw(first, no_search=True, full_utt=True)
        level = self.decoder.get_cmn()
        self.decoder.end_utt()
        self.decoder.set_cmn(level)
        self.decoder.start_stream()
        self.decoder.start_utt()
        self.is_open, self.n_decoded, self.n_levelled = True, 0, enough

    def _end(self) -> None:
        if self.is_open:
            self.decoder.end_utt()
            self.is_open = False


def _segments(decoder: Decoder, *, is_last: bool) -> Iterator[Segment]:
    for part in decoder.seg() or ():
        if part.word.startswith(_FILLERS):
            continue
        text = _PRONUNCIATION.sub("", part.word)
        confidence = min(1.0, max(0.0, part.prob)) if is_last else _UNKNOWN
        yield Segment(text, part.start_frame, part.end_frame + 1, confidence)


class _Desk:
    """In the child: whoever is asked about."""

    def __init__(self) -> None:
        self._spare: _Listening | None = _Listening()
        self._sources: dict[str, _Listening] = {}

    def answer(self, question: Piece | Forgotten) -> tuple[Segment, ...]:
        if isinstance(question, Forgotten):
            self._sources.pop(question.source, None)
            return ()
        listening = self._sources.get(question.source)
        if listening is None:
            listening = self._sources[question.source] = self._spare or _Listening()
            self._spare = None
        return listening.hear(question)


if __name__ == "__main__":
    # By its real name: as `__main__` its records would be strangers to those that arrive.
    from mmstream.recognition import sphinx  # noqa: PLW0406 - see above

    serve(sphinx._Desk().answer)  # noqa: SLF001 - this module's own
