"""How far apart sound and picture of one instant are put, over an hour on clocks that drift.

Time is virtual. Cameras send 25 pictures a second and sound in frames of 64 ms (AAC at 16 kHz),
over a network that delivers in order, never early, 5 ms late and a gamma tail more (mean 12 ms;
Wi-Fi: exponential, mean 40 ms); microphones give blocks of 60 ms whose instants err by up to 5 ms,
and by 50 ms now and then. Each minute something happens: see `drift_world.Trouble`. Stamps go
through `ClockMap`, sound through `SteadySound`.

Sound is at 1 kHz, so that an hour takes seconds: a slow triangle that says, wherever it is looked
at, when it was captured. What lies within 24 samples of a seam has too few neighbours to be read
(24 ms here, 1.5 ms at 16 kHz) and is not counted. A delay that is always there cannot be known from
stamps, and is taken off. The baseline takes stamps at face value from a stream's first arrival, and
is even told when they start anew.
"""

from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from mmstream.benchmarks.drift_world import FPS, START_NS, Doubles, Items, Link, Scenario, sent
from mmstream.codecs.sound import CHUNKS_PER_SEC
from mmstream.media import NS_PER_SEC, AudioChunk, Span, secs_to_ns
from mmstream.metrics import StageMetrics
from mmstream.sources.clock_map import ClockMap
from mmstream.sources.steady_sound import TOLERANCE_NS, SteadySound

SECS: Final = 3600.0
RATE_HZ: Final = 1_000
SETTLING_SECS: Final = 5.0
TARGET_MS: Final = 40.0

_HALF_SECS: Final = 64.0
"""Half a period of the triangle."""
_N_SEAM: Final = 24
_LOOK_SECS: Final = 0.01


class Row(BaseModel):
    """What was measured of a scenario."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    link: Link
    is_wifi: bool
    camera_ppm: float
    sound_ppm: float
    n_instants: int
    """At which sound was compared with the picture: every 10 ms in which there were both."""
    max_ms: float
    """The largest distance of sound and picture, after the first 5 s."""
    p95_ms: float
    p50_ms: float
    outside_secs: float
    """For how long, all in all, the distance was more than the target: 0 is none at all."""
    baseline_max_ms: float
    baseline_p50_ms: float
    clock_max_ms: float
    """The largest distance of either from when it was captured."""
    drift_error_p50_ppm: float
    drift_error_max_ppm: float
    """Of the estimates from 65 s on."""
    n_steps: int

    @property
    def ratio(self) -> float:
        """The largest distance over the baseline's."""
        return self.max_ms / self.baseline_max_ms


class Drift(BaseModel):
    """All scenarios."""

    secs: float
    rows: list[Row]


SCENARIOS: Final = (
    Scenario("microphone", 100, -100),
    Scenario("microphone", 500, -500),
    Scenario("microphone", -500, 500),
    Scenario("two clocks", 500, 500),
    Scenario("two clocks", -500, -500),
    Scenario("one clock", -500, -500),
    Scenario("microphone", -100, 100, is_wifi=True),
)


def measure(secs: float = SECS) -> Drift:
    """All scenarios, `secs` of each."""
    rows = [simulate(scenario, secs, seed) for seed, scenario in enumerate(SCENARIOS)]
    return Drift(secs=secs, rows=rows)


def table(found: Drift) -> str:
    """The figures for people."""
    columns = f"{'face max':>10}{'ratio':>7}{'outside s':>11}{'clock max':>11}{'drift +-ppm':>13}"
    lines = [
        f"{found.secs / 60:.0f} min, sound against picture, ms; face value: no correction",
        f"{'sound':<17}{'ppm':>10}{'p50':>7}{'p95':>7}{'max':>7}{columns}",
    ]
    for row in found.rows:
        name = row.link + (" Wi-Fi" if row.is_wifi else "")
        ppm = f"{row.camera_ppm:+.0f}/{row.sound_ppm:+.0f}"
        lines.append(
            f"{name:<17}{ppm:>10}{row.p50_ms:7.2f}{row.p95_ms:7.2f}{row.max_ms:7.1f}"
            f"{row.baseline_max_ms:10.0f}{row.ratio:7.3f}{row.outside_secs:11.2f}"
            f"{row.clock_max_ms:11.1f}{row.drift_error_p50_ppm:13.1f}"
        )
    worst = max(row.max_ms for row in found.rows if not row.is_wifi)
    lines.append(
        f"largest {worst:.1f} ms, without Wi-Fi (target <= {TARGET_MS:.0f} ms at every instant)"
    )
    return "\n".join(lines)


def simulate(scenario: Scenario, secs: float, seed: int = 0) -> Row:
    """Send `secs` of a camera and its sound, and compare where they are put."""
    rng = np.random.default_rng(seed)
    picture, sound = sent(scenario, secs, rng)
    replay = _Replay(scenario, picture, sound)
    replay.run()
    heard_secs, heard_ms = replay.heard()
    seen_ms = picture.errors_ms(replay.picture_ns)
    heard_ms = heard_ms - sound.delay_secs * 1e3
    apart_ms = _apart(picture.true_secs, seen_ms, heard_secs, heard_ms)
    baseline_ms = _apart(
        picture.true_secs, picture.baseline_ms(), sound.true_secs, sound.baseline_ms()
    )
    drifts_ppm = replay.drift_errors_ppm
    errors_ms = np.concatenate(
        [seen_ms[picture.true_secs >= SETTLING_SECS], heard_ms[heard_secs >= SETTLING_SECS]]
    )
    return Row(
        link=scenario.link,
        is_wifi=scenario.is_wifi,
        camera_ppm=scenario.camera_ppm,
        sound_ppm=scenario.sound_ppm,
        n_instants=apart_ms.size,
        max_ms=round(float(apart_ms.max()), 2),
        p95_ms=round(float(np.percentile(apart_ms, 95)), 3),
        p50_ms=round(float(np.median(apart_ms)), 3),
        outside_secs=round(float(np.sum(apart_ms > TARGET_MS)) * _LOOK_SECS, 2),
        baseline_max_ms=round(float(baseline_ms.max()), 1),
        baseline_p50_ms=round(float(np.median(baseline_ms)), 1),
        clock_max_ms=round(float(np.abs(errors_ms).max()), 2),
        drift_error_p50_ppm=round(float(np.median(drifts_ppm)), 2),
        drift_error_max_ppm=round(max(drifts_ppm), 1),
        n_steps=sum(metrics.dropped["clock_step"] for metrics in replay.metrics),
    )


class _Replay:
    """The items of both streams, in the order of their arrival, through what is measured."""

    def __init__(self, scenario: Scenario, picture: Items, sound: Items) -> None:
        self.metrics = (StageMetrics("picture"), StageMetrics("sound"))
        self.picture_ns = np.zeros(picture.true_secs.size, np.int64)
        self.drift_errors_ppm: list[float] = []
        self._scenario = scenario
        self._picture, self._sound = picture, sound
        noise: Literal["late", "both"] = "both" if scenario.link == "microphone" else "late"
        self._eye = ClockMap(self.metrics[0])
        is_one = scenario.link == "one clock"
        self._ear = self._eye if is_one else ClockMap(self.metrics[1], noise=noise)
        self._steady = SteadySound("drift", RATE_HZ, self.metrics[1])
        self._given: list[AudioChunk] = []
        self._heard_until_ns = 0
        self._seams: list[int] = []
        """How many samples had been given when sound began anew."""
        each = scenario.frame_secs * RATE_HZ
        step_secs = 1 / (1 + scenario.sound_ppm * 1e-6) / RATE_HZ
        captured = sound.true_secs[:, None] + np.arange(round(each)) * step_secs
        self._samples = np.abs(captured % (2 * _HALF_SECS) - _HALF_SECS).astype(np.float32)
        self._frame_ns = secs_to_ns(scenario.frame_secs)

    def run(self) -> None:
        """Let all of it arrive."""
        n_pictures = self._picture.true_secs.size
        # Blocks of a microphone come in order, whatever it says of when they were captured.
        each_ns = [np.maximum.accumulate(items.seen_ns) for items in (self._picture, self._sound)]
        seen_ns = np.concatenate(each_ns)
        true_secs = np.concatenate([self._picture.true_secs, self._sound.true_secs])
        for n_done, i in enumerate(np.lexsort((true_secs, seen_ns)).tolist()):
            if i < n_pictures:
                self._see(i)
            else:
                self._hear(i - n_pictures)
            if n_done % 500 == 0 and seen_ns[i] > START_NS + 65 * NS_PER_SEC:
                self._ask_drift()
        self._given += self._steady.flush()

    def heard(self) -> tuple[Doubles, Doubles]:
        """When sound was captured, in seconds, and how far off it was put, in ms: each 10 ms."""
        starts_ns = np.array([chunk.start_ns for chunk in self._given])
        sizes = np.array([chunk.samples.size for chunk in self._given])
        begins = np.repeat(np.cumsum(sizes) - sizes, sizes)
        index = np.arange(sizes.sum())
        step_ns = NS_PER_SEC // RATE_HZ
        at_ns = np.repeat(starts_ns, sizes) + (index - begins) * step_ns
        seams = np.flatnonzero(np.diff(at_ns) != step_ns) + 1
        flushed = np.cumsum(sizes)[sizes < RATE_HZ // CHUNKS_PER_SEC]
        edges = np.unique(np.concatenate([[0], seams, flushed, self._seams, [index.size]]))
        stretch = np.searchsorted(edges, index, side="right")
        room = np.minimum(index - edges[stretch - 1], edges[stretch] - 1 - index)
        is_read = (room >= _N_SEAM) & (index % round(RATE_HZ * _LOOK_SECS) == 0)
        values = np.concatenate([chunk.samples for chunk in self._given]).astype(np.float64)
        put_secs = (at_ns[is_read] - START_NS) / 1e9
        true_secs = _captured_secs(values[is_read], put_secs)
        return true_secs, (put_secs - true_secs) * 1e3

    def _see(self, i: int) -> None:
        stamp_ns = int(self._picture.stamps_ns[i])
        self._eye.see(stamp_ns, int(self._picture.seen_ns[i]))
        self.picture_ns[i] = self._eye.at_ns(stamp_ns)

    def _hear(self, i: int) -> None:
        stamp_ns = int(self._sound.stamps_ns[i])
        self._ear.see(stamp_ns, int(self._sound.seen_ns[i]))
        span = Span(self._ear.at_ns(stamp_ns), self._ear.at_ns(stamp_ns + self._frame_ns))
        if abs(span.start_ns - self._heard_until_ns) > TOLERANCE_NS:
            self._given += self._steady.flush()  # as `push` would, but we see where
            self._seams.append(sum(chunk.samples.size for chunk in self._given))
        self._heard_until_ns = span.end_ns
        chunk = AudioChunk("drift", stamp_ns, RATE_HZ, self._samples[i])
        self._given += self._steady.push(chunk, span)

    def _ask_drift(self) -> None:
        wanted = (self._scenario.camera_ppm, self._scenario.sound_ppm)
        for clock_map, ppm in zip((self._eye, self._ear), wanted, strict=True):
            if clock_map.drift_ppm is not None:
                self.drift_errors_ppm.append(abs(clock_map.drift_ppm - ppm))


def _captured_secs(values: Doubles, put_secs: Doubles) -> Doubles:
    """When what the triangle says was captured; the nearer of two to where it was put."""
    periods = np.floor(put_secs / (2 * _HALF_SECS))
    found = put_secs + 1e9
    for period in (periods - 1, periods, periods + 1):
        for sign in (-1, 1):
            other = period * 2 * _HALF_SECS + _HALF_SECS + sign * values
            found = np.where(np.abs(other - put_secs) < np.abs(found - put_secs), other, found)
    return found


def _apart(seen_secs: Doubles, seen_ms: Doubles, heard_secs: Doubles, heard_ms: Doubles) -> Doubles:
    """How far apart, in ms, they are put at each instant of the sound at which there were both."""
    after = np.clip(np.searchsorted(seen_secs, heard_secs), 1, seen_secs.size - 1)
    is_both = seen_secs[after] - seen_secs[after - 1] < 3 / FPS
    is_both &= (heard_secs >= SETTLING_SECS) & (heard_secs <= seen_secs[-1])
    apart_ms = np.abs(heard_ms - np.interp(heard_secs, seen_secs, seen_ms))
    return apart_ms[is_both]
