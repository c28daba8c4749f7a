"""Caption: one recording through a recipe, as fast as it goes, to subtitles or a transcript.

    media -> hops -> worker -> captions -> cues -> WebVTT, SubRip or text

The file appears whole at the end; a run that fails or is stopped leaves what was there before.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mmstream.clock import Clock
from mmstream.errors import ConfigError, MmstreamError, SinkError
from mmstream.heads.events import HeadItem
from mmstream.media import Scores
from mmstream.messages import Caption, Decided
from mmstream.pipelines import graph, replay
from mmstream.pipelines.configuration import CaptionsSettings, Configuration
from mmstream.runtime.local import LocalRuntime
from mmstream.runtime.session import new_boot_id, serve
from mmstream.sinks.memory import MemorySink
from mmstream.sinks.subtitle_formats import SubtitleFormat, format_of, whole
from mmstream.sources.media import MediaSettings
from mmstream.sources.pacing import epoch_ns
from mmstream.stages import Stage

STDOUT: Final = "-"
N_CAPTIONS: Final = 1_000_000
"""Messages of one recording that are kept until its end."""
_OF_SCENE: Final = ("scene", "descriptions")
_SEEING: Final = ("motion", "presence", "person", "face", "person_speaking", "condition")
_HEARING: Final = ("loud", "alarm", "impact", "avp")


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which captions are wanted, and where."""

    out: str
    """A file, or `-` for standard output."""
    form: SubtitleFormat
    sounds: bool = True
    scene: bool = True


def asked(out: str, form: SubtitleFormat | None, *, sounds: bool, scene: bool) -> Asked:
    """What the options say; standard output is WebVTT unless told otherwise.

    Raises:
        ConfigError: the file's name does not say what it is, or no file can be written there.
    """
    if fault := _fault(out):
        msg = f"--out: {fault}; allowed: a file in a folder that exists, or - for standard output"
        raise ConfigError(msg)
    try:
        chosen = form or (SubtitleFormat.WEBVTT if out == STDOUT else format_of(out))
    except ValueError as error:
        msg = f"--out: {out}: {error}; or say --format"
        raise ConfigError(msg) from None
    return Asked(out, chosen, sounds=sounds, scene=scene)


def _fault(out: str) -> str | None:
    """Why nothing can be written there, as far as that is seen before minutes are spent."""
    folder = Path(out).resolve().parent
    if not out:
        return "an empty name"
    if out == STDOUT:
        return None
    if Path(out).is_dir():
        return f"{out} is a folder"
    if _is_special(out):
        return None
    if not folder.is_dir():
        return f"{out}: there is no folder {folder}"
    return None if os.access(folder, os.W_OK) else f"{out}: the folder {folder} is not writable"


def _is_special(out: str) -> bool:
    """A pipe or a device: it is written itself, not replaced."""
    return Path(out).exists() and not Path(out).is_file()


def narrowed(recipe: Configuration, wanted: Asked) -> Configuration:
    """The recipe with no more detectors than the wanted captions rest on.

    A recipe without captions gets the usual ones. Without the scene nobody looks: then nothing says
    whether who speaks is on screen either.

    Raises:
        ConfigError: nothing is wanted, or the recipe has no detector of speech.
    """
    captions = CaptionsSettings() if recipe.captions is False else recipe.captions
    if captions.speech is not False and recipe.detectors.speech is False:
        msg = (
            "captions.speech rests on detectors.speech, which is off; allowed: detectors.speech: {}"
        )
        raise ConfigError(msg)
    if captions.speech is False and not (wanted.sounds or wanted.scene):
        msg = "no captions are wanted: captions.speech is false; allowed: --sounds or --scene"
        raise ConfigError(msg)
    off = (() if wanted.sounds else ("sounds",)) + (() if wanted.scene else _OF_SCENE)
    unused = (() if wanted.sounds else _HEARING) + (() if wanted.scene else _SEEING)
    return recipe.model_copy(
        update={
            "captions": captions.model_copy(update=dict.fromkeys(off, False)),
            "detectors": recipe.detectors.model_copy(update=dict.fromkeys(unused, False)),
        }
    )


async def run(
    recipe: Configuration,
    media: MediaSettings,
    wanted: Asked,
    clock: Clock,
    heard: Callable[[int], None],
) -> str:
    """The file with a recording's captions. `heard` is told how far it is, in ns.

    Raises:
        MmstreamError: it was stopped, or the recording could not be read to its end.
    """
    settings = narrowed(recipe, wanted)
    settings = settings.model_copy(update={"sources": {replay.source_id(media.url): media}})
    sink = MemorySink(N_CAPTIONS)
    built = graph.build(settings, clock, [sink], reports=False)
    chains = tuple(replace(one, head=_Listened(one.head, heard)) for one in built.chains)
    runtime = LocalRuntime(replace(built, chains=chains), clock, boot_id=new_boot_id())
    await serve(runtime)
    for failure in runtime.failures():
        raise failure
    if runtime.stopping:
        msg = f"stopped; {wanted.out} is not written"
        raise MmstreamError(msg)
    captions = [one for one in sink.contents(Caption) if one.state == "final" and one.text.strip()]
    if not captions:
        _log.warning("%s has no captions: nothing was said, heard or seen", media.url)
    return whole(captions, wanted.form, zero_utc_ns=epoch_ns(media.epoch), voices=False)


def write(text: str, out: str) -> None:
    """All of it or nothing: a file is replaced once the new one is on disk.

    Raises:
        SinkError: it cannot be written; the text names it and says why.
    """
    place = "standard output" if out == STDOUT else out
    try:
        if out == STDOUT:
            _print(text)
        elif _is_special(out):
            Path(out).write_text(text, encoding="utf-8")
        else:
            _replace(Path(out), text)
    except OSError as error:
        msg = f"cannot write to {place}: {error.strerror or error}"
        raise SinkError(msg) from None


def _print(text: str) -> None:
    if sys.stdout is None:
        raise BrokenPipeError
    sys.stdout.buffer.write(text.encode())
    sys.stdout.flush()


def _replace(path: Path, text: str) -> None:
    target = path.resolve()  # what a link points to is written, not the link
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 - a handle, no path
            file.write(text)
            file.flush()
            os.fsync(handle)
        Path(name).chmod(mode)
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _umask() -> int:
    """What new files are denied; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


class _Listened:
    """A head that lets somebody know how far the recording is."""

    def __init__(self, head: Stage[HeadItem, Decided], heard: Callable[[int], None]) -> None:
        self._head = head
        self._heard = heard

    def push(self, item: HeadItem) -> Sequence[Decided]:
        if isinstance(item, Scores):
            self._heard(item.span.end_ns)
        return self._head.push(item)

    def flush(self) -> Sequence[Decided]:
        return self._head.flush()
