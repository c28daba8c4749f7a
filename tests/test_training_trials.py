"""What was asked once is found again, and is what was said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import training_world as world

from mmstream.models.mmt import Mmt
from mmstream.training.dataset import ExampleDataset
from mmstream.training.manifest import Label
from mmstream.training.predict import Trained
from mmstream.training.settings import Corpus
from mmstream.training.table import Conditions
from mmstream.training.trials import trials, tried

TASKS = ("a b", "a-b")
"""One and the same as names of files."""


def two_tasks(folder: Path) -> Corpus:
    whole = world.corpus(folder).examples["test"]
    items = []
    for item in whole.items:
        name = item.annotation.class_of(world.TASK) or ""
        labels = tuple(Label(task, name) for task in TASKS)
        items.append(replace(item, annotation=replace(item.annotation, labels=labels)))
    return Corpus({"test": ExampleDataset(items, whole._shards)}, None)  # noqa: SLF001


def test_tasks_whose_names_are_alike_are_kept_apart(tmp_path: Path) -> None:
    settings = world.settings()
    heads = dict.fromkeys(TASKS, settings.model.heads[world.TASK])
    model = settings.model.model_copy(update={"heads": heads})
    trained = Trained(Mmt(model).eval(), settings.model_copy(update={"model": model}), None, "0123")
    (trial,) = trials(Conditions())
    corpus = two_tasks(tmp_path / "shards")
    said = tried(trained, corpus, trial, tmp_path / "predictions")
    again = tried(trained, corpus, trial, tmp_path / "predictions")
    for task in TASKS:
        assert (said[task].task, again[task].task) == (task, task)
        assert np.array_equal(said[task].probabilities, again[task].probabilities)
    assert not np.array_equal(again["a b"].probabilities, again["a-b"].probabilities)
