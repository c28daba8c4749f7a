"""Pre-train AVP, then say what it knows of what it has never met.

    recordings -> shards -> scenes -> training -> checkpoint -> figures

Whoever is interrupted goes on with the same command.

    folder/shards/        decoded recordings
           state, history
           best/          the checkpoint
           results.json   what it finds in the test split, and among people it has not seen
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, JsonValue
from safetensors import SafetensorError

from mmstream import config
from mmstream.errors import ConfigError, SinkError
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, Avp, AvpSettings
from mmstream.models.checkpoint import CARD
from mmstream.pipelines.train_progress import Shown, showing
from mmstream.training.dataset import ExampleDataset
from mmstream.training.loop import StepRecord
from mmstream.training.manifest import Split
from mmstream.training.matching import CHANCE, MATCH_SECS, Matched, match, pairs_of
from mmstream.training.pretrain import PretrainRecord, position, pretrain
from mmstream.training.pretrain_settings import PretrainSettings
from mmstream.training.settings import ManifestData
from mmstream.training.state import alone

SHARDS: Final = "shards"
RESULTS: Final = "results.json"


class Report(BaseModel):
    """What came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Of the checkpoint."""
    folder: Path
    n_parameters: int
    secs: float
    """Of training, as the clock had it."""
    test: Matched
    unseen: Matched | None
    """Of people who are not in the data; None: the settings name none."""

    @property
    def knows_strangers(self) -> bool:
        """Whether offsets of unseen people are found better than by chance."""
        return self.unseen is not None and self.unseen.beats_chance


def read_settings(
    path: Path, *, media: Path | None, overrides: Sequence[str] = ()
) -> PretrainSettings:
    """The settings in a file, with its paths beside it, or recordings below `media`.

    Raises:
        ConfigError: something is wrong; one line for each problem.
    """
    settings = config.load(path, PretrainSettings, overrides)
    update: dict[str, object] = {}
    for name, one in (("data", settings.data), ("unseen", settings.unseen)):
        if one is not None:
            manifest = path.parent / one.path
            written = path.parent / one.media if one.media else manifest.parent
            below = written if media is None else media
            if not below.is_dir():  # instead of a line for every recording
                msg = f"{below}: no such folder; --media says where recordings are"
                raise ConfigError(msg)
            update[name] = one.model_copy(update={"path": manifest, "media": below})
    return settings.model_copy(update=update)


def run(settings: PretrainSettings, folder: Path, made: Mapping[str, JsonValue]) -> Report:
    """Train what is not trained, then judge it.

    Args:
        settings: what to do.
        folder: of this training alone.
        made: when, where and of what: `mmstream.benchmarks.machine`.

    Raises:
        ConfigError: the data is wrong, or the folder holds another training.
        SourceError: a recording cannot be read.
        ScorerError: the loss is not finite.
        SinkError: something cannot be written.
        KeyboardInterrupt: Ctrl-C; what was trained is kept.
    """
    try:
        with alone(folder), showing() as begin:
            data = _read(settings, folder, begin)
            shown = begin("avp", "training")
            best = pretrain(settings, data.examples, folder, lambda record: _tell(shown, record))
            begin("avp", "test")
            secs = position(settings, data.examples, folder).secs
            report = _tested(settings, data, best, secs=secs)
            (best / CARD).write_text(_card(settings, report), "utf-8")
            record = {**made, "result": report.model_dump(mode="json")}
            (folder / RESULTS).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    except (OSError, SafetensorError) as error:
        place, what = getattr(error, "filename", None), getattr(error, "strerror", None)
        msg = f"{place or folder}: {what or error}; what is saved is kept"
        raise SinkError(msg) from None
    return report


def plain(report: Report) -> str:
    """The figures, for a terminal."""
    lines = [
        f"{report.n_parameters:,} weights, trained in {report.secs / 60:.0f} min",
        f"test split: {_said(report.test)}",
    ]
    if report.unseen is not None:
        chance = "" if report.knows_strangers else ", which guessing does too"
        lines.append(f"people it has not seen: {_said(report.unseen)}{chance}")
    return "\n".join([*lines, str(report.folder)])


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    examples: Mapping[Split, ExampleDataset]
    unseen: ExampleDataset | None


def _read(settings: PretrainSettings, folder: Path, begin: Callable[[str, str], Shown]) -> _Data:
    """Decode all of it before hours are spent, so that what is wrong is said at once.

    Raises:
        ConfigError: a manifest is wrong, or there is nothing to test on.
        SourceError: a recording cannot be read.
    """
    examples = settings.data.read(folder / SHARDS, begin("data", "decoding").counted)
    unseen = None
    if settings.unseen is not None:
        where = settings.unseen.model_copy(update={"tasks": settings.data.tasks})
        data = ManifestData(**dict(where), keep=settings.data.keep)
        unseen = data.read(folder / SHARDS, begin("unseen", "decoding").counted)["test"]
    for name, tested in (("data", examples["test"]), ("unseen", unseen)):
        if tested is not None and not pairs_of(tested, fps=settings.model.seen.fps):
            what = f"sound and pictures for {MATCH_SECS:g} s"
            msg = f"{name}: no example of the split 'test' has {what}; it is tested on these"
            raise ConfigError(msg)
    return _Data(examples, unseen)


def _tested(settings: PretrainSettings, data: _Data, best: Path, *, secs: float) -> Report:
    rate_hz = settings.model.audio.front_end.rate_hz
    read = checkpoint.read(best, AvpSettings, task=TASK, rate_hz=rate_hz)
    avp = Avp(read.settings).eval()
    read.fill(avp)
    return Report(
        id=read.id,
        folder=best,
        n_parameters=sum(one.numel() for one in avp.parameters()),
        secs=secs,
        test=match(avp, data.examples["test"]),
        unseen=None if data.unseen is None else match(avp, data.unseen),
    )


def _tell(shown: Shown, record: StepRecord | PretrainRecord) -> None:
    if isinstance(record, StepRecord):
        shown.told(record)
        return
    losses = ", ".join(f"{name} {one:.3f}" for name, one in record.losses.items())
    val = "" if record.val is None else f"; val: {_said(record.val)}"
    shown.line(f"step {record.n_steps} of {record.n_steps_most}: {losses}{val}")


def _said(matched: Matched) -> str:
    return (
        f"offset {100 * matched.offset:.1f} % of {matched.n}, R@1/5/10 "
        f"{100 * matched.recall_1:.1f} / {100 * matched.recall_5:.1f} / "
        f"{100 * matched.recall_10:.1f} %"
    )


def _card(settings: PretrainSettings, report: Report) -> str:
    """What a person should know of the checkpoint."""
    labels = ", ".join(settings.model.events.labels)
    left_out = ", ".join(settings.left_out) or "nothing"
    seen = settings.model.seen
    takes = (
        f"Sound at {settings.model.audio.front_end.rate_hz} Hz and luma pictures of {seen.width} x "
        f"{seen.height} pixels, up to {seen.fps} in a second; windows of "
        f"{settings.model.window_secs:g} s."
    )
    asked = (
        "Whether sound and pictures are found to be together within a frame, among shifts of 0.4 s "
        f"either way (chance {100 * CHANCE:.0f} %), and each other's among all clips:"
    )
    lines = [
        f"# {report.folder.name}",
        "",
        f"{report.n_parameters:,} weights. {takes}",
        f"Hears: {labels}. Left out of training: {left_out}.",
        "",
        asked,
        "",
        f"* test split: {_said(report.test)}",
    ]
    if report.unseen is not None:
        lines.append(f"* people it has not seen: {_said(report.unseen)}")
    return "\n".join(lines) + "\n"
