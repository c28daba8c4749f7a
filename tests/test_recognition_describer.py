"""Which pictures a captioner gets, and what becomes of its sentences."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from mmstream.clock import ManualClock
from mmstream.codecs.pictures import image_from_array
from mmstream.errors import ScorerError
from mmstream.media import NS_PER_SEC, Bytes, Hop, Scores, Span, VideoFrame
from mmstream.models.captioner_settings import CaptionerSettings
from mmstream.recognition.describer import Describer, SceneCaptioner
from mmstream.stages import Captioner, Closing, Finishing, Load, Reporting

_SCENES = [
    np.kron(np.random.default_rng(i).integers(0, 256, (9, 16, 3), np.uint8), np.ones((10, 10, 1)))
    for i in range(3)
]
_MASK = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))


@dataclass
class _Brightness:
    """Says how bright a picture is; `may_go` holds it up."""

    name: str = "brightness"
    seen: list[Bytes] = field(default_factory=list)
    may_go: threading.Event = field(default_factory=threading.Event)
    is_at_it: threading.Event = field(default_factory=threading.Event)
    fails: bool = False

    def build(self, device: str) -> Captioner:
        assert device == "cpu"
        return self

    def describe(self, pictures: Sequence[Bytes]) -> Sequence[str]:
        self.is_at_it.set()
        assert self.may_go.wait(10)
        if self.fails:
            msg = "brightness: cannot describe"
            raise ScorerError(msg)
        self.seen += pictures
        return ["" if not one.any() else f"It is {one.mean():.0f} bright." for one in pictures]


def _free() -> _Brightness:
    captioner = _Brightness()
    captioner.may_go.set()
    return captioner


def _describer(captioner: _Brightness, settings: SceneCaptioner | None = None) -> Describer:
    return Describer(settings or _settings(), captioner, "cpu", ManualClock())


def _settings(**more: object) -> SceneCaptioner:
    return SceneCaptioner.model_validate({"captioner": {"weights": "x"}, **more})


def _hop(index: int, scene: Bytes, *, live: bool = False, source: str = "door") -> Hop:
    """Half a second, of one picture."""
    at_ns = index * NS_PER_SEC // 2
    frame = VideoFrame(source, at_ns, image_from_array(scene.astype(np.uint8)))
    nothing = np.zeros(0, np.float32)
    span = Span(at_ns, at_ns + NS_PER_SEC // 2)
    return Hop(source, index, span, 16_000, nothing, nothing > 0, (frame,), live=live)


def _said(
    describer: Describer, hops: Sequence[Hop], load: Load = Load.FULL
) -> list[tuple[int, str]]:
    scores = describer.score(hops, [Scores(h.source, h.index, h.span) for h in hops], load)
    assert [one.index for one in scores] == [hop.index for hop in hops]
    return [(one.at_ns * 2 // NS_PER_SEC, one.text) for s in scores for one in s.descriptions]


def test_the_first_picture_a_cut_and_every_ten_seconds() -> None:
    captioner = _free()
    describer = _describer(captioner)
    scenes = [_SCENES[0]] * 7 + [_SCENES[1]] * 40
    said = _said(describer, [_hop(i, one) for i, one in enumerate(scenes)])
    assert [at for at, _ in said] == [0, 8]
    assert len(captioner.seen) == 3  # what is said again at 28 is not told
    assert describer.metrics.dropped == {"said_before": 1}
    describer.close()


def test_without_changes_only_the_cadence_counts() -> None:
    describer = _describer(_free(), _settings(on_change=False, every_secs=2))
    hops = [_hop(i, _SCENES[i % 3]) for i in range(9)]
    assert [at for at, _ in _said(describer, hops)] == [0, 4, 8]
    describer.close()


def test_a_replay_says_the_same_whatever_the_hops_that_come_together() -> None:
    hops = [_hop(i, _SCENES[i // 8]) for i in range(24)]
    at_once, one_by_one = _describer(_free()), _describer(_free())
    said = _said(at_once, hops)
    assert said == [pair for hop in hops for pair in _said(one_by_one, [hop])]
    assert len(said) == 3
    at_once.close()
    one_by_one.close()


def test_live_hops_wait_for_nothing_and_only_the_newest_picture_waits() -> None:
    captioner = _Brightness()
    describer = _describer(captioner, _settings(on_change=False, every_secs=0.5))
    assert _said(describer, [_hop(0, _SCENES[0], live=True)]) == []
    assert captioner.is_at_it.wait(10)
    assert _said(describer, [_hop(1, _SCENES[1], live=True), _hop(2, _SCENES[2], live=True)]) == []
    assert describer.metrics.dropped == {"picture_replaced": 1}
    captioner.may_go.set()
    assert describer._beside.wait("door", 10)  # noqa: SLF001 - the condition to wait on
    said = _said(describer, [_hop(3, _SCENES[2], live=True)], Load.INGEST)
    assert [at for at, _ in said] == [0, 2]
    describer.close()


def test_under_ingest_nothing_is_looked_at() -> None:
    captioner = _free()
    describer = _describer(captioner)
    assert _said(describer, [_hop(0, _SCENES[0])], Load.INGEST) == []
    assert describer.metrics.n_in == 0
    describer.close()


def test_what_is_masked_is_black_and_no_change() -> None:
    captioner = _free()
    describer = _describer(captioner, _settings(masks={"door": [_MASK]}, width=64))
    changed = _SCENES[0].copy()
    changed[:, :76] = 255 - changed[:, :76]
    assert len(_said(describer, [_hop(i, changed if i > 3 else _SCENES[0]) for i in range(9)])) == 1
    (seen,) = captioner.seen
    assert seen.shape == (36, 64, 3)
    assert not seen[:, :34].any()
    assert seen[:, 36:].any()
    describer.close()


def test_nothing_said_is_no_description() -> None:
    describer = _describer(_free())
    assert _said(describer, [_hop(0, np.zeros((90, 160, 3), np.uint8))]) == []
    assert describer.metrics.dropped == {"empty": 1}
    describer.close()


def test_a_source_that_starts_anew_is_described_anew() -> None:
    describer = _describer(_free())
    first = _said(describer, [_hop(0, _SCENES[0])])
    describer.forget("door")
    assert _said(describer, [_hop(0, _SCENES[0])]) == first != []
    describer.close()


def test_a_captioner_that_fails_stops_a_replay() -> None:
    captioner = _free()
    captioner.fails = True
    describer = _describer(captioner)
    with pytest.raises(ScorerError, match="cannot describe"):
        _said(describer, [_hop(0, _SCENES[0])])
    describer.close()


def test_beside_a_live_source_descriptions_fail_alone() -> None:
    captioner = _free()
    captioner.fails = True
    describer = _describer(captioner)
    hops = [_hop(0, _SCENES[0], live=True), _hop(0, _SCENES[1], source="file")]
    assert _said(describer, hops) == []
    assert describer._beside.wait("door", 10)  # noqa: SLF001 - the condition to wait on
    assert _said(describer, [_hop(1, _SCENES[0], live=True)]) == []
    assert describer.metrics.dropped == {"failed": 2}
    (problem,) = describer.problems
    assert problem.endswith("all else goes on: brightness: cannot describe")
    describer.close()


def test_one_that_hangs_is_a_problem_and_one_that_is_slow_is_none() -> None:
    captioner, clock = _Brightness(), ManualClock()
    describer = Describer(_settings(), captioner, "cpu", clock)
    _said(describer, [_hop(0, _SCENES[0], live=True)])
    assert captioner.is_at_it.wait(10)
    clock.advance(59)
    assert list(describer.problems) == []
    clock.advance(1)
    (problem,) = describer.problems
    assert problem == "brightness has been at its pictures for more than 60 s"
    captioner.may_go.set()
    describer.close()


def test_a_file_waits_but_a_moment_beside_a_live_source() -> None:
    captioner = _Brightness()
    describer = _describer(captioner)
    hops = [_hop(0, _SCENES[0], live=True), _hop(0, _SCENES[1], source="file")]
    assert _said(describer, hops) == []
    captioner.may_go.set()
    assert describer._beside.wait("file", 10)  # noqa: SLF001 - the condition to wait on
    assert [at for at, _ in _said(describer, [_hop(1, _SCENES[1], source="file")])] == [0]
    describer.close()


def test_the_end_of_a_live_source_waits_for_nothing_and_counts_what_is_lost() -> None:
    captioner = _Brightness()
    describer = _describer(captioner)
    _said(describer, [_hop(0, _SCENES[0], live=True)])
    assert describer.finish("door", live=True) is None
    assert describer.metrics.dropped == {"late_result": 1}
    describer.forget("door")
    assert describer.metrics.dropped == {"late_result": 1}
    captioner.may_go.set()
    describer.close()


def test_what_has_come_is_said_at_the_end_and_then_all_is_new() -> None:
    describer = _describer(_free())
    _said(describer, [_hop(3, _SCENES[0], live=True)])
    assert describer._beside.wait("door", 10)  # noqa: SLF001 - the condition to wait on
    said = describer.finish("door", live=True)
    assert said is not None
    assert (said.index, said.span) == (4, Span(2 * NS_PER_SEC, 2 * NS_PER_SEC))
    assert [one.at_ns for one in said.descriptions] == [3 * NS_PER_SEC // 2]
    again = _said(describer, [_hop(4, _SCENES[0])])
    assert [text for _, text in again] == [one.text for one in said.descriptions]
    assert describer.finish("door", live=False) is None
    assert describer.finish("nobody", live=True) is None
    describer.close()


def test_weights_that_are_not_there_are_refused_at_the_start() -> None:
    settings = SceneCaptioner(captioner=CaptionerSettings(weights="/no/such/folder"))
    with pytest.raises(ScorerError, match="/no/such/folder: no such folder"):
        settings.build("cpu")


def test_it_gives_no_labels_and_reports() -> None:
    assert _settings().labels == ()
    describer = _describer(_free())
    assert isinstance(describer, Reporting)
    assert isinstance(describer, Finishing)
    assert isinstance(describer, Closing)
    assert describer.problems == ()
    describer.close()
