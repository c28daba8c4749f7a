"""How late live captions are at a subscriber, and how late the event loop is meanwhile.

Recordings of speech are played into a microphone (PulseAudio's null sink), the recipe `captioning`
listens to it with its settings, and a subscriber notes when each caption comes to it through a
mosquitto that writes every change to disk. Each word of the finals is followed: from its end, in
the caption's own capture time, to the first message that shows a word at its place, the first
that shows this one, the first that holds it steady, and the final. How true the words' own times
are is checked against the instants at which the recordings were played.

The loop's lateness is that of a task that wants to wake up each 5 ms; beside it that of the same
program with `captions: false`, and that of a loop that has nothing to do.
"""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, JsonValue

from mmstream.benchmarks.captions_live_world import RATE_HZ, ROOM, Lateness, idle, played_to
from mmstream.benchmarks.chaos_picture import Line
from mmstream.benchmarks.senses import DATA
from mmstream.clock import SystemClock
from mmstream.errors import ConfigError, SourceError
from mmstream.media import NS_PER_SEC, AudioChunk, Floats, Span, samples_to_ns
from mmstream.messages import Caption, NumberedStamp, Stats, Word, utc_ns
from mmstream.sources.media import MediaFile, MediaSettings

RECORDINGS: Final = (
    "speech/librivox_0880.wav",
    "speech/ldc93s1.wav",
    "speech/librivox_0930.wav",
    "speech/google_brooklyn_bridge.wav",
    "speech/picovoice_en.wav",
    "speech/librivox_0890.wav",
)
"""21 s, 55 words of English, read and asked."""
N_BESIDE: Final = 2
"""So many of them are played to the program that does not caption."""
LAST_SECS: Final = 10.0
"""How long the last final may take."""
IDLE_SECS: Final = 2.0
TARGET_LATE_MS: Final = 5.0

_RECOGNISER: Final = "speech_to_text"
_FRAME: Final = RATE_HZ // 100
_QUIET: Final = 10 ** (-30 / 20)
"""Beside the loudest 10 ms of a recording: where its speech is over."""
_SLACK_SECS: Final = 0.3
_CLOCK: Final = SystemClock()


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Delay(_Record):
    """Of some instants to others, milliseconds; null where there were none."""

    n: int
    p50_ms: float | None
    p95_ms: float | None


class Loop(_Record):
    """How late the event loop was, milliseconds."""

    n: int
    """How often it was asked."""
    p50_ms: float
    p99_ms: float
    max_ms: float


class Words(_Record):
    """From a word's end to the subscriber; below 0: before its end."""

    shown: Delay
    """The first message with a word at its place."""
    right: Delay
    """The first with this word at its place."""
    steady: Delay
    """The first in which it is held as it is; at the latest the final, which may correct words."""
    final: Delay


class Recogniser(_Record):
    """What the program says of its recogniser."""

    realtime_factor: float | None
    """Seconds of computing for a second of sound."""
    answer_p50_ms: float | None
    """From when a hop's sound was given to it to its hypothesis."""
    answer_p95_ms: float | None
    partials_dropped: int


class Followed(_Record):
    """What became of the words."""

    texts: tuple[str, ...]
    """Of the finals."""
    n_partials: int
    words: Words
    stamped_partial: Delay
    """`latency_ms` of the messages: capture of the last sound a caption rests on -> emission."""
    stamped_final: Delay
    transit: Delay
    """Emission -> subscriber."""
    played_final: Delay
    """The end of a recording's speech, as it was played -> its last final at the subscriber."""
    words_off: Delay
    """By how much a recording's last word ends after its speech as it was played."""


class CaptionsLive(_Record):
    """What was measured."""

    recordings: tuple[str, ...]
    captions: Followed
    recogniser: Recogniser
    loop: Loop
    loop_without: Loop
    """With `captions: false`."""
    loop_idle: Loop

    @property
    def ratio(self) -> float:
        """The loop's p99 over that without captions."""
        return self.loop.p99_ms / self.loop_without.p99_ms


@dataclass(frozen=True, slots=True)
class Arrival:
    """A caption of speech at the subscriber."""

    at_ns: int
    """When it came, UTC."""
    emitted_ns: int
    """When it was made, UTC."""
    latency_ms: float | None
    caption: Caption

    @property
    def at_secs(self) -> float:
        """When it came, in seconds since 1970."""
        return self.at_ns / NS_PER_SEC


def measure(files: Sequence[str] = RECORDINGS) -> CaptionsLive:
    """Play the files, of the folder of recordings, to the program; the first few without captions.

    Raises:
        ConfigError: the recordings are not there.
        SourceError: PulseAudio or the program does not start, or the program does not end well.
        BrokerError: mosquitto is not there or does not start.
    """
    folder = Path(os.environ.get("MMSTREAM_DATA", DATA))
    if missing := [file for file in files if not (folder / file).is_file()]:
        msg = f"{folder / missing[0]}: is not there; MMSTREAM_DATA may name the recordings' folder"
        raise ConfigError(msg)
    sounds = [_samples(folder / file) for file in files]
    doing_nothing = idle(IDLE_SECS)
    without = asyncio.run(played_to(sounds[:N_BESIDE], ("captions=false",), last_secs=0))
    heard = asyncio.run(played_to(sounds, (), last_secs=LAST_SECS))
    offset_ns = _CLOCK.utc_ns() - _CLOCK.monotonic_ns()
    spoken = [
        Span(start_ns, start_ns + _speech_ns(samples))
        for start_ns, samples in zip(
            (played.start_ns + offset_ns for played in heard.played), sounds, strict=True
        )
    ]
    return CaptionsLive(
        recordings=tuple(files),
        captions=followed(arrivals(heard.lines, offset_ns), spoken),
        recogniser=_recogniser(heard.lines),
        loop=loop(heard.lateness),
        loop_without=loop(without.lateness),
        loop_idle=loop(doing_nothing),
    )


def table(found: CaptionsLive) -> str:
    """The figures for people."""
    said, words, asked = found.captions, found.captions.words, found.recogniser
    heading = f"{len(found.recordings)} recordings, {words.final.n} words heard"
    rows = (
        ("word's end -> a word is shown there", words.shown),
        ("word's end -> it is shown", words.right),
        ("word's end -> it is held steady", words.steady),
        ("word's end -> it is in a final", words.final),
        ("stamped latency, partials", said.stamped_partial),
        ("stamped latency, finals", said.stamped_final),
        ("emission -> subscriber", said.transit),
        ("speech over, as played -> final", said.played_final),
        ("last word's end after speech is over", said.words_off),
    )
    lines = [f"{heading:<44}{'n':>6}{'p50 ms':>10}{'p95 ms':>10}"]
    lines += [f"{name:<44}{one.n:>6}{_ms(one.p50_ms)}{_ms(one.p95_ms)}" for name, one in rows]
    lines.append(
        f"recogniser: real-time factor {_plain(asked.realtime_factor)}, answers after p50 "
        f"{_plain(asked.answer_p50_ms)}, p95 {_plain(asked.answer_p95_ms)} ms; "
        f"{said.n_partials} partials, {asked.partials_dropped} dropped, {len(said.texts)} finals"
    )
    lines.append(f"{'the loop is late, ms':<44}{'n':>6}{'p50':>10}{'p99':>10}{'most':>10}")
    loops = (
        ("captioning", found.loop),
        ("the same with captions: false", found.loop_without),
        ("a loop with nothing to do", found.loop_idle),
    )
    lines += [
        f"{name:<44}{one.n:>6}{one.p50_ms:>10.2f}{one.p99_ms:>10.2f}{one.max_ms:>10.1f}"
        for name, one in loops
    ]
    lines.append(
        f"target: p99 <= {TARGET_LATE_MS:g} ms; it is {found.ratio:.2f} of that without captions"
    )
    return "\n".join(lines)


def arrivals(lines: Sequence[Line], offset_ns: int) -> list[Arrival]:
    """The captions of speech among what was heard; `offset_ns`: from our instants to UTC."""
    arrived = []
    for line in lines:
        if line.topic.startswith(f"{ROOM}/caption/"):
            fields = json.loads(line.payload)
            caption = Caption.model_validate(_of(Caption, fields))
            stamp = NumberedStamp.model_validate(_of(NumberedStamp, fields))
            if caption.kind == "speech":
                at_ns, emitted_ns = offset_ns + line.at_ns, utc_ns(stamp.ts_emit)
                arrived.append(Arrival(at_ns, emitted_ns, stamp.latency_ms, caption))
    return arrived


def followed(arrived: Sequence[Arrival], spoken: Sequence[Span]) -> Followed:
    """Follow each word of the finals.

    `arrived`: in the order in which they came. `spoken`: when the speech of each recording was
    played, UTC; what was heard at other times is followed, but laid beside no recording.
    """
    finals = [one for one in arrived if one.caption.state == "final"]
    partials = [one for one in arrived if one.caption.state == "partial"]
    last = [_last_word(finals, span) for span in spoken]
    ends = [(span.end_ns / NS_PER_SEC, one) for span, one in zip(spoken, last, strict=True)]
    return Followed(
        texts=tuple(one.caption.text for one in finals),
        n_partials=len(partials),
        words=_words(arrived, finals),
        stamped_partial=_stamped(partials),
        stamped_final=_stamped(finals),
        transit=delay([(one.at_ns - one.emitted_ns) / NS_PER_SEC for one in arrived]),
        played_final=delay([one.at_secs - end for end, one in ends if one is not None]),
        words_off=delay([one.word.t_end - end for end, one in ends if one is not None]),
    )


def delay(secs: Sequence[float]) -> Delay:
    """Median and 95th percentile of delays in seconds."""
    if not secs:
        return Delay(n=0, p50_ms=None, p95_ms=None)
    p50, p95 = np.percentile(secs, [50, 95]) * 1e3
    return Delay(n=len(secs), p50_ms=round(float(p50), 1), p95_ms=round(float(p95), 1))


def loop(lateness: Lateness) -> Loop:
    """How late it was."""
    p50, p99, most = np.percentile(lateness.late_ns, [50, 99, 100]) / 1e6
    return Loop(
        n=lateness.late_ns.size,
        p50_ms=round(float(p50), 3),
        p99_ms=round(float(p99), 3),
        max_ms=round(float(most), 3),
    )


@dataclass(frozen=True, slots=True)
class _Came:
    """A word of a final, and when that came."""

    word: Word
    at_secs: float


def _words(arrived: Sequence[Arrival], finals: Sequence[Arrival]) -> Words:
    shown, right, steady, final = [], [], [], []
    for came in finals:
        for word in came.caption.words:
            there = [(one, *found) for one in arrived if (found := _at(one.caption, word))]
            same = [(one, nth) for one, nth, found in there if found.text == word.text]
            held = [one for one, nth in same if nth < one.caption.steady]
            shown.append(there[0][0].at_secs - word.t_end)
            right.append(same[0][0].at_secs - word.t_end)
            steady.append(held[0].at_secs - word.t_end)
            final.append(came.at_secs - word.t_end)
    return Words(shown=delay(shown), right=delay(right), steady=delay(steady), final=delay(final))


def _at(caption: Caption, word: Word) -> tuple[int, Word] | None:
    """The caption's word in the middle of this one, and which one it is."""
    if word in caption.words:
        return caption.words.index(word), word
    middle = (word.t_start + word.t_end) / 2
    for nth, one in enumerate(caption.words):
        if one.t_start <= middle < one.t_end:
            return nth, one
    return None


def _last_word(finals: Sequence[Arrival], spoken: Span) -> _Came | None:
    """The last word said within a recording; None: none was heard."""
    start = spoken.start_ns / NS_PER_SEC - _SLACK_SECS
    end = spoken.end_ns / NS_PER_SEC + _SLACK_SECS
    within = [
        _Came(word, one.at_secs)
        for one in finals
        for word in one.caption.words
        if start <= (word.t_start + word.t_end) / 2 < end
    ]
    return max(within, key=lambda came: came.word.t_end, default=None)


def _stamped(arrived: Sequence[Arrival]) -> Delay:
    return delay([one.latency_ms / 1e3 for one in arrived if one.latency_ms is not None])


def _recogniser(lines: Sequence[Line]) -> Recogniser:
    """What the last `stats` say."""
    said = [json.loads(line.payload) for line in lines if line.topic == Stats.TOPIC]
    stages = [Stats.model_validate(_of(Stats, fields)).stages for fields in said]
    report = next((one[_RECOGNISER] for one in reversed(stages) if _RECOGNISER in one), None)
    if report is None:
        msg = "the program said nothing of its recogniser"
        raise SourceError(msg)
    return Recogniser(
        realtime_factor=report.realtime_factor,
        answer_p50_ms=report.p50_ms,
        answer_p95_ms=report.p95_ms,
        partials_dropped=report.dropped.get("partial_dropped", 0),
    )


def _of(model: type[BaseModel], fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What of a message belongs to it: content and stamp lie in one object."""
    return {name: fields[name] for name in model.model_fields if name in fields}


def _samples(path: Path) -> Floats:
    """[n] at 16 kHz."""
    settings = MediaSettings(url=str(path), pace="max")
    with MediaFile("speech", settings, _CLOCK, rate_hz=RATE_HZ).read() as items:
        return np.concatenate([item.samples for item in items if isinstance(item, AudioChunk)])


def _speech_ns(samples: Floats) -> int:
    """When the speech of a recording is over, from its first sample on."""
    frames = samples[: samples.size // _FRAME * _FRAME].reshape(-1, _FRAME)
    loudness = np.sqrt(np.mean(np.square(frames), axis=1))
    last = int(np.flatnonzero(loudness > _QUIET * loudness.max())[-1])
    return samples_to_ns((last + 1) * _FRAME, RATE_HZ)


def _ms(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:>10.0f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
