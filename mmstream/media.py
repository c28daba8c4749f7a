"""The records that flow from sources to heads: frozen, validated, stamped with capture time.

All instants are integer nanoseconds of one source's clock (see docs/time.md). Arrays are
read-only: whoever needs to change one copies it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

NS_PER_SEC = 1_000_000_000
DEFAULT_RATE_HZ = 16_000
"""The sample rate of the pipeline unless the configuration says otherwise, Hz."""

Modality = Literal["audio", "video", "text"]
StreamKind = Literal["audio", "video"]

_ROUNDING = 1e-6
_Scalar = TypeVar("_Scalar", bound=np.generic)

Floats = NDArray[np.float32]
"""An array of 32-bit floats."""
Bytes = NDArray[np.uint8]
"""An array of unsigned bytes."""


def secs_to_ns(secs: float) -> int:
    """`secs` seconds as nanoseconds, rounded."""
    return round(secs * NS_PER_SEC)


def samples_to_ns(n_samples: int, rate_hz: int) -> int:
    """How long `n_samples` last at `rate_hz`, rounded to a nanosecond."""
    return (n_samples * NS_PER_SEC + rate_hz // 2) // rate_hz


def ns_to_samples(duration_ns: int, rate_hz: int) -> int:
    """The sample index nearest to `duration_ns` at `rate_hz`."""
    return (duration_ns * rate_hz + NS_PER_SEC // 2) // NS_PER_SEC


def read_only(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """`array` itself, with writing switched off."""
    array.flags.writeable = False
    return array


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open stretch of time: [start_ns, end_ns)."""

    start_ns: int
    end_ns: int

    def __post_init__(self) -> None:
        if self.end_ns < self.start_ns:
            msg = f"a span cannot end before it starts: got {self.start_ns=} {self.end_ns=}"
            raise ValueError(msg)

    @property
    def duration_ns(self) -> int:
        """Its length."""
        return self.end_ns - self.start_ns

    def contains(self, at_ns: int) -> bool:
        """Whether the instant lies inside; the end does not."""
        return self.start_ns <= at_ns < self.end_ns

    def overlap_ns(self, other: "Span") -> int:
        """How much time the two share; 0 when they only touch."""
        return max(0, min(self.end_ns, other.end_ns) - max(self.start_ns, other.start_ns))


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """Consecutive samples of one source, mixed to mono."""

    source: str
    start_ns: int
    """When the first sample was captured."""
    rate_hz: int
    samples: Floats
    """[n], n >= 1, nominally -1..1."""

    def __post_init__(self) -> None:
        if self.rate_hz <= 0:
            msg = f"a chunk needs a positive rate: got {self.rate_hz=}"
            raise ValueError(msg)
        if self.samples.ndim != 1 or self.samples.size == 0 or self.samples.dtype != np.float32:
            msg = (
                "a chunk holds [n >= 1] float32 samples: "
                f"got {self.samples.shape=} {self.samples.dtype=}"
            )
            raise ValueError(msg)
        read_only(self.samples)

    @property
    def end_ns(self) -> int:
        """When the sample after the last would have been captured."""
        return self.start_ns + samples_to_ns(self.samples.size, self.rate_hz)

    def __repr__(self) -> str:
        """Shape, not samples."""
        return (
            f"AudioChunk({self.source!r}, {self.start_ns}, {self.rate_hz}, [{self.samples.size}])"
        )


class Image(Protocol):
    """A picture: cheap to look at in luma, in colour on demand (on the worker)."""

    @property
    def width(self) -> int:
        """Pixels across."""
        ...

    @property
    def height(self) -> int:
        """Pixels down."""
        ...

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        ...

    @property
    def luma(self) -> Bytes:
        """[height, width] brightness as coded (16..235 for most video); a view where it can be."""
        ...

    def rgb(self, size: tuple[int, int] | None = None) -> Bytes:
        """[h, w, 3], scaled to `size` = (width, height) if given; the last one made is kept."""
        ...


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One picture of one source."""

    source: str
    start_ns: int
    """When it was captured, i.e. when it starts to be true."""
    image: Image


@dataclass(frozen=True, slots=True)
class SourceStarted:
    """A source has opened; the first item of every stream, and again after each restart."""

    source: str
    streams: frozenset[StreamKind]
    """What it will send. A hop waits for all of them."""
    utc_offset_ns: int
    """Added to a capture instant it gives nanoseconds since 1970."""
    clock_offset_ns: int | None
    """Added to a capture instant it gives the monotonic clock's; None where media is read faster
    than it plays, so that latency means nothing."""
    synced: bool = True
    """Whether both streams are known to be on one clock; if not, `SourceSynced` follows."""
    missing: tuple[str, ...] = ()
    """What should be there and is not, and why, in words; with any, the source is degraded."""

    def __post_init__(self) -> None:
        if not self.streams:
            msg = f"a source sends audio, video or both: {self.source} has neither"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class StreamBound:
    """Nothing of this stream that starts before `at_ns` will come any more.

    MediaPipe's timestamp bound: lets hops settle when a stream is silent, or has ended before
    the other.
    """

    source: str
    stream: StreamKind
    at_ns: int


@dataclass(frozen=True, slots=True)
class SourceSynced:
    """From here on, both streams of the source are known to be on one clock."""

    source: str


@dataclass(frozen=True, slots=True)
class StreamClock:
    """How a live stream's own clock runs beside ours; what it stamps is corrected for it."""

    source: str
    stream: StreamKind
    drift_ppm: float
    """Parts per million by which its clock is fast; below 0 where it is slow."""


@dataclass(frozen=True, slots=True)
class SourceStalled:
    """A live source has sent nothing for too long; it may come back."""

    source: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class SourceEnded:
    """A source has sent its last item (until it is started again)."""

    source: str


MediaItem = SourceStarted | AudioChunk | VideoFrame | StreamBound | SourceSynced | StreamClock
"""What a source yields."""
SourceItem = MediaItem | SourceStalled | SourceEnded
"""What reaches windows: the runtime adds stalls and the end."""


@dataclass(frozen=True, slots=True, eq=False)
class Hop:
    """One settled slice of a source's time: disjoint from its neighbours, delivered once."""

    source: str
    index: int
    """Hop `i` starts at `i` times the length of a hop: they lie on a grid that starts at 0."""
    span: Span
    """As long as every hop, but for the last before a source ends or stalls: it may be shorter."""
    rate_hz: int
    samples: Floats
    """[n]: exactly the span at `rate_hz`, zeros where nothing was heard; n = 0: has no sound."""
    heard: NDArray[np.bool_]
    """[n]: False where audio is missing."""
    frames: tuple[VideoFrame, ...]
    """Those that start inside the span, in order."""
    gap_before: bool = False
    """Hops before this one were dropped or never came: stateful parts start anew or honour it."""
    synced: bool = True
    """Whether sound and sight are known to be on one clock: what compares them waits for that."""
    live: bool = False
    """Whether its source goes on without us: nobody waits for what is made of it."""

    def __post_init__(self) -> None:
        if self.samples.shape != self.heard.shape or self.samples.ndim != 1:
            msg = f"a hop needs one flag per sample: got {self.samples.shape=} {self.heard.shape=}"
            raise ValueError(msg)
        if self.frames and not (
            self.span.start_ns <= self.frames[0].start_ns
            and self.frames[-1].start_ns < self.span.end_ns
        ):
            msg = f"a hop holds only frames that start inside it, in order: got {self.span=}"
            raise ValueError(msg)
        read_only(self.samples)
        read_only(self.heard)

    def __repr__(self) -> str:
        """Shape, not samples."""
        return (
            f"Hop({self.source!r}, {self.index}, samples=[{self.samples.size}], "
            f"frames={len(self.frames)}, gap_before={self.gap_before})"
        )


@dataclass(frozen=True, slots=True)
class Label:
    """Something that a scorer may say, and what it says it from."""

    name: str
    modality: Modality | Literal["av"]
    """`av`: from sound and sight together."""
    detector: str


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle as fractions of the picture, 0..1 from the top left corner."""

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        sides = ((self.x, self.width), (self.y, self.height))
        if not all(low >= 0 and size >= 0 and low + size <= 1 + _ROUNDING for low, size in sides):
            msg = f"a box lies inside the picture: got {self}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Path:
    """How one object goes through the picture."""

    track: int
    """Which object: the same from when it is first seen until it is lost, within one source."""
    direction_deg: float | None = None
    """Where it goes: 0 right, 90 up, 180 left, 270 down; None where it does not move."""
    speed: float = 0.0
    """Picture widths per second."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A place where a detector sees its label at one instant; the evidence behind a score."""

    label: str
    at_ns: int
    modality: Modality
    detector: str
    score: float
    """0..1"""
    box: Box | None = None
    path: Path | None = None
    """The object that it is, where it is followed."""
    note: str | None = None
    """What else must be said of it, in a few words: `off screen`."""

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            msg = f"a score lies in 0..1: got {self.score} for {self.label} by {self.detector}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What one output was at each of some instants; a value holds until the next."""

    at_ns: NDArray[np.int64]
    """[t], rising"""
    values: Floats
    """[t, ...]"""

    def __post_init__(self) -> None:
        if self.at_ns.ndim != 1 or self.values.shape[:1] != self.at_ns.shape:
            msg = (
                f"a series has one value per instant: got {self.at_ns.shape=} {self.values.shape=}"
            )
            raise ValueError(msg)
        if np.any(np.diff(self.at_ns) <= 0):
            msg = "the instants of a series rise"
            raise ValueError(msg)
        read_only(self.at_ns)
        read_only(self.values)


@dataclass(frozen=True, slots=True)
class Fused:
    """What each modality had in a score that several of them made together."""

    audio: float
    """How much of the score is gone when sound is left out, 0..1."""
    video: float
    """How much of it is gone when sight is left out, 0..1."""
    text: float = 0.0
    """How much of it is gone when words are left out, 0..1."""
    offset_ns: int | None = None
    """How long after the picture the sound came; None where no two instants were compared."""


@dataclass(frozen=True, slots=True)
class ObjectSeries:
    """The scores of one followed object."""

    label: str
    track: int
    """As in `Path`."""
    series: Series
    """As a label's output."""


@dataclass(frozen=True, slots=True)
class TimedText:
    """Words known to belong to a span (a transcript, a sign that was read)."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """The sound of one utterance as far as it was heard: what a recogniser is given."""

    source: str
    utterance: int
    """Counted from 0 since the source started; never used again within it."""
    start_ns: int
    """When the first sample was captured."""
    rate_hz: int
    samples: Floats
    """[n], all of the utterance so far; a later take of the same one begins with the same."""
    is_last: bool = False
    """Whether the utterance is over."""

    def __post_init__(self) -> None:
        read_only(self.samples)

    @property
    def span(self) -> Span:
        """When it was captured."""
        duration_ns = samples_to_ns(self.samples.size, self.rate_hz)
        return Span(self.start_ns, self.start_ns + duration_ns)


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """One word that was heard."""

    text: str
    """As it is written, with what belongs to it: `Today,`; no blanks around it."""
    span: Span
    confidence: float
    """0..1"""

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= 1:
            msg = f"a confidence lies in 0..1: got {self.confidence} for {self.text!r}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """All the words that a recogniser makes of a take; its next one may say otherwise."""

    source: str
    utterance: int
    span: Span
    """Of the sound that it rests on."""
    words: tuple[SpokenWord, ...]
    """In order of time."""
    language: str
    """BCP 47."""
    is_last: bool = False
    """Whether it is of the whole utterance: no other follows."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What is said in one utterance, and how much of it stays as it is."""

    utterance: int
    span: Span
    """Of the sound that it rests on."""
    words: tuple[SpokenWord, ...]
    """Of the whole utterance, in order of time."""
    n_committed: int
    """The first so many are the same from now on."""
    language: str
    """BCP 47."""
    is_last: bool = False
    """Whether the utterance is over; then all words are committed."""
    n_steady: int = 0
    """The first so many are shown as they are until they are committed, which may correct them;
    committed words are steady in any case."""

    def __post_init__(self) -> None:
        least = len(self.words) if self.is_last else 0
        if not least <= self.n_committed <= len(self.words):
            msg = f"committed are some of the words, at the end all: got {self.n_committed=}"
            raise ValueError(msg)
        if not 0 <= self.n_steady <= len(self.words):
            msg = f"steady are some of the words: got {self.n_steady=}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Description:
    """What a captioner says of one picture."""

    at_ns: int
    """When the picture was captured."""
    text: str
    """A sentence."""
    detector: str
    """Which captioner."""


@dataclass(frozen=True)
class Scores:
    """What the worker made of one hop."""

    source: str
    index: int
    span: Span
    outputs: Mapping[str, Series] = field(default_factory=dict)
    """By label or output name. A label's values are [t] in 0..1, where 0.5 is the detector's own
    point of decision; the events head reads those. No entry: not scored, which is not 0."""
    detections: tuple[Detection, ...] = ()
    texts: tuple[TimedText, ...] = ()
    objects: tuple[ObjectSeries, ...] = ()
    """Scores of single objects, in place of their label's entry in `outputs`: an event each."""
    fused: Mapping[str, Fused] = field(default_factory=dict)
    """By label with modality `av`: what made the strongest of its scores in this hop."""
    learned: tuple[Label, ...] = ()
    """Labels in `outputs` that may be none of its scorer's spec: people teach while it runs."""
    spoken: tuple[Spoken, ...] = ()
    """What is said, of one or two utterances: what became known since the hop before, which may
    be of sound that lies before this one's. The words that were committed now are in `texts`."""
    descriptions: tuple[Description, ...] = ()
    """What captioners said since the hop before."""
