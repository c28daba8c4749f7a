"""Episodes of few shots are fair: nothing is asked that was cut from what was taught."""

from pathlib import Path

import numpy as np
import pytest

from mmstream.benchmarks.train.few_shot import N_SHOTS, Clip, Episode, accuracy, episodes, said

CLASSES = ("rain", "rooster")


def clips() -> list[Clip]:
    """12 of each of three classes, two cut from each recording."""
    names = [*CLASSES, "other"]
    return [Clip(Path(f"{n}.ogg"), names[n % 3], f"{n % 3}-{n // 6}") for n in range(36)]


def test_no_query_is_from_a_recording_that_was_taught() -> None:
    every = clips()
    for episode in episodes(every, CLASSES, 20):
        for label, places in zip(CLASSES, episode.shots, strict=True):
            assert len(set(places)) == N_SHOTS
            assert {every[place].label for place in places} == {label}
        heard = {every[place].recording for places in episode.shots for place in places}
        assert episode.queries
        assert not heard & {every[place].recording for place in episode.queries}
        assert {every[place].label for place in episode.queries} <= set(CLASSES)


def test_episodes_are_the_same_each_time() -> None:
    assert list(episodes(clips(), CLASSES, 5)) == list(episodes(clips(), CLASSES, 5))


@pytest.mark.parametrize("by_angle", [True, False])
def test_what_is_nearest_is_right(by_angle: bool) -> None:  # noqa: FBT001 - pytest's
    values = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [0.9, 0.2], [0.8, 0.6]], np.float32)
    true = np.array([0, 0, 1, 1, 0, 1], np.float32)
    episode = Episode(((0, 1), (2, 3)), (4, 5))
    assert accuracy(episode, values, true, by_angle=by_angle) == 0.5


def test_the_interval_is_of_the_mean() -> None:
    rates = np.array([0.4, 0.6] * 50, np.float32)
    assert said(rates).startswith("50.0 % +- 2.0 (95 % of episodes from 40 to 60 %)")
