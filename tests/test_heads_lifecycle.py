"""The life of one thing, and the settings that decide on it; more in test_heads_events.py."""

import pytest
from pydantic import ValidationError
from streams import ms

from mmstream.heads.lifecycle import MAX_HOLD_NS, LabelSettings, Lifecycle


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"on": 0.3, "off": 0.4}, "off 0.4 lies above on 0.3"),
        ({"for_secs": 2, "within_secs": 1}, "for_secs 2.0 does not fit into within_secs 1.0"),
        ({"on": 0}, "greater than 0"),
        ({"update_secs": 0}, "greater than or equal to 0.1"),
        ({"unknown": 1}, "not permitted"),
    ],
)
def test_settings_have_limits(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LabelSettings.model_validate(wrong)


def test_what_was_never_on_becomes_idle_when_it_can_no_longer_count() -> None:
    life = Lifecycle(LabelSettings(for_secs=1, within_secs=2))
    assert life.is_idle()
    life.see(0, 0.9)
    assert not life.is_idle()
    life.advance(MAX_HOLD_NS + ms(2000))
    assert not life.is_idle()
    life.advance(MAX_HOLD_NS + ms(2001))
    assert life.is_idle()


def test_what_is_open_is_not_idle() -> None:
    life = Lifecycle(LabelSettings(for_secs=0, min_off_secs=10))
    assert [step.type for step in life.see(0, 0.9)] == ["start"]
    life.advance(ms(9000))
    assert not life.is_idle()
    assert [step.type for step in life.advance(ms(11_000))] == ["end"]
    assert life.is_idle()


def test_after_closing_it_is_idle_and_says_nothing_more() -> None:
    life = Lifecycle(LabelSettings(for_secs=0))
    life.see(0, 0.9)
    assert [step.end_reason for step in life.close("shutdown")] == ["shutdown"]
    assert life.is_idle()
    assert life.close("shutdown") == []
    assert life.advance(ms(60_000)) == []


@pytest.mark.parametrize(("on", "off"), [(0.5, 0.35), (0.25, 0.175), (1.0, 0.7), (0.05, 0.035)])
def test_another_threshold_keeps_the_ratio_so_that_events_still_end(on: float, off: float) -> None:
    settings = LabelSettings(for_secs=0.1, min_off_secs=3).at(on)
    assert settings.on == on
    assert settings.off == pytest.approx(off)
    assert (settings.for_secs, settings.min_off_secs) == (0.1, 3)


@pytest.mark.parametrize("on", [0, 1.01, float("nan")])
def test_no_threshold_lies_outside(on: float) -> None:
    with pytest.raises(ValueError, match="lies in"):
        LabelSettings().at(on)


def test_what_counted_by_another_threshold_counts_no_more() -> None:
    life = Lifecycle(LabelSettings(on=0.2, off=0.1, for_secs=0.2))
    life.see(0, 0.3)
    life.advance(ms(150))
    life.tune(LabelSettings(on=0.8, off=0.4, for_secs=0.2))
    life.see(ms(150), 0.9)
    assert life.advance(ms(300)) == []
    [step] = life.advance(ms(350))
    assert (step.type, step.start_ns) == ("start", ms(150))


def test_a_score_for_a_time_before_the_start_does_not_end_it_before_it_began() -> None:
    life = Lifecycle(LabelSettings(for_secs=0, min_off_secs=0))
    (start,) = life.see(ms(1000), 0.9)
    life.see(ms(900), 0.4)
    (end,) = life.see(ms(950), 0.1) + life.advance(ms(2000))
    assert (end.type, end.end_ns) == ("end", start.start_ns)
