import pickle
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmstream.clock import ManualClock
from mmstream.codecs import image_from_array
from mmstream.detectors import face
from mmstream.detectors.face import FACE, FaceFinder, FaceSettings
from mmstream.detectors.looking import WHOLE
from mmstream.errors import ScorerError
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
TWICE = LabelSettings(on=0.5, off=0.35, for_secs=0.8, within_secs=2.0, min_off_secs=2.0)


def frames_of(path: Path) -> list[VideoFrame]:
    media = MediaFile("cam", MediaSettings(url=str(path), pace="max"), ManualClock())
    with media.read() as items:
        return [item for item in items if isinstance(item, VideoFrame)]


def still(luma: Bytes, secs: float, fps: int = 10) -> list[VideoFrame]:
    image = image_from_array(luma, "gray")
    return [VideoFrame("cam", n * NS_PER_SEC // fps, image) for n in range(round(secs * fps))]


def watch(frames: Sequence[VideoFrame], settings: FaceSettings | None = None) -> list[Scores]:
    """As where neither motion nor presence see anything."""
    silence, unheard = np.zeros(0, np.float32), np.zeros(0, np.bool_)
    scorer = (settings or FaceSettings()).build("cpu")
    scored: list[Scores] = []
    for index in range(frames[-1].start_ns // HOP_NS + 1):
        span = Span(index * HOP_NS, (index + 1) * HOP_NS)
        inside = tuple(frame for frame in frames if span.contains(frame.start_ns))
        hop = Hop("cam", index, span, 16_000, silence, unheard, inside)
        scored += scorer.score([hop], [Scores("cam", index, span)], Load.FULL)
    return scored


def events_of(scored: Sequence[Scores]) -> list[Event]:
    """Those that are told, each as it ended."""
    head = EventHead(node="home", source="cam", labels=[FACE], settings={"face": TWICE})
    started = SourceStarted("cam", frozenset(["video"]), 0, None)
    items: list[SourceStarted | Scores | SourceEnded] = [started, *scored, SourceEnded("cam")]
    decided = [one for item in items for one in head.push(item)]
    ends = [one.content for one in decided if isinstance(one.content, Event)]
    return [event for event in ends if event.type == "end"]


def centre(box: Box) -> tuple[float, float]:
    return box.x + box.width / 2, box.y + box.height / 2


@pytest.mark.parametrize(
    "clip",
    ["bbaf2n.mpg", "lbax4n.mpg", "lrwp9a.mpg", "pwij3p.mpg", "sbia1a.mpg", "swiz3n.mpg"],
)
def test_who_sits_before_the_camera_from_the_start_is_one_event(data_dir: Path, clip: str) -> None:
    (event,) = events_of(watch(frames_of(data_dir / "grid_speakers" / clip)))
    assert event.t_start < 0.1
    assert event.t_end is not None
    assert event.t_end > 2.8
    box = event.evidence[0].box
    assert box is not None
    assert 0.3 < box.height < 0.8
    assert 0.3 < box.x + box.width / 2 < 0.7


@pytest.mark.parametrize("clip", ["bbaf2n.mp4", "bbal6n.mp4"])
def test_close_ups_are_faces(data_dir: Path, clip: str) -> None:
    (event,) = events_of(watch(frames_of(data_dir / "grid_s1" / "clips" / clip)))
    assert event.t_start < 0.1


def test_a_face_is_found_where_it_is_at_any_size_that_is_asked_for(data_dir: Path) -> None:
    luma = frames_of(data_dir / "av_clips" / "face_office_1s.mp4")[0].image.luma
    (whole,) = (one for one in FaceFinder(0.2).find(luma, [WHOLE]) if one.score >= 0.5)
    height, width = luma.shape
    small = np.full_like(luma, 90)
    third = cv2.resize(luma, (width // 3, height // 3), interpolation=cv2.INTER_AREA)
    small[height // 3 : height // 3 + third.shape[0], : third.shape[1]] = third
    expected = centre(whole.box)[0] / 3, (1 + centre(whole.box)[1]) / 3
    found = [one for one in FaceFinder(0.08).find(small, [WHOLE]) if one.score >= 0.5]
    assert len(found) == 1
    assert centre(found[0].box) == pytest.approx(expected, abs=0.03)
    assert FaceFinder(0.4).find(small, [WHOLE]) == []
    assert FaceFinder(0.08).find(small, [Box(0.5, 0, 0.5, 1)]) == []
    (part,) = FaceFinder(0.08).find(small, [Box(0, 0.25, 0.5, 0.5)])
    assert centre(part.box) == pytest.approx(expected, abs=0.03)


def test_more_windows_that_agree_score_higher(data_dir: Path) -> None:
    luma = frames_of(data_dir / "grid_speakers" / "bbaf2n.mpg")[0].image.luma
    clear = max(one.score for one in FaceFinder(0.1).find(luma, [WHOLE]))
    blurred = np.asarray(cv2.GaussianBlur(luma, (0, 0), 9), np.uint8)
    unclear = max((one.score for one in FaceFinder(0.1).find(blurred, [WHOLE])), default=0)
    assert unclear < clear
    assert 0.5 < clear < 1


@pytest.mark.parametrize(
    "clip",
    ["garden_brightness_change.avi", "night_city_billboards.mp4"],
)
def test_where_nobody_looks_at_the_camera_is_no_face(data_dir: Path, clip: str) -> None:
    everywhere = FaceSettings(only_foreground=False)
    assert events_of(watch(frames_of(data_dir / "surveillance" / clip), everywhere)) == []


@pytest.mark.parametrize("shape", [(10, 10), (19, 300), (300, 19), (90, 160)])
def test_any_picture_can_be_searched(shape: tuple[int, int]) -> None:
    luma = np.random.default_rng(0).integers(16, 235, shape).astype(np.uint8)
    scored = watch(still(luma, 1), FaceSettings(only_foreground=False))
    assert all(not one.objects for one in scored)
    assert FaceFinder(0.1).find(luma, [Box(0.99, 0.99, 0.01, 0.01)]) == []


def test_an_opencv_without_cascades_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face, "_CASCADE", "haarcascade_of_5.xml")
    with pytest.raises(ScorerError, match=r"haarcascade_of_5\.xml is not there"):
        FaceSettings().build("cpu")


def test_the_spec_can_be_sent_to_the_worker_and_says_its_label() -> None:
    spec = FaceSettings(min_height=0.2)
    sent = pickle.loads(pickle.dumps(spec))  # noqa: S301 - made here
    assert sent == spec
    assert [label.name for label in sent.labels] == ["face"]
