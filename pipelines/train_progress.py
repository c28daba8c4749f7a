"""What a person sees of a training: a bar on a terminal, and a line for each epoch anywhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from mmstream.training.history import EpochRecord
from mmstream.training.loop import StepRecord


@dataclass(frozen=True, slots=True)
class Shown:
    """One thing that goes on: the decoding of a row's data, its training, its test."""

    name: str
    progress: Progress
    task: TaskID

    def counted(self, n_done: int, n_all: int) -> None:
        """So many of so many."""
        self.progress.update(self.task, completed=n_done, total=n_all)

    def told(self, record: StepRecord | EpochRecord) -> None:
        """A step of a training on the bar, an epoch as a line."""
        if isinstance(record, EpochRecord):
            self.line(_epoch(record))
            return
        minutes, secs = divmod(round(record.eta_secs), 60)
        text = (
            f"loss {record.loss:.3f}, rate {record.learning_rate:.1e}, "
            f"{record.examples_per_sec:.0f} examples/s, {minutes}:{secs:02} left"
        )
        self.progress.update(
            self.task, completed=record.n_steps, total=record.n_steps_most, text=text
        )

    def line(self, text: str) -> None:
        """A line that stays."""
        console = self.progress.console
        console.print(f"{self.name}: {text}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def showing() -> Iterator[Callable[[str, str], Shown]]:
    """Gives what begins to show something, by the row it is of and what it is.

    All of it goes to standard error; the bar only where that is a terminal.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:

        def begin(name: str, what: str) -> Shown:
            for task in progress.task_ids:
                progress.remove_task(task)
            return Shown(name, progress, progress.add_task(f"{name}: {what}", total=None, text=""))

        yield begin


def _epoch(record: EpochRecord) -> str:
    accuracies = ", ".join(f"{task} {100 * one:.1f} %" for task, one in record.accuracy_val.items())
    return (
        f"epoch {record.epoch + 1}: loss {record.loss_train:.3f}, val {record.loss_val:.3f} "
        f"({accuracies}), rate {record.learning_rate:.1e}, {record.secs:.0f} s"
    )
