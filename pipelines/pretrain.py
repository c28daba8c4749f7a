"""Pre-train AVP, then say what it knows of what it has never met.

    recordings -> shards -> scenes -> training -> checkpoint -> figures

Whoever is interrupted goes on with the same command.

    folder/shards/        decoded recordings
           state, history
           best/          the checkpoint
           results.json   what it finds in the test split, and among people it has not seen
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, JsonValue

from mmstream import config
from mmstream.errors import SinkError
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, Avp, AvpSettings
from mmstream.models.checkpoint import CARD
from mmstream.pipelines.train_progress import Shown, showing
from mmstream.training.matching import CHANCE, Matched, match
from mmstream.training.pretrain import PretrainRecord, PretrainSettings, pretrain
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


def read_settings(path: Path, *, media: Path | None) -> PretrainSettings:
    """The settings in a file, with its paths beside it, or recordings below `media`.

    Raises:
        ConfigError: something is wrong; one line for each problem.
    """
    settings = config.load(path, PretrainSettings)
    update: dict[str, object] = {}
    for name, one in (("data", settings.data), ("unseen", settings.unseen)):
        if one is not None:
            below = path.parent / one.media if one.media and media is None else media
            update[name] = one.model_copy(update={"path": path.parent / one.path, "media": below})
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
            examples = settings.data.read(folder / SHARDS, begin("data", "decoding").counted)
            shown = begin("avp", "training")
            best = pretrain(settings, examples, folder, lambda record: _tell(shown, record))
            unseen = None
            if settings.unseen is not None:
                where = settings.unseen.model_copy(update={"tasks": settings.data.tasks})
                data = ManifestData(**dict(where), keep=settings.data.keep)
                unseen = data.read(folder / SHARDS, begin("unseen", "decoding").counted)["test"]
            read = checkpoint.read(
                best, AvpSettings, task=TASK, rate_hz=settings.model.audio.front_end.rate_hz
            )
            avp = Avp(read.settings).eval()
            read.fill(avp)
            begin("avp", "test")
            report = Report(
                id=read.id,
                folder=best,
                n_parameters=sum(one.numel() for one in avp.parameters()),
                secs=0,
                test=match(avp, examples["test"]),
                unseen=None if unseen is None else match(avp, unseen),
            )
            card = _card(settings, report)
            (best / CARD).write_text(card, "utf-8")
            record = {**made, "result": report.model_dump(mode="json")}
            (folder / RESULTS).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    except OSError as error:
        msg = f"{error.filename or folder}: {error.strerror or error}; what is saved is kept"
        raise SinkError(msg) from None
    return report


def _tell(shown: Shown, record: PretrainRecord) -> None:
    losses = ", ".join(f"{name} {one:.3f}" for name, one in record.losses.items())
    val = "" if record.val is None else f"; val: {_said(record.val)}"
    shown.counted(record.n_steps, record.n_steps_most)
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
