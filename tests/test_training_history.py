from pathlib import Path

import pytest

from mmstream.errors import ConfigError
from mmstream.training.history import EpochRecord, ModalityRecord, append, read


def _record(epoch: int, loss: float = 1.0) -> EpochRecord:
    share = ModalityRecord(loss=0.5, gradient_share=0.25, coefficient=1.0)
    return EpochRecord(
        epoch=epoch,
        n_steps=10 * (epoch + 1),
        secs=1.5,
        learning_rate=1e-3,
        loss_train=loss,
        loss_val=loss / 2,
        accuracy_val={"digit": 0.5},
        modalities={"audio": share, "video": share},
    )


def test_epochs_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "run" / "history.jsonl"
    records = tuple(_record(epoch) for epoch in range(3))
    for record in records:
        append(path, record)
    assert read(path) == records
    assert [file.name for file in path.parent.iterdir()] == ["history.jsonl"]


def test_what_a_crash_left_beyond_the_checkpoint_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for epoch in range(4):
        append(path, _record(epoch, loss=9.0))
    append(path, _record(2, loss=1.0))
    assert [(one.epoch, one.loss_train) for one in read(path)] == [(0, 9.0), (1, 9.0), (2, 1.0)]


@pytest.mark.parametrize("line", ["{", '{"epoch": 1}', '{"epoch": NaN}', ""])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history.jsonl"
    append(path, _record(0))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ConfigError, match=r"history\.jsonl:2: not an epoch"):
        read(path)


def test_no_file_and_no_text_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "some.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no UTF-8 text"):
        read(tmp_path / "some.jsonl")


def test_no_loss_that_is_no_number_is_recorded() -> None:
    with pytest.raises(ValueError, match="finite"):
        _record(0, loss=float("nan"))
