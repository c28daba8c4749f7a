import pickle
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest

from mmstream.clock import ManualClock
from mmstream.detectors.looking import WHOLE, Heights
from mmstream.detectors.motion import MotionSettings
from mmstream.detectors.person import PERSON, PersonFinder, PersonSettings
from mmstream.detectors.presence import PresenceSettings
from mmstream.heads.events import EventHead
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import (
    NS_PER_SEC,
    Box,
    Bytes,
    Hop,
    Scores,
    SourceEnded,
    SourceStarted,
    Span,
    VideoFrame,
)
from mmstream.messages import Event
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.stages import Load

HOP_NS = NS_PER_SEC // 4
THREE_OF_FIVE = LabelSettings(on=0.5, off=0.35, for_secs=1.3, within_secs=2.5, min_off_secs=2.0)


def frames_of(path: Path, until_secs: float) -> list[VideoFrame]:
    media = MediaFile("cam", MediaSettings(url=str(path), pace="max"), ManualClock())
    with media.read() as items:
        frames = (item for item in items if isinstance(item, VideoFrame))
        return list(takewhile(lambda one: one.start_ns < until_secs * NS_PER_SEC, frames))


def watch(frames: Sequence[VideoFrame], settings: PersonSettings) -> list[Scores]:
    """As the worker has it: motion, presence, person."""
    silence, unheard = np.zeros(0, np.float32), np.zeros(0, np.bool_)
    scorers = [spec.build("cpu") for spec in (MotionSettings(), PresenceSettings(), settings)]
    scored = []
    for index in range(frames[-1].start_ns // HOP_NS + 1):
        span = Span(index * HOP_NS, (index + 1) * HOP_NS)
        inside = tuple(frame for frame in frames if span.contains(frame.start_ns))
        hop = Hop("cam", index, span, 16_000, silence, unheard, inside)
        said = Scores("cam", index, span)
        for scorer in scorers:
            (new,) = scorer.score([hop], [said], Load.FULL)
            said = Scores(
                "cam", index, span, {}, said.detections + new.detections, objects=new.objects
            )
        scored.append(said)
    return scored


def events_of(scored: Sequence[Scores]) -> list[Event]:
    """Those that are told, each as it ended."""
    head = EventHead(node="home", source="cam", labels=[PERSON], settings={"person": THREE_OF_FIVE})
    started = SourceStarted("cam", frozenset(["video"]), 0, None)
    items: list[SourceStarted | Scores | SourceEnded] = [started, *scored, SourceEnded("cam")]
    decided = [one for item in items for one in head.push(item)]
    ends = [one.content for one in decided if isinstance(one.content, Event)]
    return [event for event in ends if event.type == "end"]


def luma_at(path: Path, secs: float) -> Bytes:
    return frames_of(path, secs)[-1].image.luma


def best(luma: Bytes, region: Box = WHOLE) -> tuple[float, Box]:
    found = max(PersonFinder().find(luma, [region]), key=lambda one: one.score)
    return found.score, found.box


def test_who_fills_the_height_of_the_picture_is_found(data_dir: Path) -> None:
    luma = luma_at(data_dir / "surveillance" / "one_by_one_person.mp4", 12)
    score, box = best(luma)
    assert score > 0.9
    assert 0.4 < box.x + box.width / 2 < 0.7
    assert box.height > 0.7
    # A part of the picture that holds him gives the same.
    part, there = best(luma, Box(0.35, 0, 0.5, 1))
    assert part > 0.8
    assert abs(there.x - box.x) < 0.05


def test_people_of_a_third_of_the_height_are_found_and_not_where_nobody_looks(
    data_dir: Path,
) -> None:
    luma = luma_at(data_dir / "surveillance" / "pedestrians_pavement.mp4", 2)
    score, box = best(luma)
    assert score > 0.9
    assert 0.25 < box.height < 0.6
    far = Box(0.0 if box.x > 0.5 else 0.7, 0.7, 0.3, 0.3)
    found = PersonFinder().find(luma, [far])
    assert all(abs(one.box.x - box.x) > 0.05 for one in found)


@pytest.mark.parametrize("shape", [(90, 40), (240, 320), (568, 320), (1080, 960), (40, 400)])
def test_any_picture_can_be_searched_in_any_part(shape: tuple[int, int]) -> None:
    luma = np.random.default_rng(0).integers(16, 235, shape).astype(np.uint8)
    regions = [WHOLE, Box(0, 0, 0.01, 0.01), Box(0.99, 0.99, 0.01, 0.01), Box(0.5, 0, 0.02, 1)]
    for one in PersonFinder().find(luma, regions):
        assert 0 < one.score < 1
        assert one.box.width > 0


def test_only_the_size_that_is_asked_for_is_searched(data_dir: Path) -> None:
    luma = luma_at(data_dir / "surveillance/one_by_one_person.mp4", 15)
    finder = PersonFinder()
    small, large = Heights(0.3, 0.4), Heights(0.8, 1.0)
    apart = [len(finder.find(luma, [WHOLE], one)) for one in (small, large)]
    assert sum(apart) == len(finder.find(luma, [WHOLE]))
    assert apart[1] > 0
    assert finder.find(luma, [WHOLE], Heights(0.01, 0.1)) == []


def test_a_visit_is_an_event_with_its_place(data_dir: Path) -> None:
    path = data_dir / "surveillance" / "one_by_one_person.mp4"
    scored = watch(frames_of(path, 14), PersonSettings())
    events = events_of(scored)
    assert events
    assert 6 <= min(event.t_start for event in events) <= 9
    assert all(event.t_end is not None and event.t_end - event.t_start > 1 for event in events)
    assert all(event.evidence[0].box is not None for event in events)


def test_pedestrians_are_events_of_their_own(data_dir: Path) -> None:
    path = data_dir / "surveillance" / "pedestrians_pavement.mp4"
    events = events_of(watch(frames_of(path, 6), PersonSettings()))
    assert len(events) >= 2
    assert len({event.id for event in events}) == len(events)


@pytest.mark.parametrize(
    ("clip", "n_secs"),
    [("garden_brightness_change.avi", 9), ("car_detection.mp4", 9), ("vehicles_suburb.mp4", 9)],
)
def test_light_and_cars_are_no_people(data_dir: Path, clip: str, n_secs: float) -> None:
    scored = watch(frames_of(data_dir / "surveillance" / clip, n_secs), PersonSettings())
    assert events_of(scored) == []


def test_the_spec_can_be_sent_to_the_worker_and_says_its_label() -> None:
    spec = PersonSettings(looks_per_sec=1)
    sent = pickle.loads(pickle.dumps(spec))  # noqa: S301 - made here
    assert sent == spec
    assert [label.name for label in sent.labels] == ["person"]
