"""Ctrl-C is heard where it is asked for, and only there."""

import signal
import threading

import pytest

from mmstream.training.interrupt import Asked, noted_ctrl_c


def test_it_is_heard_where_it_is_asked_for() -> None:
    before = signal.getsignal(signal.SIGINT)
    with noted_ctrl_c() as check:
        check()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Asked):
            check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_other_threads_leave_it_to_the_main_one() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with noted_ctrl_c() as check:
            check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_where_it_is_ignored_it_stays_ignored() -> None:
    """As in a script's background job, which the terminal's Ctrl-C is not for."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noted_ctrl_c() as check:
            signal.raise_signal(signal.SIGINT)
            check()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
