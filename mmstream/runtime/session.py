"""A run as a process: signals, a time limit, and what must be reachable at the start."""

import asyncio
import os
import secrets
import signal
import threading
from typing import Final

from mmstream.errors import MmstreamError
from mmstream.runtime.local import LocalRuntime

STRICT_SECS: Final = 10.0
"""With `strict`, everything must have been reached by then."""
SHUTDOWN_SECS: Final = 2.8
"""After a signal the process is gone by then, whatever hangs."""
EXIT_INTERRUPTED: Final = 130
EXIT_TOO_LATE: Final = 1


def new_boot_id() -> str:
    """A name for this boot: eight hexadecimal digits."""
    return secrets.token_hex(4)


async def serve(
    runtime: LocalRuntime, *, strict: bool = False, seconds: float | None = None
) -> None:
    """Run until all sources have ended, `seconds` are over, or SIGINT or SIGTERM comes.

    The first signal ends it cleanly, a second one at once. Failures of single sources are in
    `runtime.failures()`, not raised, unless `strict`.

    Raises:
        UnreachableError: with `strict`, a source or broker could not be reached at the start.
        SinkError: a sink can never work.
        ScorerError: a scorer cannot be built or run.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _on_signal, runtime)
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
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _on_signal(runtime: LocalRuntime) -> None:
    if runtime.stopping:
        os._exit(EXIT_INTERRUPTED)
    # Somebody who has stopped reading our pipe, or a disk that hangs, must not hold us up.
    deadline = threading.Timer(SHUTDOWN_SECS, os._exit, [EXIT_TOO_LATE])
    deadline.daemon = True
    deadline.start()
    runtime.stop()


def _first_own(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of ours in a group; else the first of any kind, which is a defect."""
    own = errors.subgroup(MmstreamError)
    group: BaseExceptionGroup[BaseException] = errors if own is None else own
    first = group.exceptions[0]
    return _first_own(first) if isinstance(first, BaseExceptionGroup) else first
