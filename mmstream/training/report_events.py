"""The history of a training for TensorBoard, epoch by epoch: `tensorboard --logdir FOLDER`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from torch.utils.tensorboard import SummaryWriter

from mmstream.training.history import EpochRecord

_FILES: Final = "events.out.tfevents.*"


class EventLog:
    """Writes epochs as TensorBoard shows them; the number of the epoch, from 1, is the step."""

    def __init__(self, writer: SummaryWriter) -> None:
        """Go on where `writer` is."""
        self._writer = writer

    def add(self, record: EpochRecord) -> None:
        """One epoch; it can be seen at once."""
        values = {
            "loss/train": record.loss_train,
            "loss/val": record.loss_val,
            "learning rate": record.learning_rate,
            **{f"accuracy/{task}": share for task, share in record.accuracy_val.items()},
        }
        for modality, one in record.modalities.items():
            values[f"loss by modality/{modality}"] = one.loss
            values[f"gradient share/{modality}"] = one.gradient_share
            values[f"balancing coefficient/{modality}"] = one.coefficient
        for name, value in values.items():
            self._writer.add_scalar(name, value, record.epoch + 1)
        self._writer.flush()


@contextmanager
def event_log(folder: Path, before: Sequence[EpochRecord] = ()) -> Iterator[EventLog]:
    """A log in `folder` that begins with what was `before`; those that were there are replaced."""
    for path in folder.glob(_FILES):
        path.unlink()
    with SummaryWriter(str(folder)) as writer:
        log = EventLog(writer)
        for record in before:
            log.add(record)
        yield log
