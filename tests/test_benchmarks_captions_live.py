"""The arithmetic of `mmstream bench captions-live`, on scripted messages."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from mmstream.benchmarks.captions_live import (
    CaptionsLive,
    Followed,
    Recogniser,
    arrivals,
    delay,
    followed,
    loop,
    measure,
    table,
)
from mmstream.benchmarks.captions_live_world import Lateness
from mmstream.benchmarks.chaos_picture import Line
from mmstream.errors import ConfigError
from mmstream.media import Span
from mmstream.messages import Caption, NumberedStamp, Word, epoch_secs, iso_utc

OFFSET_NS = 1_700_000_000_000_000_000
"""Our monotonic clock's 0, UTC."""
MS = 1_000_000
SPOKEN = Span(OFFSET_NS + 1000 * MS, OFFSET_NS + 1990 * MS)

HE = ("he", 1000, 1200)
WAS = ("was", 1200, 1500)
WAX = ("wax", 1200, 1450)
NOT = ("not", 1500, 2000)


def test_words_are_followed_from_their_end_to_the_subscriber() -> None:
    said = _followed(
        _line(1300, "partial", HE),
        _line(1500, "partial", HE, WAX),
        _line(1700, "partial", HE, WAS, n_steady=1),
        _line(2100, "partial", HE, WAS, NOT, n_steady=1),
        _line(2600, "final", HE, WAS, NOT),
    )
    assert said.texts == ("he was not",)
    assert said.n_partials == 4
    words = said.words
    assert words.shown == delay([0.1, 0.0, 0.1])
    assert words.right == delay([0.1, 0.2, 0.1])
    assert words.steady == delay([0.5, 1.1, 0.6])
    assert words.final == delay([1.4, 1.1, 0.6])


def test_a_word_counts_as_shown_in_the_caption_before_that_was_cut() -> None:
    said = _followed(
        _line(2100, "partial", HE, WAS, NOT, n_steady=2),
        _line(2200, "final", HE, WAS),
        _line(2700, "final", NOT, caption="next"),
    )
    assert said.words.right == delay([0.9, 0.6, 0.1])
    assert said.words.steady == delay([0.9, 0.6, 0.7])
    assert said.words.final == delay([1.0, 0.7, 0.7])


def test_finals_are_laid_beside_what_was_played() -> None:
    elsewhere = ("late", 9000, 9100)
    lines = (
        _line(2200, "final", HE, WAS),
        _line(2600, "final", NOT, caption="next"),
        _line(9900, "final", elsewhere, caption="other"),
    )
    unheard = Span(OFFSET_NS + 5000 * MS, OFFSET_NS + 6000 * MS)
    said = followed(arrivals(lines, OFFSET_NS), [SPOKEN, unheard])
    assert said.played_final == delay([0.61])
    assert said.words_off == delay([0.01])
    assert said.words.final.n == 4


def test_stamps_and_transit_are_those_of_speech_alone() -> None:
    said = _followed(
        _line(1300, "partial", HE, latency_ms=150.0),
        _line(1400, "final", kind="sound", latency_ms=9.0),
        _line(2000, "final", HE, latency_ms=700.0),
    )
    assert said.stamped_partial == delay([0.15])
    assert said.stamped_final == delay([0.7])
    assert said.transit == delay([0.004, 0.004])


def test_nothing_heard_has_no_percentiles() -> None:
    said = _followed()
    assert said.words.shown.n == said.played_final.n == 0
    assert said.words.shown.p50_ms is None


def test_lateness_is_of_the_time_that_is_asked_for() -> None:
    at_ns = np.arange(200, dtype=np.int64)
    late_ns = np.where(at_ns < 100, 7 * MS, at_ns * MS)
    found = loop(Lateness(at_ns, late_ns).within(Span(100, 200)))
    assert found.n == 100
    assert (found.p50_ms, found.p99_ms, found.max_ms) == (149.5, 198.01, 199.0)


def test_the_table_lays_the_loop_beside_the_loop_without_captions() -> None:
    at_ns = np.arange(100, dtype=np.int64)
    busy, quiet = (loop(Lateness(at_ns, np.full(100, ms * MS))) for ms in (6, 4))
    asked = Recogniser(
        realtime_factor=0.25, answer_p50_ms=20.0, answer_p95_ms=30.0, partials_dropped=2
    )
    found = CaptionsLive(
        recordings=("a.wav",),
        captions=_followed(_line(2600, "final", HE, WAS, NOT)),
        recogniser=asked,
        loop=busy,
        loop_without=quiet,
        loop_idle=quiet,
    )
    printed = table(found)
    assert found.ratio == 1.5
    assert "1.50 of that without captions" in printed
    assert "1 recordings, 3 words heard" in printed
    assert "0 partials, 2 dropped, 1 finals" in printed


def test_recordings_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSTREAM_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"speech/librivox_0880\.wav: is not there; MMSTREAM"):
        measure()


def _followed(*lines: Line) -> Followed:
    return followed(arrivals(lines, OFFSET_NS), [SPOKEN])


def _line(
    at_ms: int,
    state: Literal["partial", "final"],
    *said: tuple[str, int, int],
    n_steady: int | None = None,
    caption: str = "first",
    kind: Literal["speech", "sound"] = "speech",
    latency_ms: float | None = None,
) -> Line:
    """Heard at `at_ms` of our clock, 4 ms after it was made."""
    words = tuple(_word(*one) for one in said)
    content = Caption(
        id=caption,
        state=state,
        revision=0,
        source="room",
        text=" ".join(word.text for word in words),
        kind=kind,
        ts_start=iso_utc(OFFSET_NS),
        t_start=epoch_secs(OFFSET_NS),
        ts_end=iso_utc(OFFSET_NS),
        t_end=epoch_secs(OFFSET_NS),
        words=words,
        steady=len(words) if n_steady is None else n_steady,
        confidence=0.5,
        language="en-US",
    )
    stamp = NumberedStamp(
        node="n",
        boot_id="b",
        ts_emit=iso_utc(OFFSET_NS + (at_ms - 4) * MS),
        seq=None,
        latency_ms=latency_ms,
    )
    fields = {**content.model_dump(), **stamp.model_dump()}
    return Line("broker", at_ms * MS, f"room/caption/{state}", json.dumps(fields))


def _word(text: str, start_ms: int, end_ms: int) -> Word:
    start, end = (epoch_secs(OFFSET_NS + ms * MS) for ms in (start_ms, end_ms))
    return Word(text=text, t_start=start, t_end=end, confidence=0.9)
