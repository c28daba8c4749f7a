"""What is made small, against torch's own; and heads of one modality that change nothing else."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from mmstream.models.tokens import Tokens
from mmstream.training.dataset import UNKNOWN
from mmstream.training.losses import LossSettings, UnimodalHeads, joint_loss

A = torch.tensor([[2.0, -1.0, 0.3], [0.1, 0.2, -3.0], [1.0, 1.0, 1.0]])
B = torch.tensor([[0.5, -0.5], [3.0, 1.0], [-1.0, 2.0]])


def tokens(n_tokens: int, present: torch.Tensor) -> Tokens:
    values = torch.randn(3, n_tokens, 4, requires_grad=True)
    return Tokens(values, present, torch.zeros(3, n_tokens))


def test_tasks_are_weighted_and_smoothed() -> None:
    targets = {"a": torch.tensor([0, 2, 1]), "b": torch.tensor([1, 0, 0])}
    loss = joint_loss(
        {"a": A, "b": B}, targets, LossSettings(tasks={"b": 0.25}, label_smoothing=0.1)
    )
    a = cross_entropy(A, targets["a"], label_smoothing=0.1)
    b = cross_entropy(B, targets["b"], label_smoothing=0.1)
    torch.testing.assert_close(loss.mean, a + 0.25 * b)
    torch.testing.assert_close(loss.each.mean(), loss.mean)


def test_what_is_not_known_does_not_count() -> None:
    known = joint_loss({"a": A[:2]}, {"a": torch.tensor([0, 2])}, LossSettings())
    more = joint_loss({"a": A}, {"a": torch.tensor([0, 2, UNKNOWN])}, LossSettings())
    torch.testing.assert_close(more.mean, known.mean)
    assert more.each[2] == 0
    nothing = joint_loss({"a": A}, {"a": torch.tensor([UNKNOWN] * 3)}, LossSettings())
    assert nothing.mean == 0


@pytest.mark.parametrize("unimodal", [0.0, 0.5])
def test_heads_of_one_modality_reach_the_encoders_only_when_asked_to(unimodal: float) -> None:
    sound = tokens(2, torch.ones(3, 2, dtype=torch.bool))
    heads = UnimodalHeads(("audio",), {"a": 3}, n_dims=4)
    settings = LossSettings(unimodal=unimodal)
    alone = heads({"audio": sound}, {"a": torch.tensor([0, 1, 2])}, settings)
    alone.losses["audio"].backward()
    assert (sound.values.grad is not None) == (unimodal > 0)
    assert all(weight.grad is not None for weight in heads.parameters())


def test_a_modality_is_judged_by_what_is_there() -> None:
    torch.manual_seed(0)
    present = torch.tensor([[True, False], [True, True], [False, False]])
    sound, sight = tokens(2, present), tokens(1, torch.zeros(3, 1, dtype=torch.bool))
    heads = UnimodalHeads(("audio", "video"), {"a": 3, "b": 2}, n_dims=4)
    targets = {"a": torch.tensor([0, 1, 2]), "b": torch.tensor([1, UNKNOWN, 0])}
    alone = heads({"audio": sound, "video": sight}, targets, LossSettings())
    means = torch.stack([sound.values[0, 0], sound.values[1].mean(dim=0)])
    logits = heads.heads["audio"](means)
    a = cross_entropy(logits[:, :3], targets["a"][:2])
    b = cross_entropy(logits[:1, 3:], targets["b"][:1])
    torch.testing.assert_close(alone.losses["audio"], a + b)
    of_a = logits[:, :3].softmax(dim=1)
    expected = (of_a[0, 0] + of_a[1, 1]) / 2 + logits[0, 3:].softmax(dim=0)[1]
    torch.testing.assert_close(alone.scores["audio"], expected)
    assert alone.losses["video"] == alone.scores["video"] == 0
