"""The learning rate rises, then falls along a cosine; and it is over when nothing gets better."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.training.schedule import Best, OptimiseSettings, better, is_over, learning_rate


@given(st.floats(0, 0.9), st.integers(1, 300))
def test_it_rises_to_its_peak_then_falls_to_nearly_nothing(warm_up: float, n_steps: int) -> None:
    settings = OptimiseSettings(learning_rate=2.0, warm_up=warm_up)
    rates = [learning_rate(settings, step=step, n_steps=n_steps) for step in range(n_steps)]
    n_warm_up = math.ceil(warm_up * n_steps)
    assert all(0 < rate <= 2.0 for rate in rates)
    assert rates[:n_warm_up] == sorted(rates[:n_warm_up])
    assert rates[n_warm_up:] == sorted(rates[n_warm_up:], reverse=True)
    assert rates[max(0, n_warm_up - 1)] == pytest.approx(2.0)


def test_the_middle_of_the_fall_is_half() -> None:
    settings = OptimiseSettings(learning_rate=1.0, warm_up=0.1)
    assert learning_rate(settings, step=0, n_steps=100) == pytest.approx(0.1)
    assert learning_rate(settings, step=10, n_steps=100) == pytest.approx(1.0)
    assert learning_rate(settings, step=55, n_steps=100) == pytest.approx(0.5)
    assert learning_rate(settings, step=99, n_steps=100) == pytest.approx(0, abs=1e-3)


def test_which_epoch_is_better() -> None:
    first = Best(epoch=0, loss=0.5, accuracy=0.8)
    lower = Best(epoch=1, loss=0.4, accuracy=0.7)
    by_loss, by_accuracy = OptimiseSettings(watch="loss"), OptimiseSettings(watch="accuracy")
    assert better(by_loss, lower, first)
    assert not better(by_loss, first, lower)
    assert better(by_accuracy, first, lower)
    assert not better(by_accuracy, lower, first)
    assert not better(by_loss, first.model_copy(update={"epoch": 3}), first)
    assert not better(by_accuracy, first.model_copy(update={"epoch": 3}), first)


def test_when_it_is_over() -> None:
    settings = OptimiseSettings(n_epochs=10, patience=2)
    best = Best(epoch=3, loss=0.5, accuracy=0.8)
    # The best was 3; 4 and 5 are allowed to be worse.
    assert [is_over(settings, best, epoch=epoch) for epoch in (4, 5, 6)] == [False, False, True]
    assert not is_over(settings, None, epoch=9)
    assert is_over(settings, None, epoch=10)
