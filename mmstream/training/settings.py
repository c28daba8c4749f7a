"""What a training is told: which data, which model, how it is fitted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from mmstream.config import Settings
from mmstream.features.audio import LogMelSettings
from mmstream.media import DEFAULT_RATE_HZ, StreamKind
from mmstream.models.mmt import MmtSettings
from mmstream.models.text import TextSettings
from mmstream.training import avmnist, digit_claims
from mmstream.training.avmnist import AvMnistSettings, read_avmnist
from mmstream.training.balance import BalanceSettings
from mmstream.training.batches import AugmentSettings, tasks_of
from mmstream.training.dataset import ExampleDataset, Item
from mmstream.training.digit_claims import DIGIT_TASKS, DigitClaimSettings, read_digit_claims
from mmstream.training.digits import CLASSES, LOG_MEL
from mmstream.training.losses import LossSettings
from mmstream.training.manifest import ManifestSettings, Split, read_manifest
from mmstream.training.noise import NoiseSettings, read_noise
from mmstream.training.reading import WordSettings
from mmstream.training.recordings import PieceSettings
from mmstream.training.schedule import OptimiseSettings
from mmstream.training.shards import build_shards, key_of
from mmstream.training.share import share_of

_SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")


class ManifestData(ManifestSettings):
    """Any recordings, by a manifest."""

    type: Literal["manifest"] = "manifest"
    keep: PieceSettings
    """What of them is decoded and kept."""

    @property
    def keeps(self) -> frozenset[StreamKind]:
        """Streams that examples have."""
        sound, pictures = self.keep.sound, self.keep.pictures
        kept: dict[StreamKind, bool] = {"audio": sound is not None, "video": pictures is not None}
        return frozenset(kind for kind, is_kept in kept.items() if is_kept)

    @property
    def log_mel(self) -> LogMelSettings | None:
        """What sound is kept as; None: samples at 16 kHz, or nothing."""
        return self.keep.sound.log_mel if self.keep.sound else None

    def read(
        self, folder: Path, told: Callable[[int, int], None] = lambda _done, _all: None
    ) -> Mapping[Split, ExampleDataset]:
        """Its splits, decoded into the shards of `folder` unless they are there already.

        Raises:
            ConfigError: the manifest is wrong, or the folder holds something else.
            SourceError: a recording cannot be read.
        """
        entries = read_manifest(self)
        shards = build_shards(folder, entries, self.keep, told)
        items = [Item(key_of(entry, self.keep), entry.annotation) for entry in entries]
        return {
            split: ExampleDataset([one for one in items if one.annotation.split == split], shards)
            for split in _SPLITS
        }


class _Digits:
    """What all data sets of written and spoken digits keep."""

    @property
    def keeps(self) -> frozenset[StreamKind]:
        """Streams that examples have."""
        return frozenset(("audio", "video"))

    @property
    def log_mel(self) -> LogMelSettings | None:
        """What sound is kept as."""
        return LOG_MEL


class AvMnistData(_Digits, AvMnistSettings):
    """AV-MNIST."""

    type: Literal["avmnist"] = "avmnist"

    @property
    def tasks(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of each task."""
        return {avmnist.TASK: CLASSES}

    def read(
        self,
        folder: Path,
        told: Callable[[int, int], None] = lambda _done, _all: None,  # noqa: ARG002 - as the others
    ) -> Mapping[Split, ExampleDataset]:
        """Its splits, made in the shards of `folder` unless they are there already.

        Raises:
            ConfigError: files are missing.
            SourceError: a recording cannot be read.
        """
        return read_avmnist(self, folder)


class DigitClaimData(_Digits, DigitClaimSettings):
    """Claims about a written and a spoken digit."""

    type: Literal["digit_claims"] = "digit_claims"

    @property
    def tasks(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of each task."""
        return {digit_claims.TASK: digit_claims.TRUTH, **dict.fromkeys(DIGIT_TASKS, CLASSES)}

    def read(
        self,
        folder: Path,
        told: Callable[[int, int], None] = lambda _done, _all: None,  # noqa: ARG002 - as the others
    ) -> Mapping[Split, ExampleDataset]:
        """Its splits, made in the shards of `folder` unless they are there already.

        Raises:
            ConfigError: files are missing.
            SourceError: a recording cannot be read.
        """
        return read_digit_claims(self, folder)


AnyData = Annotated[ManifestData | AvMnistData | DigitClaimData, Field(discriminator="type")]


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """What a training reads from."""

    examples: Mapping[Split, ExampleDataset]
    noise: Mapping[Split, ExampleDataset] | None
    """Recordings to be mixed with the examples of the same split."""


class TrainSettings(Settings):
    """All of a training."""

    data: AnyData
    model: MmtSettings
    optimise: OptimiseSettings = OptimiseSettings()
    loss: LossSettings = LossSettings()
    balance: BalanceSettings = BalanceSettings()
    noise: NoiseSettings | None = None
    """None: sound is as it was recorded."""
    augment: AugmentSettings = AugmentSettings()
    words: WordSettings = WordSettings()
    share: float = Field(default=1, gt=0, le=1)
    """Of the training examples, of each class and group alike, drawn by the seed: as if there were
    no more. Validation and test stay whole."""
    start_from: str | None = Field(default=None, min_length=1)
    """`avp-small`, or the folder of a checkpoint of its kind, whose encoders of sound and sight the
    model's own begin with; None: with random weights."""
    frozen: bool = False
    """Those encoders stay as they are: what is trained tells how much they know already."""
    seed: int = Field(default=0, ge=0)
    """Of all that is drawn: weights, order, noise, what is dropped out."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: an accelerator where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products in the model; auto: bfloat16 on CUDA. The weights are 32-bit floats."""

    def read(
        self, folder: Path, told: Callable[[int, int], None] = lambda _done, _all: None
    ) -> Corpus:
        """The data, decoded into the shards of `folder` unless it is there already.

        Raises:
            ConfigError: something in a manifest is wrong, or files are missing.
            SourceError: a recording cannot be read.
        """
        examples = self.data.read(folder, told)
        noise = read_noise(self.noise, folder, told) if self.noise else None
        return self.drawn(Corpus(examples, noise))

    def drawn(self, corpus: Corpus) -> Corpus:
        """With the share of its training examples that is learned from."""
        if self.share == 1:
            return corpus
        train = corpus.examples["train"]
        some = train.only(share_of(train.items, self.share, seed=self.seed))
        return Corpus({**corpus.examples, "train": some}, corpus.noise)

    @property
    def rate_hz(self) -> int | None:
        """Of the sound that the model takes; None: it takes none."""
        return self.model.audio.front_end.rate_hz if self.model.audio else None

    @property
    def reads(self) -> bool:
        """Whether the model reads anything."""
        return self.model.text is not None or self.model.question is not None

    @property
    def needs_vocabulary(self) -> bool:
        """Whether some of it is read with a vocabulary that is made in the training."""
        return isinstance(self.model.text, TextSettings) or self.model.question is not None

    @property
    def task(self) -> str:
        """What the model is trained for, as its checkpoint says it."""
        return ", ".join(tasks_of(self.model))

    @model_validator(mode="after")
    def _check_tasks(self) -> Self:
        heads, known = tasks_of(self.model), self.data.tasks
        for task, head in heads.items():
            if head.kind != "one":
                msg = (
                    f"model.heads.{task}.kind: only 'one' can be trained, an example has one class"
                )
                raise ValueError(msg)
            if set(head.labels) != set(known.get(task, ())):
                has = ", ".join(known.get(task, ())) or f"only the tasks {', '.join(known)}"
                msg = f"model.heads.{task}.labels: must be the data's: it has {has}"
                raise ValueError(msg)
        unknown = [task for task in self.loss.tasks if task not in heads]
        if unknown:
            msg = f"loss.tasks.{unknown[0]}: no such task; allowed: {', '.join(heads)}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_streams(self) -> Self:
        model, keeps = self.model, self.data.keeps
        needs: dict[StreamKind, bool] = {"audio": model.audio is not None}
        needs["video"] = model.video is not None
        lacking = [kind for kind, is_needed in needs.items() if is_needed and kind not in keeps]
        if lacking:
            msg = f"model.{lacking[0]}: the data keeps no {lacking[0]}"
            raise ValueError(msg)
        if (model.text is None) != (self.words.text is None):
            msg = "words.text: says what model.text reads; both or none"
            raise ValueError(msg)
        if (model.question is None) != (self.words.question is None):
            msg = "words.question: says what model.question is asked; both or none"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.frozen and self.start_from is None:
            msg = "frozen: needs start_from, random encoders know nothing"
            raise ValueError(msg)
        if self.start_from is not None and self.model.audio is None and self.model.video is None:
            msg = "start_from: needs model.audio or model.video, nothing else begins with it"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_sound(self) -> Self:
        kept, audio = self.data.log_mel, self.model.audio
        if self.noise is not None and kept is not None:
            msg = "noise: is mixed with samples, and the data keeps log-mel energies"
            raise ValueError(msg)
        if audio is None:
            return self
        front = audio.front_end
        if kept is None and front.rate_hz != DEFAULT_RATE_HZ:
            msg = f"model.audio.front_end.rate_hz: the data keeps {DEFAULT_RATE_HZ} Hz"
            raise ValueError(msg)
        if kept is not None and front.model_dump(exclude={"type"}) != kept.model_dump():
            msg = f"model.audio.front_end: must be what the data keeps: {kept!r}"
            raise ValueError(msg)
        return self
