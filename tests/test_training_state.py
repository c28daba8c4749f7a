"""What is kept is what was there, to the last bit, and is of one training only."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmstream.errors import ConfigError
from mmstream.training.schedule import Best
from mmstream.training.state import Position, State, Sums, alone, load, save

FINITE = st.floats(-1e300, 1e300)


@given(loss=FINITE, share=FINITE, best=FINITE, secs=st.floats(0, 1e300), step=st.integers(1, 9))
def test_numbers_are_the_same_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory,
    loss: float,
    share: float,
    best: float,
    secs: float,
    step: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "state.safetensors"
    position = Position(
        begun="x",
        epoch=2,
        step=step,
        n_steps=30,
        loss=loss,
        modalities={"audio": Sums(gradient_share=share)},
        secs=secs,
        best=Best(epoch=1, loss=best, accuracy=0.1),
    )
    weight = torch.tensor([loss, share]).float().nan_to_num()
    save(path, State(position, {"model.weight": weight, "optimiser.0.step": torch.tensor(3.0)}))
    found = load(path, "x")
    assert found.position == position
    assert torch.equal(found.tensors["model.weight"], weight)
    assert found.tensors["optimiser.0.step"].shape == ()


def test_the_beginning(tmp_path: Path) -> None:
    found = load(tmp_path / "state.safetensors", "x")
    assert found.position == Position(begun="x")
    assert found.tensors == {}
    assert found.position.means() == {}


def test_means_of_an_epoch() -> None:
    sums = Sums(loss=6.0, gradient_share=1.5, coefficient=2.0)
    means = Position(begun="x", step=3, modalities={"video": sums}).means()["video"]
    assert (means.loss, means.gradient_share) == (2, 0.5)
    assert means.coefficient == pytest.approx(2 / 3)


def test_what_is_damaged_or_of_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save(path, State(Position(begun="x"), {"model.weight": torch.ones(100)}))
    with pytest.raises(ConfigError, match="other settings or other data"):
        load(path, "y")
    whole = path.read_bytes()
    for damaged in (whole[:50], whole[:-9], b"", whole.replace(b"begun", b"bogus")):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="not the state of a training"):
            load(path, "x")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "row"
    with alone(folder):
        with pytest.raises(ConfigError, match=r"row: another process works there; wait"):
            alone(folder).__enter__()
        with alone(tmp_path / "other"):
            pass
    with alone(folder):
        pass


def test_a_position_is_known_without_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save(path, State(Position(begun="x", epoch=3), {"model.weight": torch.ones(2)}))
    found = load(path, "x", only_position=True)
    assert (found.position.epoch, found.tensors) == (3, {})
