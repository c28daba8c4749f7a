"""Work beside the loop: in order, with its result or error, and never joined at exit."""

import asyncio
import subprocess
import sys
import threading
from functools import partial

import pytest

from mmstream.sinks.own_thread import OwnThread


def test_work_is_done_in_order_on_one_named_thread() -> None:
    names: list[str] = []
    thread = OwnThread("disk")

    def work(n: int) -> int:
        names.append(threading.current_thread().name)
        return n

    async def scenario() -> list[int]:
        return await asyncio.gather(*(thread.do(partial(work, n)) for n in range(20)))

    assert asyncio.run(scenario()) == list(range(20))
    assert names == ["disk"] * 20
    thread.end()


def test_an_error_is_raised_to_who_waits_and_the_next_work_is_done() -> None:
    thread = OwnThread("disk")

    async def scenario() -> int:
        with pytest.raises(ZeroDivisionError):
            await thread.do(lambda: 1 // 0)
        return await thread.do(lambda: 7)

    assert asyncio.run(scenario()) == 7
    thread.end()


def test_what_was_given_up_before_it_began_is_not_done() -> None:
    thread, let_go = OwnThread("disk"), threading.Event()
    first, second = thread.submit(lambda: let_go.wait(10)), thread.submit(lambda: 1)
    assert second.cancel()
    let_go.set()
    assert first.result(10)
    assert thread.submit(lambda: 2).result(10) == 2
    thread.end()


def test_a_thread_that_hangs_does_not_hold_up_the_exit() -> None:
    script = (
        "import threading\n"
        "from mmstream.sinks.own_thread import OwnThread\n"
        "OwnThread('disk').submit(threading.Event().wait)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=20, check=False).returncode == 0
