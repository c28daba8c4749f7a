"""A recording as training reads it: how long it is, and what its spans hold, decoded once.

Instants are those of `mmstream.sources.media`: 0 is the earlier of both streams' first. So a span
of a manifest means what it means in a replay of the same file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mmstream.clock import ManualClock
from mmstream.codecs import Decoded, MediaInput
from mmstream.config import Settings
from mmstream.errors import SourceError
from mmstream.features.audio import LogMel, LogMelSettings
from mmstream.features.video import luma_of
from mmstream.media import (
    DEFAULT_RATE_HZ,
    NS_PER_SEC,
    AudioChunk,
    Bytes,
    Floats,
    Image,
    Span,
    StreamKind,
    VideoFrame,
    ns_to_samples,
)
from mmstream.metrics import StageMetrics
from mmstream.models.mmt_shapes import picture_of, slot_of
from mmstream.models.mmt_spec import MmtPictures
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.training.mouths import MouthFinder, cut_square

FULL_SCALE: Final = 16_384
"""What a sample of 1.0 is stored as: lossy codecs overshoot, GRID's clips up to 1.43."""

_CHUNK_NS: Final = NS_PER_SEC // 10
"""No chunk of a media file is longer."""


class SoundSettings(Settings):
    """How sound is kept."""

    log_mel: LogMelSettings | None = None
    """As log-mel energies, 16-bit floats; by default as samples, 16-bit integers at 16 kHz."""


class PictureSettings(MmtPictures):
    """How pictures are kept.

    Where none starts, as in a span between two pictures of a slow camera, there is none.
    """

    part: Literal["whole", "mouth"] = "whole"
    """mouth: a square around the mouth of a face that is turned to the camera, at the same place in
    all pictures of a span; a span without a face has none. They wait in memory for its end."""


class PieceSettings(Settings):
    """What is kept of a span; what is left out is not decoded for."""

    sound: SoundSettings | None = None
    pictures: PictureSettings | None = None

    @property
    def rate_hz(self) -> int:
        """Samples per second of the sound."""
        log_mel = self.sound.log_mel if self.sound else None
        return log_mel.rate_hz if log_mel else DEFAULT_RATE_HZ


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What is kept of one span; a stream that is not there has no rows."""

    sound: NDArray[np.int16] | NDArray[np.float16]
    """[n] samples, 16384 = 1.0, 0 where nothing was heard; or [t, n_mels] log-mel."""
    heard: NDArray[np.int64]
    """[k, 2]: which rows of `sound` were heard, as half-open runs in order."""
    pictures: Bytes
    """[t, height, width, 1 or 3]."""
    at_ns: NDArray[np.int64]
    """[t]: when each picture started, from the start of the span, rising."""

    def __post_init__(self) -> None:
        if self.pictures.ndim != 4 or len(self.pictures) != len(self.at_ns):  # noqa: PLR2004
            msg = f"one instant per picture: got {self.pictures.shape=} {self.at_ns.shape=}"
            raise ValueError(msg)
        if self.heard.ndim != 2 or self.heard.shape[1] != 2:  # noqa: PLR2004 - start and end
            msg = f"runs are [k, 2]: got {self.heard.shape=}"
            raise ValueError(msg)

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        arrays = (self.sound, self.heard, self.pictures, self.at_ns)
        return sum(array.nbytes for array in arrays)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a recording is, as far as a manifest must know."""

    kinds: frozenset[StreamKind]
    """The streams that can be decoded."""
    end_ns: int
    """Where its longest stream ends; or any instant at or after the one that was asked for."""
    digest: str
    """Of all its bytes."""


def measure(path: Path, until_ns: int) -> Measured:
    """Decode as little of it as says whether it reaches `until_ns`: sound first.

    As long as it does not change, it is looked into once.

    Raises:
        SourceError: it cannot be read, nothing in it can be decoded, or its sound and pictures of
            one time are far apart.
    """
    try:
        about = path.stat()
        return _measured(path, until_ns, (about.st_ino, about.st_size, about.st_mtime_ns))
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise SourceError(msg) from None


@cache
def _measured(path: Path, until_ns: int, _about: tuple[int, int, int]) -> Measured:
    wanted: dict[StreamKind, int | None] = {"audio": None, "video": None}
    with MediaInput(str(path), wanted, StageMetrics(path.name)) as media:
        starts = {
            kind: first.at_ns
            for kind in sorted(media.kinds)
            if (first := next(_decoded(media, kind), None)) is not None
        }
        late = media.kinds - starts.keys()
    if not starts:
        msg = f"{path}: nothing in it can be decoded; allowed: media that FFmpeg decodes"
        raise SourceError(msg)
    if any(_reached_ns(path, kind, 0) for kind in late):
        raise SourceError(_apart(path))
    origin_ns = min(starts.values())
    end_ns = 0
    for kind in sorted(starts):
        if end_ns < until_ns:
            reached_ns = _reached_ns(path, kind, until_ns + origin_ns)
            end_ns = max(end_ns, reached_ns - origin_ns)
    if end_ns < until_ns:  # by its stamps; they may begin anew in the middle
        end_ns = max(end_ns, _replayed_ns(path))
    return Measured(frozenset(starts), end_ns, digest_of(path))


def digest_of(path: Path) -> str:
    """BLAKE2b of a file's bytes, 128 bits."""
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_pieces(
    path: Path, spans: Sequence[Span | None], settings: PieceSettings
) -> Iterator[tuple[int, Piece]]:
    """What each span holds (None: the whole recording), with its place in `spans`, in any order.

    The recording is decoded once, up to the last end. Only what open spans hold is in memory.

    Raises:
        SourceError: it cannot be opened, holds nothing that can be decoded, or has sound and
            pictures of one time far apart.
    """
    log_mel = settings.sound and settings.sound.log_mel
    feature = LogMel(log_mel) if log_mel else None
    takes = [_Take(nth, span, settings, feature) for nth, span in enumerate(spans)]
    takes.sort(key=lambda take: take.wanted.start_ns)
    is_open: list[_Take] = []
    past: list[_Wanted] = []
    newest_ns = 0
    media = MediaSettings(url=str(path), pace="max")
    reader = MediaFile(path.name, media, ManualClock(), rate_hz=settings.rate_hz)
    with reader.read() as items:
        for item in items:
            if not isinstance(item, AudioChunk | VideoFrame):
                continue
            while takes and takes[0].wanted.start_ns < item.start_ns + _CHUNK_NS:
                is_open.append(takes.pop(0))
            for take in is_open:
                take.add(item)
            newest_ns = max(newest_ns, item.start_ns)
            if item.start_ns + _CHUNK_NS < newest_ns and any(one.has(item) for one in past):
                raise SourceError(_apart(path))
            done = [take for take in is_open if take.wanted.ends_by(item.start_ns - _CHUNK_NS)]
            is_open = [take for take in is_open if take not in done]
            for take in done:
                past.append(take.wanted)
                yield take.nth, take.piece()
            if not takes and not is_open:
                return
    for take in is_open + takes:
        yield take.nth, take.piece()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which items belong to a span."""

    start_ns: int
    end_ns: int | None
    settings: PieceSettings

    def has(self, item: AudioChunk | VideoFrame) -> bool:
        """Whether some of it is inside, and kept."""
        if self.ends_by(item.start_ns):
            return False
        if isinstance(item, AudioChunk):
            return self.settings.sound is not None and item.end_ns > self.start_ns
        return self.settings.pictures is not None and item.start_ns >= self.start_ns

    def ends_by(self, at_ns: int) -> bool:
        """Whether it is over then."""
        return self.end_ns is not None and self.end_ns <= at_ns


class _Take:
    """What one span has got so far."""

    def __init__(
        self, nth: int, span: Span | None, settings: PieceSettings, feature: LogMel | None
    ) -> None:
        self.nth = nth
        self.wanted = _Wanted(span.start_ns if span else 0, span.end_ns if span else None, settings)
        self._settings = settings
        self._feature = feature
        self._chunks: list[AudioChunk] = []
        self._images: list[Image] = []
        """That wait for a mouth to be found."""
        self._pictures: list[Bytes] = []
        self._at_ns: list[int] = []
        self._slot = -1

    def add(self, item: AudioChunk | VideoFrame) -> None:
        """Take it where it lies inside."""
        if not self.wanted.has(item):
            return
        if isinstance(item, AudioChunk):
            self._chunks.append(item)
        elif self._settings.pictures is not None:
            self._see(item, self._settings.pictures)

    def piece(self) -> Piece:
        """All of it."""
        pictures = self._settings.pictures or PictureSettings()
        n_channels = 3 if pictures.colour == "rgb" else 1
        empty = np.zeros((0, pictures.height, pictures.width, n_channels), np.uint8)
        samples, heard = self._samples()
        if self._images:
            self._pictures = _mouths(self._images, pictures)
        at_ns = np.array(self._at_ns[: len(self._pictures)], np.int64)
        seen = np.stack(self._pictures) if self._pictures else empty
        if self._feature is None:
            scaled = np.rint(samples * FULL_SCALE).clip(-32_768, 32_767).astype(np.int16)
            return Piece(scaled, _runs(heard), seen, at_ns)
        log_mel = self._feature(torch.from_numpy(samples)).numpy().astype(np.float16)
        return Piece(log_mel, _runs(_frames_heard(heard, self._feature)), seen, at_ns)

    def _see(self, frame: VideoFrame, settings: PictureSettings) -> None:
        since_ns = frame.start_ns - self.wanted.start_ns
        slot = slot_of(since_ns, settings)
        if slot > self._slot:
            self._slot = slot
            self._at_ns.append(since_ns)
            if settings.part == "mouth":
                self._images.append(frame.image)
            else:
                self._pictures.append(picture_of(frame.image, settings))

    def _samples(self) -> tuple[Floats, NDArray[np.bool_]]:
        """[n] from the start of the span to its end, and which of them were heard."""
        if not self._chunks:
            return np.zeros(0, np.float32), np.zeros(0, np.bool_)
        rate_hz, start_ns = self._settings.rate_hz, self.wanted.start_ns
        end_ns = self.wanted.end_ns
        end_ns = self._chunks[-1].end_ns if end_ns is None else end_ns
        n_samples = ns_to_samples(end_ns - start_ns, rate_hz)
        samples, heard = np.zeros(n_samples, np.float32), np.zeros(n_samples, np.bool_)
        for chunk in self._chunks:
            at = ns_to_samples(chunk.start_ns - start_ns, rate_hz)
            inside = chunk.samples[max(0, -at) : max(0, n_samples - at)]
            at = max(0, at)
            samples[at : at + inside.size] = inside
            heard[at : at + inside.size] = True
        return samples, heard


def _decoded(media: MediaInput, kind: StreamKind) -> Iterator[Decoded]:
    while (some := media.decode(kind)) is not None:
        yield from some


def _reached_ns(path: Path, kind: StreamKind, until_ns: int) -> int:
    """Where that stream ends, by the container's stamps; or the first end from `until_ns` on."""
    reached_ns = 0
    with MediaInput(str(path), {kind: None}, StageMetrics(path.name)) as media:
        for one in _decoded(media, kind):
            reached_ns = max(reached_ns, one.at_ns + one.duration_ns)
            if reached_ns >= until_ns:
                break
    return reached_ns


def _replayed_ns(path: Path) -> int:
    """Where the last of it ends, or starts if it is a picture, when it is replayed."""
    reader = MediaFile(path.name, MediaSettings(url=str(path), pace="max"), ManualClock())
    end_ns = 0
    with reader.read() as items:
        for item in items:
            if isinstance(item, AudioChunk):
                end_ns = max(end_ns, item.end_ns)
            elif isinstance(item, VideoFrame):
                end_ns = max(end_ns, item.start_ns)
    return end_ns


def _apart(path: Path) -> str:
    how = "`ffmpeg -i IN -c copy OUT` puts them beside each other"
    return f"{path}: sound and pictures of one time lie more than 10 s apart in the file; {how}"


@cache
def _mouth_finder() -> MouthFinder:
    return MouthFinder()


def _mouths(images: Sequence[Image], settings: PictureSettings) -> list[Bytes]:
    """The mouth in all of them; none where there is no face."""
    square = _mouth_finder().find([image.luma for image in images])
    if square is None:
        return []
    size = (settings.width, settings.height)
    cuts = (cut_square(image.rgb(), square, width=size[0], height=size[1]) for image in images)
    return [_coloured(cut, settings) for cut in cuts]


def _coloured(rgb: Bytes, settings: PictureSettings) -> Bytes:
    """[h, w, 3] -> [h, w, 1 or 3]."""
    if settings.colour == "rgb":
        return rgb
    return luma_of(rgb)[..., None]


def _runs(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[n] -> [k, 2]: where it is true, as half-open runs."""
    edges = np.diff(flags.astype(np.int8), prepend=0, append=0)
    return np.stack((np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)), axis=1)


def _frames_heard(heard: NDArray[np.bool_], feature: LogMel) -> NDArray[np.bool_]:
    """[n] -> [t]: whether all samples of a frame were heard."""
    settings = feature.settings
    lost = np.concatenate(([0], np.cumsum(~heard)))
    starts = np.arange(settings.n_frames(heard.size)) * settings.n_hop
    frames: NDArray[np.bool_] = lost[starts + settings.n_window] == lost[starts]
    return frames
