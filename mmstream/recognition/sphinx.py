"""pocketsphinx 5 in a process of its own, since it holds the interpreter's lock for up to 650 ms.

Its answers depend on the level of each cepstral coefficient. An utterance begins with that of those
before it; the first one of a source with that of its own beginning, and anew as more of it is
heard. When it is over its own level is known, and it is heard once more with that, unless it is
long. docs/results.md has the error rates.

A decoder keeps a little of what it heard (its scorer's best Gaussians), so the same utterance may
say otherwise later in a source; the same source from its start on, cut into the same takes, said
the same in all tests.
"""

import logging
import re
import warnings
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
_LEVELLED_AT: Final = (_RATE_HZ // 2, _RATE_HZ, 2 * _RATE_HZ, 4 * _RATE_HZ)
"""After so many samples of a first utterance it is begun anew with what they say of the level."""
_KNOWN: Final = 2 * _RATE_HZ
"""From so many samples on, utterances begin with the level of those before them."""
_REMEMBERED: Final = 30 * _RATE_HZ
"""The level follows the utterances of the last so many samples."""
_HEARD_AGAIN: Final = 12 * _RATE_HZ
"""An utterance of at most so many samples is heard once more as a whole when it is over."""
_QUICK: Final = "level"
"""A search for next to nothing."""
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


class _Whole:
    """In the child: a decoder for utterances as a whole, whose level it takes from themselves.

    One that has heard an utterance bit by bit takes no other's level any more, so it hears none so.
    """

    def __init__(self) -> None:
        self._decoder = _decoder()
        self._words = self._decoder.current_search()
        self._decoder.add_keyphrase(_QUICK, "oh")  # a word is needed, any will do

    def hear(self, pcm: bytes) -> "_Heard":
        """Its words and its level."""
        level = self._hear(pcm)
        return _Heard(level, tuple(_segments(self._decoder, is_last=True)))

    def level(self, pcm: bytes) -> Floats:
        """Its level alone; to search it for words would take ten times as long."""
        self._decoder.activate_search(_QUICK)
        try:
            return self._hear(pcm)
        finally:
            self._decoder.activate_search(self._words)

    def _hear(self, pcm: bytes) -> Floats:
        with warnings.catch_warnings():
            # It is deprecated as unnecessary, but else the noise of before changes the level.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._decoder.start_stream()
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        level = np.array(self._decoder.get_cmn().split(","), np.float32)
        self._decoder.end_utt()
        return level


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    level: Floats
    """The mean of each cepstral coefficient."""
    segments: tuple[Segment, ...]


@dataclass(slots=True)
class _Listening:
    """In the child: one source's decoder and what it has heard of an utterance."""

    whole: _Whole
    decoder: Decoder = field(default_factory=_decoder)
    level: Floats | None = None
    """Of the utterances before."""
    n_known: int = 0
    """Samples that it is of."""
    heard: bytearray = field(default_factory=bytearray)
    n_decoded: int = 0
    """Bytes."""
    n_levelled: int = 0
    is_open: bool = False

    def hear(self, piece: Piece) -> tuple[Segment, ...]:
        """The words of the utterance so far; of all of it once more at its end."""
        if piece.begins:
            self._end()
            self.heard.clear()
            self.n_levelled = 0
        self.heard += piece.pcm
        if piece.is_last and (piece.begins or len(self.heard) <= 2 * _HEARD_AGAIN):
            return self._hear_all()
        self._begin()
        if not self.is_open:
            return ()
        rest = bytes(self.heard[self.n_decoded :])
        if rest:
            self.decoder.process_raw(rest)
        self.n_decoded = len(self.heard)
        if piece.is_last:
            self._end()
        return tuple(_segments(self.decoder, is_last=piece.is_last))

    def _hear_all(self) -> tuple[Segment, ...]:
        """An utterance that is over."""
        self._end()
        if not self.heard:
            return ()
        found, n_samples = self.whole.hear(bytes(self.heard)), len(self.heard) // 2
        share = n_samples / (n_samples + self.n_known)
        before = found.level if self.level is None else self.level
        self.level = before + share * (found.level - before)
        self.n_known = min(self.n_known + n_samples, _REMEMBERED)
        return found.segments

    def _begin(self) -> None:
        """Begin, or begin anew, where more is known of the level than before."""
        if self.level is not None and self.n_known >= _KNOWN:
            if not self.is_open:
                self._start(self.level)
            return
        enough = max((n for n in _LEVELLED_AT if 2 * n <= len(self.heard)), default=0)
        if enough > self.n_levelled:
            self._end()
            self._start(self.whole.level(bytes(self.heard[: 2 * enough])))
            self.n_levelled = enough

    def _start(self, level: Floats) -> None:
        self.decoder.set_cmn(",".join(f"{one:.4f}" for one in level))
        self.decoder.start_utt()
        self.is_open, self.n_decoded = True, 0

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
        self._whole = _Whole()
        self._spare: _Listening | None = _Listening(self._whole)
        self._sources: dict[str, _Listening] = {}

    def answer(self, question: Piece | Forgotten) -> tuple[Segment, ...]:
        if isinstance(question, Forgotten):
            self._sources.pop(question.source, None)
            return ()
        listening = self._sources.get(question.source)
        if listening is None:
            listening = self._sources[question.source] = self._spare or _Listening(self._whole)
            self._spare = None
        return listening.hear(question)


if __name__ == "__main__":
    # By its real name: as `__main__` its records would be strangers to those that arrive.
    from mmstream.recognition import sphinx  # noqa: PLW0406 - see above

    serve(sphinx._Desk().answer)  # noqa: SLF001 - this module's own
