from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mmstream.codecs.rtp import Report, RtpClock
from mmstream.media import NS_PER_SEC

RATE = 90_000
STEP = 3_600
"""Ticks from one picture to the next: 25 per second."""
EPOCH = 3_900_000_000
"""Seconds since 1900 by the sender's clock."""


class Ffmpeg:
    """Stamps as libavformat's rtpdec.c makes them: `ticks` is what the stream's own clock shows."""

    def __init__(self, base: int, offset: int) -> None:
        self._base = base
        self._offset = offset
        """Of the other stream's clock, from the first report on."""
        self._first: Report | None = None
        self._report: Report | None = None

    def report(self, ticks: int, sender_secs: Fraction) -> Report:
        ntp = round((EPOCH + sender_secs) * (1 << 32))
        self._report = Report(ntp, (self._base + ticks) % (1 << 32))
        self._first = self._first or self._report
        return self._report

    def stamp(self, ticks: int) -> int:
        if self._report is None or self._first is None:
            return ticks
        wrapped = (self._base + ticks - self._report.rtp + (1 << 31)) % (1 << 32) - (1 << 31)
        first = (self._first.rtp - self._base) % (1 << 32) + self._offset
        return first + (self._report.ntp - self._first.ntp) * RATE // (1 << 32) + wrapped


@given(
    base=st.integers(0, (1 << 32) - 1),
    offset_ms=st.integers(-500, 500),
    errors_ms=st.lists(st.integers(-80, 80), min_size=1, max_size=6),
    drift_ppm=st.integers(-500, 500),
    set_secs=st.integers(-3600, 3600),
)
def test_what_reports_move_is_taken_out(
    base: int, offset_ms: int, errors_ms: list[int], drift_ppm: int, set_secs: int
) -> None:
    """A report each second, wrong by some ms; once, the sender's clock is set."""
    ffmpeg = Ffmpeg(base, offset_ms * RATE // 1000)
    clock = RtpClock(Fraction(1, RATE))
    n_pictures = 25 * (len(errors_ms) + 1)
    report = None
    seen = []
    for i in range(n_pictures):
        if i % 25 == 24:
            secs = Fraction(i, 25) * (1 - Fraction(drift_ppm, 10**6))
            secs += Fraction(errors_ms[i // 25 - 1], 1000) + (set_secs if i > 50 else 0)
            report = ffmpeg.report(i * STEP, secs)
        stamp = clock.steady(ffmpeg.stamp(i * STEP), report, i * NS_PER_SEC // 25, 0)
        seen.append(stamp - i * STEP)
    assert max(seen) - min(seen) <= RATE // 500 + 2 * len(errors_ms)


def test_after_packets_were_lost_time_has_passed() -> None:
    clock = RtpClock(Fraction(1, RATE))
    report = None
    stamps = []
    for i in (0, 1, 2, 7, 8):  # the first report comes just when five were lost
        if i == 7:
            report = Report(EPOCH << 32, i * STEP)
        stamps.append(clock.steady(i * STEP, report, i * NS_PER_SEC // 25, NS_PER_SEC // 25))
    assert stamps == [0, STEP, 2 * STEP, 7 * STEP, 8 * STEP]


def test_a_clock_that_began_anew_is_left_to_the_senders() -> None:
    """FFmpeg's stamps go on after the next report, as if nothing had been."""
    ffmpeg = Ffmpeg(1 << 20, 0)
    clock = RtpClock(Fraction(1, RATE))
    report = ffmpeg.report(0, Fraction(0))
    for i in range(25):
        clock.steady(ffmpeg.stamp(i * STEP), report, i * NS_PER_SEC // 25, 0)
    back = 3600 * RATE
    report = ffmpeg.report(25 * STEP - back, Fraction(1))
    stamp = clock.steady(ffmpeg.stamp(25 * STEP - back), report, NS_PER_SEC, 0)
    assert abs(stamp - 25 * STEP) <= 1
