from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmstream.errors import ConfigError, SinkError
from mmstream.training.predictions import Predictions, load, paired_bootstrap, pooled, save


def _predictions(truth: list[int], said: list[int], *, sure: float = 0.8) -> Predictions:
    """Of three classes; `sure` of what is said, the rest spread evenly."""
    n = len(truth)
    probabilities = np.full((n, 3), (1 - sure) / 2, np.float32)
    probabilities[np.arange(n), said] = sure
    return Predictions(
        task="pet",
        classes=("cat", "dog", "rat"),
        indices=np.arange(n),
        truth=np.array(truth),
        probabilities=probabilities,
        modalities=("audio", "video"),
        gates=np.tile(np.array([0.25, 0.75], np.float32), (n, 1)),
    )


def _answers(correct: NDArray[np.bool_]) -> Predictions:
    return _predictions([0] * len(correct), [0 if right else 1 for right in correct])


def test_figures_of_four_answers() -> None:
    four = _predictions([0, 1, 2, 2], [0, 1, 2, 0])
    assert four.accuracy == 0.75
    assert four.standard_error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert four.cross_entropy == pytest.approx(-(3 * np.log(0.8) + np.log(0.1)) / 4, rel=1e-6)
    assert four.confidence == pytest.approx(0.8)
    assert four.mean_gates == (0.25, 0.75)
    assert four.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]


def test_a_probability_of_zero_for_the_truth_is_a_finite_loss() -> None:
    assert _predictions([0], [1], sure=1.0).cross_entropy == pytest.approx(-np.log(1e-12))


@pytest.mark.parametrize(
    "change",
    [
        {"truth": np.array([0, 3])},
        {"truth": np.array([0, -100])},
        {"truth": np.array([0])},
        {"indices": np.array([4, 4])},
        {"probabilities": np.full((2, 2), 0.5, np.float32)},
        {"probabilities": np.full((2, 3), np.nan, np.float32)},
        {"gates": np.ones((2, 3), np.float32)},
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(
    change: dict[str, NDArray[np.generic]],
) -> None:
    with pytest.raises(ValueError, match="got"):
        replace(_predictions([0, 1], [0, 1]), **change)  # type: ignore[arg-type]  # by name


def test_no_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="need examples"):
        _predictions([], [])


@pytest.mark.parametrize("gated", [True, False])
def test_what_is_saved_comes_back(tmp_path: Path, *, gated: bool) -> None:
    one = _predictions([0, 1, 2], [0, 0, 2])
    one = one if gated else replace(one, gates=None)
    save(tmp_path / "deep" / "test.safetensors", one)
    other = load(tmp_path / "deep" / "test.safetensors")
    assert (other.task, other.classes, other.modalities) == (one.task, one.classes, one.modalities)
    assert np.array_equal(other.probabilities, one.probabilities)
    assert other.probabilities.dtype == np.float32
    assert (other.gates is None) is not gated
    assert np.array_equal(other.truth, one.truth)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path)
    save(path, _predictions([0], [0]))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="not the predictions"):
        load(path)


def test_the_bootstrap_agrees_with_the_textbook() -> None:
    """For many examples the interval is the difference and 1.96 standard errors either way."""
    rng = np.random.default_rng(0)
    a, b = rng.random(2_000) < 0.9, rng.random(2_000) < 0.85
    found = paired_bootstrap(_answers(a), _answers(b), seed=1)
    each = a.astype(float) - b
    reach = 1.96 * each.std() / len(each) ** 0.5
    assert found.difference == pytest.approx(each.mean())
    assert found.low == pytest.approx(each.mean() - reach, abs=0.002)
    assert found.high == pytest.approx(each.mean() + reach, abs=0.002)
    assert found.clear
    assert paired_bootstrap(_answers(a), _answers(b), seed=1) == found


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20), st.randoms())
def test_the_order_of_examples_does_not_matter(
    answers: list[tuple[bool, bool]],
    shuffle: Random,
) -> None:
    a, b = (_answers(np.array([pair[i] for pair in answers])) for i in range(2))
    order = list(range(len(answers)))
    shuffle.shuffle(order)
    mixed = replace(
        b,
        indices=b.indices[order],
        truth=b.truth[order],
        probabilities=b.probabilities[order],
    )
    found = paired_bootstrap(a, b, seed=0)
    assert paired_bootstrap(a, mixed, seed=0) == found
    assert found.low <= found.difference <= found.high
    assert paired_bootstrap(a, a, seed=0).difference == 0


def test_pooled_predictions_are_those_of_one_larger_test() -> None:
    one, other = _predictions([0, 1, 2], [0, 0, 0]), _predictions([0, 1, 2, 2], [0, 1, 2, 2])
    both = pooled([one, other])
    assert (len(both), both.accuracy) == (7, 5 / 7)
    assert np.array_equal(both.confusion, one.confusion + other.confusion)
    assert both.mean_gates == (0.25, 0.75)
    assert len(np.unique(both.indices)) == 7
    found = paired_bootstrap(both, pooled([_predictions([0, 1, 2], [0, 1, 2]), other]), seed=0)
    assert found.difference == pytest.approx(-2 / 7)
    for strange in (replace(other, gates=None), replace(other, task="other")):
        with pytest.raises(ValueError, match="pooled are predictions of one task"):
            pooled([one, strange])


def test_other_examples_or_another_truth_are_not_compared() -> None:
    one = _predictions([0, 1], [0, 1])
    for other in (
        replace(one, indices=np.array([0, 2])),
        replace(one, truth=np.array([0, 2])),
        replace(one, task="other"),
    ):
        with pytest.raises(ValueError, match="not the same examples"):
            paired_bootstrap(one, other, seed=0)


def test_two_may_write_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, one = tmp_path / "said.safetensors", _predictions([0, 1], [0, 2])
    rename = Path.replace

    def meanwhile(self: Path, target: Path) -> Path:
        monkeypatch.undo()
        save(path, one)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    save(path, one)
    assert load(path).truth.tolist() == [0, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_what_there_is_no_room_for_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(SinkError, match="cannot be written: No space left on device"):
            save(tmp_path / "said.safetensors", _predictions([0], [0]))
    assert not list(tmp_path.iterdir())
