"""A process of its own for code that holds the interpreter's lock too long.

A fresh interpreter, neither forked nor told of `__main__`: it works the same under a console
script, a script and a test. It has a session of its own, so Ctrl-C at the terminal is not its
business, and it ends when its pipe does: also when its parent was killed. One that hangs does not
look at its pipe: Linux kills it when the thread that started it is gone.
"""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Final, Generic, TypeVar

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")

_GRACE_SECS: Final = 2.0
_HANGS_SECS: Final = 120.0
"""An answer never takes so long."""
_PR_SET_PDEATHSIG: Final = 1
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ChildLostError(Exception):
    """The process ended, or never came up; what it knew is lost."""


class Spawned(Generic[_Question, _Answer]):
    """A process that runs a module, which must call `serve`; used on one thread."""

    def __init__(self, module: str) -> None:
        """Start it; whether it came up shows with the first question."""
        ours, theirs = Pipe()
        environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=environment,
            )
        self._pipe = ours

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, question: _Question) -> _Answer:
        """Send a question and wait for its answer, other threads going on.

        Raises:
            ChildLostError: it is gone.
        """
        try:
            self._pipe.send(question)
            if not self._pipe.poll(_HANGS_SECS):
                self._process.kill()
            answer: _Answer = self._pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            msg = f"its process ended (status {self._process.poll()})"
            raise ChildLostError(msg) from error
        return answer

    def close(self) -> None:
        """Let it end; one that is busy for too long is killed."""
        self._pipe.close()
        try:
            self._process.wait(_GRACE_SECS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(answer: Callable[[_Question], _Answer]) -> None:
    """In the child: answer what the parent asks, until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with Connection(int(sys.argv[1])) as pipe:
        while True:
            try:
                pipe.send(answer(pipe.recv()))
            except (EOFError, OSError):
                return
