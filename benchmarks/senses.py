"""What every detector costs: CPU per second of media, beside the same tasks done in a plain way.

Real clips with sound, each read as a source would be and cut into hops (`decode`); the hops then
go through the worker, as those of a file do, with each detector's CPU counted by itself. The
baseline goes through the same worker: OpenCV's and Silero's parts as their manuals call them, on
whole pictures, as in the trial before any care was taken (issue 4). Detectors and baseline take
turns; figures are medians over the rounds, of the CPU time of the whole process.
"""

import os
import resource
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from typing import Final

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from mmstream.clock import SystemClock
from mmstream.errors import ConfigError
from mmstream.media import DEFAULT_RATE_HZ, NS_PER_SEC, Bytes, Hop, Label, Scores, VideoFrame
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import DetectorSettings
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.stages import Load, Scorer, ScorerSpec
from mmstream.windows import HopCutter, HopSettings
from mmstream.worker import Worker, WorkerSettings

CLIPS: Final = (
    "av_clips/chaplin.mp4",
    "av_clips/his_girl_friday.mp4",
    "av_clips/tears_of_steel_battle.webm",
    "surveillance/car_detection.mp4",
    "surveillance/pedestrians_pavement.mp4",
)
"""Sound and picture, 10 to 30 fps, 626x360 to 800x332: people near and far, cars, a fight."""
SECS: Final = 8
ROUNDS: Final = 5
TARGET_MS: Final = 120
DECODE: Final = "decode"
DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"

_CLOCK: Final = SystemClock()
_MOG2_SIZE: Final = 320, 180
_LOOK_SIZE: Final = 640, 360
_N_WINDOW: Final = 512
_N_WARM_UP: Final = 10
"""TorchScript optimises itself in the first few."""
_N_NAME: Final = 42


class Cost(BaseModel):
    """One part of the whole."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """What a detector says, or what a part of the baseline is."""
    ms_per_media_sec: float
    """Process CPU time, milliseconds per second of media."""


class Row(BaseModel):
    """One clip: medians over the rounds. `decode` is a part of both."""

    clip: str
    secs: float
    width: int
    height: int
    fps: float
    senses: list[Cost]
    baseline: list[Cost]


class Senses(BaseModel):
    """All clips."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    rounds: int
    rows: list[Row]
    senses: list[Cost]
    """Means over the clips."""
    baseline: list[Cost]
    """Means over the clips."""
    ratio: float
    """All that it costs over what the baseline does."""
    streams_per_core: float
    """How many streams one core serves with every detector on."""


def recordings() -> Path:
    """The folder of real recordings.

    Raises:
        ConfigError: it is not there.
    """
    folder = Path(os.environ.get("MMSTREAM_DATA", DATA))
    if not all((folder / clip).is_file() for clip in CLIPS):
        msg = f"{folder}: not the recordings that are needed; MMSTREAM_DATA may name their folder"
        raise ConfigError(msg)
    return folder


def measure(clips: Sequence[str] = CLIPS, *, secs: float = SECS, rounds: int = ROUNDS) -> Senses:
    """The first `secs` of each clip, `rounds` times.

    Raises:
        ConfigError: the recordings are not there.
    """
    folder = recordings()
    _round(folder, clips[0], secs)  # what is loaded once is no cost of a stream
    measured: dict[str, list[Row]] = {clip: [] for clip in clips}
    for _ in range(rounds):
        for clip in clips:
            measured[clip].append(_round(folder, clip, secs))
    rows = [_median(one) for one in measured.values()]
    found, plain = (_joined(costs, mean) for costs in _both(rows))
    return Senses(
        rounds=rounds,
        rows=rows,
        senses=found,
        baseline=plain,
        ratio=round(_total(found) / _total(plain), 3),
        streams_per_core=round(1000 / _total(found), 1),
    )


def table(found: Senses) -> str:
    """The figures for people."""
    heads = "".join(f"{Path(row.clip).stem[:11]:>13}" for row in found.rows)
    sizes = "".join(f"{f'{row.width}x{row.height}@{row.fps:.0f}':>13}" for row in found.rows)
    senses, baseline = _both(found.rows)
    lines = [
        f"{f'CPU ms per media-second, median of {found.rounds}':<{_N_NAME}}{heads}{'mean':>13}",
        f"{'':<{_N_NAME}}{sizes}",
        *_lines(senses),
        "beside it, each on the whole picture in a plain way:",
        *_lines(baseline),
    ]
    worst = max(_total(row.senses) for row in found.rows)
    lines.append(
        f"all on: {_total(found.senses):.0f} ms, at most {worst:.0f} (target <= {TARGET_MS}); "
        f"{found.ratio:.2f} of the baseline; {found.streams_per_core:.1f} full streams per core"
    )
    return "\n".join(lines)


@dataclass(slots=True)
class _Part:
    """A scorer's spec whose CPU time is counted (`stages.ScorerSpec`)."""

    spec: ScorerSpec
    cpu_ms: float = 0.0

    @property
    def name(self) -> str:
        """What it says."""
        return " ".join(label.name for label in self.labels)

    @property
    def labels(self) -> tuple[Label, ...]:
        """As the spec's."""
        return self.spec.labels

    def build(self, device: str) -> "_Counted":
        """Make it; that is not counted."""
        return _Counted(self, self.spec.build(device))


@dataclass(frozen=True, slots=True)
class _Counted:
    """Fits `stages.Scorer`."""

    part: _Part
    scorer: Scorer

    def score(self, hops: Sequence[Hop], so_far: Sequence[Scores], load: Load) -> Sequence[Scores]:
        """As the scorer, but counted."""
        before_ms = _cpu_ms()
        scores = self.scorer.score(hops, so_far, load)
        self.part.cpu_ms += _cpu_ms() - before_ms
        return scores

    def forget(self, source: str) -> None:
        """As the scorer."""
        self.scorer.forget(source)


@dataclass(frozen=True, slots=True)
class _Plain:
    """A part of the baseline (`stages.ScorerSpec`)."""

    name: str
    make: Callable[[], Callable[[Hop], object]]

    @property
    def labels(self) -> tuple[Label, ...]:
        """Its name."""
        return (Label(self.name, "video", "plain"),)

    def build(self, device: str) -> "_PlainScorer":  # noqa: ARG002 - always on the CPU
        """Make it."""
        return _PlainScorer(self.make())


@dataclass(frozen=True, slots=True)
class _PlainScorer:
    """Does the work and says nothing (`stages.Scorer`)."""

    work: Callable[[Hop], object]

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002 - rests on no other
        load: Load,  # noqa: ARG002 - never less
    ) -> Sequence[Scores]:
        """Nothing, for each."""
        for hop in hops:
            self.work(hop)
        return [Scores(hop.source, hop.index, hop.span) for hop in hops]

    def forget(self, source: str) -> None:
        """There is one source."""


def _luma() -> Callable[[Hop], object]:
    return lambda hop: [cv2.cvtColor(frame.image.rgb(), cv2.COLOR_RGB2GRAY) for frame in hop.frames]


def _mog2() -> Callable[[Hop], object]:
    background = cv2.createBackgroundSubtractorMOG2()
    return lambda hop: [background.apply(_small(frame, _MOG2_SIZE)) for frame in hop.frames]


def _hog() -> Callable[[Hop], object]:
    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(np.array(cv2.HOGDescriptor.getDefaultPeopleDetector()))
    return _each_sec(lambda luma: hog.detectMultiScale(luma, winStride=(8, 8)))


def _haar() -> Callable[[Hop], object]:
    name = "haarcascade_frontalface_default.xml"
    cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / name))
    return _each_sec(cascade.detectMultiScale)


def _each_sec(look: Callable[[Bytes], object]) -> Callable[[Hop], object]:
    """`look` at the first picture of each second."""

    def work(hop: Hop) -> None:
        if hop.frames and hop.span.start_ns % NS_PER_SEC == 0:
            look(_small(hop.frames[0], _LOOK_SIZE))

    return work


def _small(frame: VideoFrame, size: tuple[int, int]) -> Bytes:
    return np.asarray(cv2.resize(frame.image.luma, size), np.uint8)


def _silero() -> Callable[[Hop], object]:
    """The wheel's own TorchScript, window by window."""
    spec = find_spec("silero_vad")  # importing it may import torchaudio's compiled part
    if spec is None or spec.origin is None:
        msg = "the baseline needs the package silero-vad: pip install silero-vad"
        raise ConfigError(msg)
    file = Path(spec.origin).parent / "data" / "silero_vad.jit"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # still how its manual loads it
        net = torch.jit.load(str(file))  # type: ignore[no-untyped-call] # torch has no type for it
    for _ in range(_N_WARM_UP):
        net(torch.zeros(_N_WINDOW), DEFAULT_RATE_HZ)
    net.reset_states()
    rest = np.zeros(0, np.float32)

    def work(hop: Hop) -> None:
        nonlocal rest
        rest = np.concatenate([rest, hop.samples])
        with torch.no_grad():
            while rest.size >= _N_WINDOW:
                net(torch.from_numpy(rest[:_N_WINDOW]), hop.rate_hz)
                rest = rest[_N_WINDOW:]

    return work


_BASELINE: Final = (
    _Plain("RGB and luma of every picture", _luma),
    _Plain("MOG2 at 320x180, every picture", _mog2),
    _Plain("HOG at 640x360, once a second", _hog),
    _Plain("Haar at 640x360, once a second", _haar),
    _Plain("Silero, TorchScript", _silero),
)


def _round(folder: Path, clip: str, secs: float) -> Row:
    before_ms = _cpu_ms()
    hops = _read(folder / clip, secs)
    media_secs = (hops[-1].span.end_ns - hops[0].span.start_ns) / NS_PER_SEC
    decode = Cost(name=DECODE, ms_per_media_sec=(_cpu_ms() - before_ms) / media_secs)
    frames = [frame for hop in hops for frame in hop.frames]
    senses = _costs(graph.specs(DetectorSettings()), hops, media_secs)
    baseline = _costs(_BASELINE, hops, media_secs)
    return Row(
        clip=clip,
        secs=media_secs,
        width=frames[0].image.width,
        height=frames[0].image.height,
        fps=round(len(frames) / media_secs, 2),
        senses=[decode, *senses],
        baseline=[decode, *baseline],
    )


def _read(path: Path, secs: float) -> list[Hop]:
    """The hops of the first `secs`."""
    cutter = HopCutter("bench", HopSettings(), live=False)
    hops: list[Hop] = []
    with MediaFile("bench", MediaSettings(url=str(path), pace="max"), _CLOCK).read() as items:
        for item in items:
            hops += cutter.push(item)
            if hops and hops[-1].span.end_ns >= secs * NS_PER_SEC:
                return hops
    return [*hops, *cutter.flush()]


def _costs(specs: Sequence[ScorerSpec], hops: Sequence[Hop], media_secs: float) -> list[Cost]:
    parts = [_Part(spec) for spec in specs]
    worker = Worker(parts, WorkerSettings(), _CLOCK, lambda _: None)
    for hop in hops:
        worker.submit(hop, live=False)
    worker.close()
    worker.run()
    return [Cost(name=part.name, ms_per_media_sec=part.cpu_ms / media_secs) for part in parts]


def _median(rows: Sequence[Row]) -> Row:
    senses, baseline = (_joined(costs, median) for costs in _both(rows))
    return rows[0].model_copy(update={"senses": senses, "baseline": baseline})


def _both(rows: Sequence[Row]) -> tuple[list[list[Cost]], list[list[Cost]]]:
    return [row.senses for row in rows], [row.baseline for row in rows]


def _joined(
    all_costs: Sequence[Sequence[Cost]], join: Callable[[Iterable[float]], float]
) -> list[Cost]:
    """One cost from those of each part."""
    return [
        Cost(
            name=of_part[0].name,
            ms_per_media_sec=round(join(cost.ms_per_media_sec for cost in of_part), 2),
        )
        for of_part in zip(*all_costs, strict=True)
    ]


def _total(costs: Sequence[Cost]) -> float:
    return sum(cost.ms_per_media_sec for cost in costs)


def _lines(of_clips: Sequence[Sequence[Cost]]) -> list[str]:
    """A line for each part, and their sum."""
    means = _joined(of_clips, mean)
    lines = []
    for n, cost in enumerate(means):
        each = [costs[n].ms_per_media_sec for costs in of_clips]
        lines.append(_line(cost.name, [*each, cost.ms_per_media_sec]))
    totals = [_total(costs) for costs in of_clips]
    return [*lines, _line("all", [*totals, mean(totals)])]


def _line(name: str, figures: Sequence[float]) -> str:
    return f"{name:<{_N_NAME}}" + "".join(f"{ms:13.1f}" for ms in figures)


def _cpu_ms() -> float:
    """What this process has used since it began."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e3
