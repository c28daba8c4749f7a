"""Teaching: a label and a few clips -> a prototype on disk, which a run takes up at once.

    clips -> gists of their windows -> prototype and threshold -> <taught>/<label>.safetensors

docs/teach.md says how well that works.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from mmstream.clock import Clock
from mmstream.errors import ConfigError, ScorerError, SourceError
from mmstream.media import Floats
from mmstream.messages import iso_utc, slug
from mmstream.models import taught
from mmstream.models.avp_spec import GIST_SECS, OUT_OF_SYNC, OUTPUTS, UNUSUAL, AvpSpec
from mmstream.models.content import id_of
from mmstream.models.taught import (
    ClipGists,
    Lesson,
    Prototype,
    TaughtClip,
    background_in,
)
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import DetectorSettings
from mmstream.pipelines.embedding import Embedded, Embedder, embedded, embedder
from mmstream.runtime.capture import ThreadedSource
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.windows import HopSettings

_UNHEARD_DB: Final = -100.0
_LONGEST_LABEL: Final = 64


def teach(
    label: str,
    clips: Sequence[Path],
    spec: AvpSpec,
    hops: HopSettings,
    *,
    clock: Clock,
    tell: Callable[[str], None],
) -> None:
    """Teach `label` with the clips, and say what came of it.

    Raises:
        ConfigError: the label, the number of clips or one of them is wrong, or the clips do not
            stand out; nothing is written. The text says what is allowed.
        ScorerError: the model cannot be loaded, or what was taught cannot be written.
    """
    folder = folder_of(spec)
    _check_label(label, folder)
    known = [_clip(path) for path in clips]
    _check_clips(clips, known)
    model = embedder(spec)
    of_clips = [
        clip_gists(path, clip, model, hops, clock) for path, clip in zip(clips, known, strict=True)
    ]
    n_dims = model.background.shape[1]
    others = taught.taught_in(folder, model=model.id, n_dims=n_dims)
    for problem in others.problems:
        tell(f"passed over: {problem}")
    try:
        lesson = taught.teach(
            label,
            of_clips,
            model.background,
            others=others.taken,
            model=model.id,
            made=iso_utc(clock.utc_ns()),
        )
    except ScorerError as error:
        raise ConfigError(str(error)) from None
    path = taught.save(folder, lesson.prototype)
    tell(_told(lesson, path))


def listed(spec: AvpSpec) -> str:
    """A line for each label that was taught, and for each file that cannot be used.

    Raises:
        ConfigError: nobody knows where it would be.
        ScorerError: the model is not there.
    """
    folder = folder_of(spec)
    n_dims = background_in(spec.folder).shape[1]
    known = taught.taught_in(folder, model=id_of(spec.folder), n_dims=n_dims)
    lines = [_line(one) for one in known.taken]
    return "\n".join([*lines, *known.problems]) or f"{folder}: nothing was taught yet"


def forget(label: str, spec: AvpSpec) -> Path:
    """Forget what was taught, whichever model it was taught to; gives the file that is gone.

    Raises:
        ConfigError: there is no such label; the text says which there are.
        ScorerError: the file cannot be deleted.
    """
    folder = folder_of(spec)
    known = sorted(path.stem for path in folder.glob("[!.]*.safetensors"))
    if _slug(label) not in known:
        msg = f"{label!r} was not taught; there are: {', '.join(known) or 'none'}"
        raise ConfigError(msg)
    path = taught.path_of(folder, label)
    try:
        path.unlink()
    except OSError as error:
        msg = f"{path}: cannot be deleted: {error.strerror}"
        raise ScorerError(msg) from None
    return path


def folder_of(spec: AvpSpec) -> Path:
    """Where what is taught is kept.

    Raises:
        ConfigError: it is in a home folder, and there is none.
    """
    if spec.taught is None:
        msg = "nobody knows a home folder to keep it in; allowed: avp.taught in the configuration"
        raise ConfigError(msg)
    return spec.taught.expanduser()


def clip_gists(
    path: Path, clip: TaughtClip, model: Embedder, hops: HopSettings, clock: Clock
) -> ClipGists:
    """What a model makes of a recording.

    Raises:
        ConfigError: it cannot be read, or is too short.
    """
    settings = MediaSettings(type="media", url=str(path), pace="max")
    reader = MediaFile("clip", settings, clock, rate_hz=hops.rate_hz)
    try:
        windows = asyncio.run(_all_of(ThreadedSource(reader), hops, model))
    except SourceError as error:
        msg = f"{path}: {error}"
        raise ConfigError(msg) from None
    if not windows:
        msg = f"{path}: too short; allowed: recordings from {hops.hop_secs:g} s on"
        raise ConfigError(msg)
    n_window = max(1, round(GIST_SECS / hops.hop_secs))
    levels = _levels(windows)
    weights = taught.weights_of(levels, n_window=n_window) if levels else np.ones(len(windows))
    values = np.stack([one.gist for one in windows])
    if not values[weights > 0].any():
        msg = f"{path}: there is no second of it with some sound, or with 2 pictures"
        raise ConfigError(msg)
    return ClipGists(clip, values, np.asarray(weights, np.float32))


async def _all_of(source: ThreadedSource, hops: HopSettings, model: Embedder) -> list[Embedded]:
    return [one async for one in embedded(source, hops, model)]


def _levels(windows: Sequence[Embedded]) -> list[Floats]:
    """How much there is to hear, and to see, in each of a clip's hops."""
    heard = [one.sound_db for one in windows]
    seen = [one.change_db for one in windows]
    return [
        np.array([_UNHEARD_DB if level is None else level for level in levels], np.float32)
        for levels in (heard, seen)
        if any(level is not None for level in levels)
    ]


def _check_label(label: str, folder: Path) -> None:
    name = _slug(label)
    if len(name) > _LONGEST_LABEL:
        msg = f"{label!r}: longer than {_LONGEST_LABEL} letters"
        raise ConfigError(msg)
    taken = {*OUTPUTS, OUT_OF_SYNC, UNUSUAL, *_told_by_detectors()}
    if name in taken:
        msg = f"{label!r}: {name} is told by mmstream itself; allowed: a name that is not one of "
        raise ConfigError(msg + ", ".join(sorted(taken)))
    path = taught.path_of(folder, label)
    if not path.exists():
        return
    try:
        before = taught.read(path, model=None)
    except ScorerError:
        return  # of no use to anybody: it is written anew
    if before.about.called != label:
        msg = (
            f"{label!r}: {name} is taught already, as {before.about.called!r}; allowed: that, "
            f"to teach it anew, or another name, or first --forget {name}"
        )
        raise ConfigError(msg)


def _told_by_detectors() -> frozenset[str]:
    """Labels of all detectors, whether they are on or off just now; models have others."""
    specs = graph.specs(DetectorSettings(avp=False))
    return frozenset(label.name for spec in specs for label in spec.labels)


def _check_clips(paths: Sequence[Path], clips: Sequence[TaughtClip]) -> None:
    if not taught.FEWEST_CLIPS <= len(paths) <= taught.MOST_CLIPS:
        msg = (
            f"{len(paths)} clips; allowed: {taught.FEWEST_CLIPS} to {taught.MOST_CLIPS}, "
            "each another recording of it"
        )
        raise ConfigError(msg)
    first: dict[str, Path] = {}
    for path, clip in zip(paths, clips, strict=True):
        if clip.digest in first:
            msg = f"{path}: the same recording as {first[clip.digest]}; allowed: different ones"
            raise ConfigError(msg)
        first[clip.digest] = path


def _clip(path: Path) -> TaughtClip:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ConfigError(msg) from None
    return TaughtClip(name=path.name, digest=digest[:16])


def _slug(label: str) -> str:
    try:
        return slug(label)
    except ValueError as error:
        msg = f"a label needs letters or digits: {error}"
        raise ConfigError(msg) from None


def _told(lesson: Lesson, path: Path) -> str:
    about, ordinary = lesson.prototype.about, lesson.ordinary
    near = ", ".join(
        f"{clip.name} {one:.2f}" for clip, one in zip(about.clips, lesson.nearness, strict=True)
    )
    first = (
        f"{about.label}: taught with {len(about.clips)} clips; told from {about.threshold:.2f} on "
        f"(1 is the same), ordinary sounds and pictures are below {ordinary:.2f}"
    )
    lines = [first, f"each beside the others: {near}"]
    if lesson.rival is not None:
        lines.append(f"{lesson.rival} is the nearest that was taught: the two may be mixed up")
    lines += [f"{clip.name} is unlike the others: listen to it" for clip in lesson.doubtful]
    return "\n".join([*lines, f"written to {path}; a run that looks there tells it from now on"])


def _line(one: Prototype) -> str:
    about = one.about
    return f"{about.label}: {len(about.clips)} clips, {about.made}, from {about.threshold:.2f} on"
