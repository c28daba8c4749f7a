"""A run as a process: signals, a time limit, and what must be reachable at the start."""

import asyncio
import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Final, ParamSpec, TypeVar

from mmstream.errors import MmstreamError
from mmstream.runtime.local import LocalRuntime
from mmstream.sinks.own_thread import OwnThread

STRICT_SECS: Final = 10.0
"""With `strict`, everything must have been reached by then."""
SHUTDOWN_SECS: Final = 2.7
"""After a signal `serve` has returned by then, or the process is ended: the loop itself hangs."""
LAST_WORD_SECS: Final = 0.2
EXIT_INTERRUPTED: Final = 130
EXIT_TOO_LATE: Final = 1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_TERMINAL: Final = "/dev/tty"

_log = logging.getLogger(__name__)
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def new_boot_id() -> str:
    """A name for this boot: eight hexadecimal digits."""
    return secrets.token_hex(4)


async def serve(
    runtime: LocalRuntime, *, strict: bool = False, seconds: float | None = None
) -> None:
    """Run until all sources have ended, `seconds` are over, or SIGINT or SIGTERM comes.

    The first signal ends it cleanly, a second one at once. Failures of single sources are in
    `runtime.failures()`, not raised, unless `strict`. What the loop's default executor does when
    all has ended is not waited for. SIGHUP reads the configuration again where that can be done,
    unless it says that our terminal is gone: then it ends the run as the others do.

    Raises:
        UnreachableError: with `strict`, a source or broker could not be reached at the start.
        SinkError: a sink can never work.
        ScorerError: a scorer cannot be built or run.
    """
    loop = asyncio.get_running_loop()
    loop.set_default_executor(_Abandonable())
    deadline = threading.Timer(SHUTDOWN_SECS, _end_the_process)
    deadline.daemon = True
    for number in _SIGNALS:
        loop.add_signal_handler(number, _on_signal, runtime, deadline)
    if runtime.can_reload:
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup: it outlives it
        had_terminal = not is_ignored and _has_terminal()
        on_hangup = partial(_on_hangup, runtime, deadline, had_terminal=had_terminal)
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    timer = None if seconds is None else loop.call_later(seconds, runtime.stop)
    try:
        async with asyncio.TaskGroup() as group:
            if strict:
                group.create_task(runtime.started(STRICT_SECS), name="strict")
            await runtime.run()
    except BaseExceptionGroup as errors:
        raise _first_own(errors) from None
    finally:
        if timer is not None:
            timer.cancel()
        deadline.cancel()
        for number in (*_SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)


def _on_signal(runtime: LocalRuntime, deadline: threading.Timer) -> None:
    if deadline.ident is not None:  # it has been started: this is the second signal
        os._exit(EXIT_INTERRUPTED)
    deadline.start()
    runtime.stop()


def _on_hangup(runtime: LocalRuntime, deadline: threading.Timer, *, had_terminal: bool) -> None:
    if had_terminal and not _has_terminal():
        _on_signal(runtime, deadline)
    else:
        runtime.reload_soon()


def _has_terminal() -> bool:
    """Whether somebody's terminal controls us; it no longer does once its window is closed."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _end_the_process() -> None:
    last_word = "still not at an end %g s after the signal: ended by force"
    saying = OwnThread("last word").submit(partial(_log.error, last_word, SHUTDOWN_SECS))
    wait({saying}, LAST_WORD_SECS)  # the log may be what hangs
    os._exit(EXIT_TOO_LATE)


class _Abandonable(ThreadPoolExecutor):
    """Calls that may hang (a name server, a broker that answers nothing), each on a daemon thread.

    asyncio and Python join the threads of an ordinary pool before they end.
    """

    def submit(
        self,
        fn: Callable[_Parameters, _Result],
        /,
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> Future[_Result]:
        thread = OwnThread("beside")
        future = thread.submit(partial(fn, *args, **kwargs))
        thread.end()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - its signature
        """Leave them behind."""


def _first_own(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of ours in a group; else the first of any kind, which is a defect."""
    own = errors.subgroup(MmstreamError)
    group: BaseExceptionGroup[BaseException] = errors if own is None else own
    first = group.exceptions[0]
    return _first_own(first) if isinstance(first, BaseExceptionGroup) else first
