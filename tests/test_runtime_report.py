"""Counters of stages as `stats` tells them."""

from mmstream.metrics import StageMetrics
from mmstream.runtime.report import reports


def test_stages_of_one_name_are_told_as_one() -> None:
    one, two = StageMetrics("capture/desk"), StageMetrics("capture/desk")
    one.n_in, two.n_in = 3, 4
    two.drop("late", 2)
    [(name, told)] = reports((one, two), {"capture/desk": 12.5}).items()
    assert (name, told.n_in, told.dropped, told.lag_ms) == ("capture/desk", 7, {"late": 2}, 12.5)
    assert told.realtime_factor is None


def test_the_slowest_says_how_fast_speech_is_understood() -> None:
    stages = [StageMetrics("speech_to_text") for _ in range(3)]
    stages[0].realtime_factor, stages[1].realtime_factor = 0.2, 0.4
    assert reports(stages, {})["speech_to_text"].realtime_factor == 0.4


def test_the_largest_real_time_factor_of_a_name_is_told() -> None:
    fast, slow, other = StageMetrics("words"), StageMetrics("words"), StageMetrics("other")
    fast.realtime_factor, slow.realtime_factor = 0.25, 1.5
    told = reports([fast, slow, other], {})
    assert (told["words"].realtime_factor, told["other"].realtime_factor) == (1.5, None)
