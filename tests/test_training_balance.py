"""The equations of Peng et al. 2022, by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmstream.training.balance import BalanceSettings, add_spread, coefficients, gradient_norms

OGM = BalanceSettings(type="ogm", alpha=0.5)


def test_the_one_ahead_is_held_back() -> None:
    ks = coefficients({"audio": 0.6, "video": 0.2}, OGM)
    assert ks == {"audio": pytest.approx(1 - math.tanh(0.5 * 3)), "video": 1}
    assert coefficients({"audio": 0.6, "video": 0.2}, BalanceSettings()) == {"audio": 1, "video": 1}


def test_of_three_each_is_compared_with_the_mean_of_the_others() -> None:
    ks = coefficients({"audio": 0.6, "video": 0.2, "text": 0.4}, OGM)
    assert ks["audio"] == pytest.approx(1 - math.tanh(0.5 * 2))
    assert (ks["video"], ks["text"]) == (1, 1)


def test_who_is_not_there_or_is_alone_is_not_compared() -> None:
    assert coefficients({"audio": 0.6, "video": 0.0}, OGM) == {"audio": 1, "video": 1}
    assert coefficients({"audio": 0.6}, OGM) == {"audio": 1}
    assert coefficients({"audio": 0.0}, OGM) == {"audio": 1}


@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_at_most_one_of_two_is_held_back_and_the_more_the_further_ahead(a: float, v: float) -> None:
    ks = coefficients({"audio": a, "video": v}, OGM)
    assert max(ks.values()) == 1
    assert all(0 <= k <= 1 for k in ks.values())
    assert (ks["audio"] < 1) == (a > v)
    further = coefficients({"audio": 2 * a, "video": v}, OGM)
    assert further["audio"] <= ks["audio"]


def test_norms_and_spread_of_gradients() -> None:
    torch.manual_seed(0)
    encoder, idle = nn.Linear(300, 200), nn.Linear(2, 2)
    before = torch.randn(200, 300) * 0.1
    encoder.weight.grad, encoder.bias.grad = before.clone(), torch.full((200,), 0.5)
    norms = gradient_norms({"audio": encoder, "video": idle})
    expected = (before.square().sum() + 200 * 0.25).sqrt()
    torch.testing.assert_close(norms["audio"], expected)
    assert norms["video"] == 0
    add_spread({"audio": encoder, "video": idle})
    added = encoder.weight.grad - before
    assert float(added.std()) == pytest.approx(float(before.std()), rel=0.02)
    assert float(added.mean()) == pytest.approx(0, abs=1e-3)
    assert bool((encoder.bias.grad == 0.5).all())
    assert idle.weight.grad is None
