"""What can be set of a source: names, values, and what follows from them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from streams import BEEP, FLASH, HOP_NS, RATE_HZ, frame

from mmstream.errors import CommandError
from mmstream.heads.events import Tuning
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import Hop, Label, Span, StreamKind
from mmstream.runtime.features import FeatureSet, Filter, Value, features_of
from mmstream.store.overrides import Override

BOTH = Label("beep and flash", "av", "scripted")
LABELS = (BEEP, FLASH, BOTH)
NAMES = [
    *("enabled", "video", "audio", "beep", "flash", "beep_and_flash"),
    *("beep_threshold", "flash_threshold", "beep_and_flash_threshold"),
]


def features(labels: Sequence[Label] = LABELS, **values: Value) -> FeatureSet:
    return FeatureSet(tuple(labels), {label.name: 0.5 for label in labels}, values)


def overridden(feature: str, value: str) -> Override:
    return Override("cam", feature, value, 0, "mqtt")


def test_every_source_has_these_and_says_how_they_are_set() -> None:
    told = features(video=False, beep_threshold=0.25).message("cam")
    assert told.source == "cam"
    assert [one.name for one in told.features] == NAMES
    assert [one.text() for one in told.features] == [
        *("ON", "OFF", "ON", "ON", "ON", "ON", "0.25", "0.5", "0.5")
    ]
    assert [one.name for one in told.features if one.is_set] == ["video", "beep_threshold"]
    switch, number = told.features[1], told.features[6]
    assert (switch.value, switch.default, switch.min, switch.max) == ("OFF", "ON", None, None)
    assert (number.value, number.default, number.min, number.max) == (0.25, 0.5, 0.05, 1)


@pytest.mark.parametrize(
    ("feature", "said", "value"),
    [
        ("enabled", "OFF", False),
        ("beep", " on ", True),
        ("audio", False, False),
        ("beep_threshold", "0.05", 0.05),
        ("beep_threshold", 1, 1.0),
        ("beep_threshold", "0.123456", 0.1235),
        ("beep", "", None),
        ("beep_threshold", " ", None),
        ("beep_threshold", None, None),
    ],
)
def test_what_is_said_is_understood(feature: str, said: JsonValue, value: Value | None) -> None:
    understood = features().understood(feature, said)
    assert understood == value
    assert type(understood) is type(value)


@pytest.mark.parametrize(
    ("feature", "said", "error"),
    [
        ("dance", "ON", f"no feature 'dance'; there are: {', '.join(NAMES)}"),
        ("beep", "0.5", "beep cannot be '0.5'; allowed: ON, OFF, or nothing for what"),
        ("beep", 1, "beep cannot be 1; allowed: ON, OFF"),
        ("beep", "x" * 99, "beep cannot be 'xxxxxxxxx"),
        ("beep_threshold", "0.04", "beep_threshold cannot be '0.04'; allowed: 0.05 to 1, or"),
        ("beep_threshold", 1.01, "cannot be 1.01"),
        ("beep_threshold", "nan", "cannot be 'nan'"),
        ("beep_threshold", "ON", "cannot be 'ON'"),
        ("beep_threshold", True, "cannot be True"),
        ("beep_threshold", [0.5], "allowed: 0.05 to 1"),
        ("beep_threshold", 10**400, "allowed: 0.05 to 1"),
    ],
)
def test_what_cannot_be_says_what_can(feature: str, said: JsonValue, error: str) -> None:
    with pytest.raises(CommandError) as caught:
        features().understood(feature, said)
    assert error in str(caught.value)
    assert len(str(caught.value)) < 200


def test_what_the_configuration_says_can_be_set() -> None:
    settings = {"beep": LabelSettings(on=0.000012, off=0.00001), "flash": LabelSettings(on=1)}
    configured = features_of([BEEP, FLASH], settings)
    by_name = {one.name: one for one in configured.message("cam").features}
    for name in ("beep_threshold", "flash_threshold"):
        told = by_name[name]
        assert told.min is not None
        assert isinstance(told.default, float)
        assert told.min <= told.default
        for said in (told.default, told.min):
            assert configured.understood(name, f"{said:g}") == said
    assert by_name["flash_threshold"].min == 0.05
    with pytest.raises(CommandError, match=r"allowed: 1\.2e-05 to 1, or"):
        configured.understood("beep_threshold", 0.00001)
    with pytest.raises(CommandError, match=r"allowed: 0\.05 to 1, or"):
        configured.understood("flash_threshold", 0.04)


def test_a_label_that_would_take_the_topic_of_something_else_has_no_feature() -> None:
    taken = [Label(name, "audio", "scripted") for name in ("Status", "state", "video", "beep")]
    odd = features([*taken, Label("beep_threshold", "audio", "scripted")])
    names = [one.name for one in odd.message("cam").features]
    assert names == [
        *("enabled", "video", "audio", "beep", "beep_threshold"),
        *("status_threshold", "state_threshold", "video_threshold", "beep_threshold_threshold"),
    ]
    assert odd.with_value("beep_threshold", value=False).tuning("cam").thresholds == {}


@pytest.mark.parametrize(
    ("values", "silent"),
    [
        ({}, set()),
        ({"beep": False}, {"beep"}),
        ({"video": False}, {"flash", "beep and flash"}),
        ({"audio": False, "flash": False}, {"beep", "flash", "beep and flash"}),
        ({"audio": False, "beep": True}, {"beep", "beep and flash"}),
        ({"enabled": False}, set()),
    ],
)
def test_a_label_is_silent_when_it_or_what_it_needs_is_off(
    values: dict[str, Value], silent: set[str]
) -> None:
    assert replace(features(), values=values).tuning("cam") == Tuning("cam", frozenset(silent), {})


def test_thresholds_are_those_that_were_set() -> None:
    tuning = features(beep_and_flash_threshold=0.25).tuning("cam")
    assert dict(tuning.thresholds) == {"beep and flash": 0.25}


@given(st.sampled_from(NAMES), st.floats(0.05, 1))
def test_set_and_set_back_is_as_before(name: str, number: float) -> None:
    before = features(video=False, flash_threshold=0.75)
    value: Value = number if name.endswith("_threshold") else False
    changed = before.with_value(name, value)
    assert changed.values[name] == value
    assert changed.with_value(name, None).message("cam") == (
        before.with_value(name, None).message("cam")
    )


def test_what_was_set_before_is_taken_up_as_far_as_it_is_there() -> None:
    settings = {"beep": LabelSettings(on=0.75)}
    configured = features_of([BEEP, FLASH], settings)
    kept = [overridden("beep", "OFF"), overridden("person", "OFF"), overridden("video", "maybe")]
    assert configured.with_overrides(kept).values == {"beep": False}
    assert configured.text("beep_threshold") == "0.75"
    assert configured.text("flash_threshold") == "0.5"


def whole(index: int) -> Hop:
    ones = np.ones(4, np.float32), np.ones(4, np.bool_)
    span = Span(index * HOP_NS, (index + 1) * HOP_NS)
    return Hop("cam", index, span, RATE_HZ, *ones, (frame(span.start_ns),))


def seen(hop: Hop) -> tuple[int, float, int, bool]:
    """Pictures, sound, samples that were heard, gap."""
    return len(hop.frames), float(hop.samples.sum()), int(hop.heard.sum()), hop.gap_before


def test_what_is_ignored_is_not_in_the_hops_and_comes_back_behind_a_gap() -> None:
    passing = Filter()
    told: list[tuple[int, float, int, bool]] = []
    streams: tuple[tuple[StreamKind, ...], ...] = ((), ("video",), ("video", "audio"), ("audio",))
    for index, ignored in enumerate((*streams, ())):
        passing.ignored = frozenset(ignored)
        told += [seen(hop) for hop in passing.pass_on([whole(2 * index), whole(2 * index + 1)])]
    assert told == [
        *[(1, 4.0, 4, False), (1, 4.0, 4, False)],
        *[(0, 4.0, 4, False), (0, 4.0, 4, False)],
        *[(0, 0.0, 0, False), (0, 0.0, 0, False)],
        *[(1, 0.0, 0, True), (1, 0.0, 0, False)],
        *[(1, 4.0, 4, True), (1, 4.0, 4, False)],
    ]


def test_what_is_used_is_passed_on_untouched() -> None:
    hop = whole(0)
    assert Filter().pass_on([hop])[0] is hop


def test_a_label_that_is_taught_can_be_set_like_any_other() -> None:
    before = features([BEEP], beep=False)
    after = before.with_labels([BEEP, FLASH])
    assert [one.name for one in after.message("cam").features] == [
        *("enabled", "video", "audio", "beep", "flash", "beep_threshold", "flash_threshold")
    ]
    assert after.understood("flash_threshold", "0.6") == 0.6
    assert after.with_value("video", value=False).tuning("cam").silent == {"beep", "flash"}
    assert after.with_labels([FLASH]) is after
