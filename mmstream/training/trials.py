"""Trained models tried under conditions; what they said is kept, so that nothing is asked twice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mmstream.media import Modality
from mmstream.training import predictions
from mmstream.training.batches import tasks_of
from mmstream.training.history import EpochRecord
from mmstream.training.predict import Condition, Trained, predict
from mmstream.training.predictions import Predictions, paired_bootstrap, pooled
from mmstream.training.report import file_name
from mmstream.training.results import AS_IT_IS, Versus
from mmstream.training.schedule import Best, OptimiseSettings, better
from mmstream.training.settings import Corpus
from mmstream.training.shards import hashed
from mmstream.training.table import Conditions, RowSettings

Said = Mapping[str, Mapping[str, Predictions]]
"""Predictions by trial and task."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One of the conditions that a row asks for."""

    name: str
    """As the table has it."""
    condition: Condition
    other: str | None = None
    """Which other data; None: its own."""


def trials(test: Conditions) -> tuple[Trial, ...]:
    """The test split as it is, then whatever else is asked for."""
    as_it_is = Condition()
    hidden = [frozenset[Modality](names) for names in test.hidden]
    return (
        Trial(AS_IT_IS, as_it_is),
        *(Trial(f"{ratio:g} dB", Condition(snr_db=ratio)) for ratio in test.snr_db),
        *(Trial(f"without {' and '.join(sorted(one))}", Condition(hidden=one)) for one in hidden),
        *(Trial(f"sound of another {task}", Condition(swapped=task)) for task in test.swapped),
        *(Trial(name, as_it_is, name) for name in test.others),
    )


def tried(
    trained: Trained, corpus: Corpus, trial: Trial, folder: Path
) -> Mapping[str, Predictions]:
    """By task, what the model says of the test split of `corpus`; kept in `folder`.

    Of sounds that were swapped by the classes of one task, only that task.
    A file there is found by the model's id, the condition, and all examples and noises.

    Raises:
        ConfigError: there is nothing to say, or a file in `folder` is damaged.
        ScorerError: the examples do not fit the model.
    """
    asked, noise = trial.condition, corpus.noise
    noises = noise["test"].items if noise and asked.snr_db is not None else ()
    about = [f"{item.key} {item.annotation}" for item in (*corpus.examples["test"].items, *noises)]
    how = f"{sorted(asked.hidden)} {asked.snr_db} {asked.swapped}"
    paths = {
        task: folder
        / ".".join(
            (
                file_name(task),
                file_name(trial.name),
                hashed(trained.id, how, task, *about)[:16],  # two tasks may be one as file names
                "safetensors",
            )
        )
        for task in ([asked.swapped] if asked.swapped else tasks_of(trained.settings.model))
    }
    if all(path.exists() for path in paths.values()):
        return {task: predictions.load(path) for task, path in paths.items()}
    said = predict(trained, corpus, "test", asked)
    for task, path in paths.items():
        predictions.save(path, said[task])
    return {task: said[task] for task in paths}


def compared(row: str, said: Said, against: str, others: Said, *, seed: int) -> tuple[Versus, ...]:
    """Two rows under every condition and task that both have.

    Raises:
        ValueError: they are not about the same examples.
    """
    return tuple(
        Versus(
            row=row,
            against=against,
            condition=condition,
            task=task,
            comparison=paired_bootstrap(one, others[condition][task], seed=seed),
        )
        for condition, by_task in said.items()
        for task, one in by_task.items()
        if condition in others and task in others[condition]
    )


def pooled_said(parts: Sequence[Said]) -> Said:
    """Of several rows as one, under the conditions and for the tasks that all have.

    Raises:
        ValueError: their tasks have other classes.
    """
    first, *rest = parts
    return {
        condition: {
            task: pooled([one[condition][task] for one in parts])
            for task in by_task
            if all(task in one[condition] for one in rest)
        }
        for condition, by_task in first.items()
        if all(condition in one for one in rest)
    }


def n_parameters(trained: Trained) -> int:
    """Numbers that were learned."""
    return sum(weight.numel() for weight in trained.model.parameters())


def best_epoch(history: Sequence[EpochRecord], settings: OptimiseSettings) -> int:
    """Whose weights were kept, by what the training watched."""
    best: Best | None = None
    for one in history:
        accuracy = sum(one.accuracy_val.values()) / len(one.accuracy_val)
        now = Best(epoch=one.epoch, loss=one.loss_val, accuracy=accuracy)
        best = now if better(settings, now, best) else best
    return best.epoch if best else 0


def unusable(
    where: str, row: RowSettings, own: Corpus, others: Mapping[str, Corpus]
) -> Iterator[str]:
    """What the data lack that the row needs, a line each, with `where` the row stands."""
    for split, examples in own.examples.items():
        if not len(examples):
            yield f"{where}.data: no examples in the split {split!r}"
    for place, corpus in {
        "data": own,
        **{f"test.others.{one}": others[one] for one in others},
    }.items():
        items = corpus.examples["test"].items
        for task in tasks_of(row.model):
            known = {item.annotation.class_of(task) for item in items} - {None}
            if items and not known:
                yield f"{where}.{place}: no class of {task} is known in the test split"
            elif corpus is own and task in row.test.swapped and len(known) == 1:
                yield f"{where}.test.swapped: all of the test split are {task} {known.pop()}"


def device_name(trained: Trained) -> str:
    """`cpu`, or what the accelerator calls itself."""
    is_cuda = trained.device.type == "cuda"
    return torch.cuda.get_device_name(trained.device) if is_cuda else trained.device.type
