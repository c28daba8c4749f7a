"""One step: what is held back moves less, what watches changes nothing, what is wrong is named."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
import training_world as world
from torch import Tensor

from mmstream.errors import ConfigError, ScorerError
from mmstream.training.batches import Batch, Collator
from mmstream.training.learner import Learner


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    examples = world.corpus(tmp_path_factory.mktemp("shards")).examples["train"]
    collate = Collator(world.settings().model)
    return collate([examples[nth] for nth in (4, 9, 2, 3, 14, 6, 7, 13)])


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor], part: str) -> float:
    moves = [(after[name] - before[name]).norm() for name in before if name.startswith(part)]
    return float(torch.stack(moves).norm())


def test_the_encoder_ahead_makes_smaller_steps_by_its_coefficient(batch: Batch) -> None:
    moves: dict[str, dict[str, float]] = {}
    for kind in ("none", "ogm"):
        learner = Learner(world.settings(balance={"type": kind, "alpha": 0.5}))
        before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
        stepped = learner.step(batch, learning_rate=1e-2, number=0)
        after = learner.tensors()
        parts = ("model.audio.", "model.video.", "model.fusion.", "model.heads.")
        moves[kind] = {part: moved(before, after, part) for part in parts}
    coefficients = {name: one.coefficient for name, one in stepped.modalities.items()}
    assert min(coefficients.values()) < 0.7
    assert max(coefficients.values()) == 1
    ratios = {part: moves["ogm"][part] / moves["none"][part] for part in moves["none"]}
    assert ratios["model.audio."] == pytest.approx(coefficients["audio"], rel=1e-3)
    assert ratios["model.video."] == pytest.approx(coefficients["video"], rel=1e-3)
    assert ratios["model.fusion."] == ratios["model.heads."] == 1


def test_heads_of_one_modality_change_nothing_in_the_model(batch: Batch) -> None:
    learners = [Learner(world.settings(balance={"type": "none"})) for _ in range(2)]
    tensors = learners[1].tensors()
    others = {name: one + 1 for name, one in tensors.items() if name.startswith("heads.")}
    learners[1].restore(tensors | others)
    for learner in learners:
        for number in range(3):
            learner.step(batch, learning_rate=1e-2, number=number)
    one, two = (learner.tensors() for learner in learners)
    assert all(torch.equal(one[name], two[name]) for name in one if name.startswith("model."))
    assert not torch.equal(one["heads.heads.audio.1.weight"], two["heads.heads.audio.1.weight"])


def test_it_goes_on_from_what_was_kept(batch: Batch) -> None:
    first, second = Learner(world.settings()), Learner(world.settings())
    second.step(batch, learning_rate=1e-2, number=9)
    for number in range(3):
        first.step(batch, learning_rate=1e-2, number=number)
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()})
    assert first.step(batch, learning_rate=1e-2, number=3) == second.step(
        batch, learning_rate=1e-2, number=3
    )
    one, two = first.tensors(), second.tensors()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_not_finite_is_named_and_nothing_is_learned(batch: Batch) -> None:
    assert batch.inputs.frames is not None
    frames = batch.inputs.frames.clone()
    frames[3, 1, 2] = torch.inf
    learner = Learner(world.settings(model=model_without_drops()))
    before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    broken = replace(batch, inputs=replace(batch.inputs, frames=frames))
    with pytest.raises(ScorerError, match=r"for 1 of 8 examples of the batch: 3 \(train-3\)$"):
        learner.step(broken, learning_rate=1e-2, number=0)
    after = learner.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert learner.step(batch, learning_rate=1e-2, number=0).loss > 0


def model_without_drops() -> object:
    """A modality that is dropped would hide what is wrong with it."""
    model = world.settings().model
    fusion = model.fusion.model_copy(update={"drop_modality": 0.0})
    return model.model_copy(update={"fusion": fusion})


def test_bfloat16_learns_much_the_same(batch: Batch) -> None:
    losses = {}
    for precision in ("float32", "bfloat16", "float32"):
        learner = Learner(world.settings(precision=precision, balance={"type": "none"}))
        steps = [learner.step(batch, learning_rate=1e-2, number=n).loss for n in range(5)]
        losses[precision] = steps
        assert learner.model.heads[0].network[2].weight.dtype == torch.float32  # type: ignore[index, union-attr]  # nn.Sequential
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no CUDA device here; allowed: auto, cpu"):
        Learner(world.settings(device="cuda"))
