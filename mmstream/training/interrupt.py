"""Ctrl-C, asked for between two steps, where everything can be saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Asked(Exception):  # noqa: N818 - no error
    """Ctrl-C was pressed."""


@contextmanager
def noted_ctrl_c() -> Iterator[Callable[[], None]]:
    """What raises `Asked` once Ctrl-C was pressed; pressed again, it strikes at once.

    Outside of the main thread Ctrl-C is somebody else's, and where it is ignored (a script's
    background job) it stays ignored: then nothing is raised.
    """
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, _frame: FrameType | None) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    def check() -> None:
        if pressed:
            raise Asked

    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or before in (signal.SIG_IGN, None):
        yield check
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
