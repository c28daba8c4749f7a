"""What a trained model says of a split, as it is or with something taken away from it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmstream.errors import ConfigError, ScorerError
from mmstream.media import Floats, Modality
from mmstream.models import checkpoint
from mmstream.models.mmt import Mmt, MmtSettings, rebuilt
from mmstream.models.text import WordPieces
from mmstream.training.batches import Batch, Change, Collator, Swapped, loader, tasks_of
from mmstream.training.dataset import UNKNOWN, ExampleDataset
from mmstream.training.manifest import Split
from mmstream.training.noise import Noise
from mmstream.training.predictions import Predictions
from mmstream.training.reading import Words
from mmstream.training.settings import Corpus, TrainSettings

VOCABULARY: Final = "vocabulary.json"
"""Beside the weights of a model that reads."""
_N_BATCH: Final = 256
_SEED: Final = 0
"""Not the training's: every net is tried with the same noise and the same swapped sounds."""
_NOBODY: Final[frozenset[Modality]] = frozenset()


@dataclass(frozen=True, slots=True)
class Condition:
    """What a model is tried under."""

    hidden: frozenset[Modality] = _NOBODY
    """Modalities that it does not get."""
    snr_db: float | None = None
    """Noise of the split is mixed with the sound; the same at every ratio but for its loudness."""
    swapped: str | None = None
    """Each example has the sound of another, of another class of this task."""


_AS_IT_IS: Final = Condition()


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A model and what it reads with."""

    model: Mmt
    """In eval mode."""
    settings: TrainSettings
    words: Words | None
    id: str
    """Of its checkpoint."""
    device: torch.device = field(default=torch.device("cpu"))


def load(settings: TrainSettings, folder: Path) -> Trained:
    """The checkpoint that a training with these settings left in `folder`.

    Raises:
        ScorerError: there is none, or it is of another task or model.
        ConfigError: its vocabulary is missing or does not fit.
    """
    read = checkpoint.read(folder, MmtSettings, task=settings.task, rate_hz=settings.rate_hz)
    model = rebuilt(read.settings)
    read.fill(model)
    on_cuda = settings.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_cuda else "cpu")
    words = None
    if settings.reads:
        vocabulary = _vocabulary(folder / VOCABULARY) if settings.needs_vocabulary else None
        words = Words(settings.words, model.settings, vocabulary)
    return Trained(model.to(device).eval(), settings, words, read.id, device)


def predict(
    trained: Trained, corpus: Corpus, split: Split, condition: Condition = _AS_IT_IS
) -> Mapping[str, Predictions]:
    """By task, what the model says of the examples of `split` whose class is known.

    Of a task that nothing is known of, nothing; with swapped sounds only of their task.

    Raises:
        ConfigError: noise is asked for and the training has none; of no task anything is known.
        ScorerError: the examples do not fit the model.
    """
    examples: ExampleDataset | Swapped = corpus.examples[split]
    if condition.swapped is not None:
        examples = Swapped(corpus.examples[split], condition.swapped, seed=_SEED)
    changes: list[Change] = []
    if condition.snr_db is not None:
        if corpus.noise is None:
            msg = "snr_db: the training has no noise; `noise` says where recordings of it are"
            raise ConfigError(msg)
        ratio = (condition.snr_db, condition.snr_db)
        changes.append(Noise(corpus.noise[split], snr_db=ratio, clean=0, seed=_SEED))
    collate = Collator(trained.model.settings, trained.words, changes)
    batches = loader(examples, range(len(examples)), collate, n_batch=_N_BATCH)
    tasks = [condition.swapped] if condition.swapped else _known(trained, corpus.examples[split])
    return answers(
        trained.model, batches, device=trained.device, hidden=condition.hidden, tasks=tasks
    )


def answers(
    model: Mmt,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    hidden: frozenset[Modality] = _NOBODY,
    tasks: Collection[str] = (),
) -> Mapping[str, Predictions]:
    """By task, what `model` says of the examples whose class is known; it is in eval mode after.

    Of some `tasks` only, or of all.

    Raises:
        ConfigError: no class of a task is known.
        ScorerError: what it says is not finite; the text names the examples.
    """
    every = tasks_of(model.settings)
    heads = {task: head for task, head in every.items() if task in (tasks or every)}
    parts: dict[str, list[_Part]] = {task: [] for task in heads}
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            outputs = model(batch.inputs.to(device), hidden=hidden)
            for task, there in parts.items():
                logits, gates = outputs.logits[task], outputs.fused.gates
                there.append(_part(batch, batch.targets[task], logits, gates))
    return {
        task: _joined(task, head.labels, model.settings.fusion.modalities, parts[task])
        for task, head in heads.items()
    }


def _known(trained: Trained, examples: ExampleDataset) -> list[str]:
    """The tasks of which something is known."""
    annotations = [item.annotation for item in examples.items]
    tasks = tasks_of(trained.model.settings)
    return [task for task in tasks if any(one.class_of(task) is not None for one in annotations)]


def _vocabulary(path: Path) -> WordPieces:
    try:
        return WordPieces.from_json(path.read_text("utf-8"))
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ConfigError(msg) from None


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What is said of those of a batch whose class is known; as `Predictions`."""

    indices: NDArray[np.int64]
    truth: NDArray[np.int64]
    probabilities: Floats
    gates: Floats | None


def _part(batch: Batch, true: Tensor, logits: Tensor, gates: Tensor | None) -> _Part:
    finite = logits.isfinite().all(dim=1).tolist()
    if not all(finite):
        wrong = [name for name, fine in zip(batch.names, finite, strict=True) if not fine]
        msg = f"what the model says is not finite for the examples {', '.join(wrong)}"
        raise ScorerError(msg)
    known = (true != UNKNOWN).numpy()
    return _Part(
        np.array(batch.indices, np.int64)[known],
        true.numpy()[known],
        logits.float().softmax(dim=1).cpu().numpy()[known],
        None if gates is None else gates.float().cpu().numpy()[known],
    )


def _joined(
    task: str, classes: tuple[str, ...], modalities: tuple[Modality, ...], parts: Sequence[_Part]
) -> Predictions:
    if not any(len(part.indices) for part in parts):
        msg = f"{task}: no example of the split has a known class"
        raise ConfigError(msg)
    gates = [part.gates for part in parts if part.gates is not None]
    return Predictions(
        task=task,
        classes=classes,
        indices=np.concatenate([part.indices for part in parts]),
        truth=np.concatenate([part.truth for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        modalities=modalities,
        gates=np.concatenate(gates) if gates else None,
    )
