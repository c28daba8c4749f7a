"""What time it is for how old stored things are, whatever happens to the clock."""

from mmstream.clock import ManualClock
from mmstream.media import NS_PER_SEC
from mmstream.sinks.spool_calendar import STEADY_NS, Calendar
from mmstream.store.eviction import CLOCK_SET_NS

NOW_NS = CLOCK_SET_NS + 600 * 86_400 * NS_PER_SEC
DAY_NS = 86_400 * NS_PER_SEC


class Clock(ManualClock):
    """One that somebody may set."""

    def set_to(self, utc_ns: int) -> None:
        self._utc_ns = utc_ns


def test_a_clock_that_is_set_is_followed() -> None:
    clock = Clock(utc_ns=NOW_NS)
    calendar = Calendar(clock, newest_ns=NOW_NS + DAY_NS)
    assert (calendar.now_ns(), calendar.step_ns()) == (NOW_NS, 0)
    clock.advance(60)
    assert (calendar.now_ns(), calendar.step_ns()) == (NOW_NS + 60 * NS_PER_SEC, 0)
    clock.set_to(NOW_NS - DAY_NS)
    assert calendar.step_ns() == -DAY_NS - 60 * NS_PER_SEC
    calendar.follow(calendar.step_ns(), is_large=False)
    assert (calendar.now_ns(), calendar.step_ns()) == (NOW_NS - DAY_NS, 0)


def test_until_the_clock_is_set_time_goes_on_from_what_was_stored_last() -> None:
    clock = Clock(utc_ns=5 * NS_PER_SEC)
    calendar = Calendar(clock, newest_ns=NOW_NS)
    clock.advance(10)
    assert (calendar.now_ns(), calendar.step_ns()) == (NOW_NS + 10 * NS_PER_SEC, 0)
    clock.set_to(NOW_NS + DAY_NS)
    assert calendar.step_ns() == DAY_NS - 10 * NS_PER_SEC


def test_a_clock_that_loses_its_time_changes_nothing() -> None:
    clock = Clock(utc_ns=NOW_NS)
    calendar = Calendar(clock, newest_ns=0)
    clock.set_to(0)
    clock.advance(10)
    assert (calendar.now_ns(), calendar.step_ns()) == (NOW_NS + 10 * NS_PER_SEC, 0)


def test_ages_are_known_by_a_clock_that_was_left_alone() -> None:
    clock = Clock(utc_ns=NOW_NS)
    calendar = Calendar(clock, newest_ns=0)
    for is_large, is_steady in ((True, False), (False, True)):
        clock.advance(STEADY_NS / NS_PER_SEC)
        assert calendar.is_steady
        calendar.follow(DAY_NS, is_large=is_large)
        assert calendar.is_steady is is_steady
