"""AVP on hops: what it says of sound and sight, of either alone, of nothing, short of memory."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from avp_recordings import (
    LABELS,
    Part,
    avp_settings,
    recorded,
    said_by_stream,
    scorer_of,
    tiny,
)
from torch import Tensor

from mmstream.errors import ScorerError
from mmstream.media import Floats, Fused, Hop, Label, Modality, Scores
from mmstream.models import normal, taught
from mmstream.models.avp import Avp
from mmstream.models.avp_learned import Learned
from mmstream.models.avp_moments import only
from mmstream.models.avp_scorer import AvpScorer
from mmstream.models.avp_spec import EMBEDDING, GIST, MOMENT
from mmstream.models.avp_verdicts import Judge, Verdict, View
from mmstream.models.avp_whole import whole
from mmstream.models.normal import Normal, NormalSettings
from mmstream.models.taught import Prototype, TaughtClip, TaughtSettings
from mmstream.models.tokens import Tokens
from mmstream.stages import Load

_HOPS = (4000,) * 4


def _hops(source: str = "cam", *, sound: bool = True, sight: bool = True) -> tuple[Hop, ...]:
    part = Part(0, _HOPS, has_sound=sound, frame_ns=40_000_000 * sight, n_deaf=0)
    return recorded(source, [part]).hops


def _embedding(scores: Scores) -> Floats:
    embedding: Floats = scores.outputs[EMBEDDING].values[0]
    return embedding


def test_the_share_of_each_sense_is_what_is_gone_without_it() -> None:
    model = tiny(avp_settings())
    both = said_by_stream(scorer_of(model), _hops(), 2)[-1]
    heard = said_by_stream(scorer_of(model), _hops(sight=False), 2)[-1]
    recording = recorded("cam", [Part(0, _HOPS, has_sound=True, frame_ns=40_000_000, n_deaf=0)])
    stretch = recording.stretches[0]
    mute = type(stretch)(
        stretch.start_ns, stretch.samples[:0], stretch.heard[:0], stretch.pictures, stretch.at_ns
    )
    logits = whole(model, [mute], [recording.hops[-1].span.end_ns]).logits[0]
    for label, logit in zip(LABELS, logits, strict=True):
        p, p_heard, p_seen = both.outputs[label], heard.outputs[label], 1 / (1 + np.exp(-logit))
        fused = both.fused[label]
        assert fused.audio == pytest.approx(max(0, 1 - p_seen / p.values[0]), abs=1e-4)
        assert fused.video == pytest.approx(max(0, 1 - p_heard.values[0] / p.values[0]), abs=1e-4)
    assert any(both.fused[label].audio > 0 or both.fused[label].video > 0 for label in LABELS)
    assert set(heard.fused.values()) == {Fused(audio=1.0, video=0.0)}


def test_one_sense_is_enough_and_none_says_nothing() -> None:
    scorer = scorer_of(tiny(avp_settings()))
    mixed = [
        *_hops("a", sight=False),
        *_hops("v", sound=False),
        *_hops("n", sound=False, sight=False),
    ]
    scores = said_by_stream(scorer, mixed, len(mixed))
    assert all({*one.outputs} - {MOMENT} == {*LABELS, EMBEDDING, GIST} for one in scores[:8])
    assert set(scores[7].fused.values()) == {Fused(audio=0.0, video=1.0)}
    assert all(not one.outputs and not one.fused for one in scores[8:])


def test_a_score_of_one_half_is_the_threshold() -> None:
    model = tiny(avp_settings())
    hops = _hops()
    likely = float(said_by_stream(scorer_of(model), hops, 1)[-1].outputs["rain"].values[0])
    changed = Avp(model.settings.model_copy(update={"thresholds": {"rain": likely}})).eval()
    changed.load_state_dict(model.state_dict())
    scores = said_by_stream(scorer_of(changed), hops, 1)[-1]
    assert scores.outputs["rain"].values[0] == pytest.approx(0.5, abs=1e-4)
    assert scores.outputs["rain"].at_ns.tolist() == [hops[-1].span.start_ns]
    before = said_by_stream(scorer_of(model), hops, 1)[-1]
    assert scores.outputs["bark"].values[0] == pytest.approx(before.outputs["bark"].values[0])


def test_what_is_only_ingested_is_known_afterwards() -> None:
    model = tiny(avp_settings())
    hops = _hops()
    scorer = scorer_of(model)
    skipped = scorer.score(hops[:3], (), Load.INGEST)
    assert all(not one.outputs for one in skipped)
    last = scorer.score(hops[3:], (), Load.STRETCHED)[0]
    np.testing.assert_allclose(
        _embedding(last), _embedding(said_by_stream(scorer_of(model), hops, 1)[3]), atol=1e-5
    )


def test_a_source_that_is_forgotten_begins_anew() -> None:
    model, (first, then, *_) = tiny(avp_settings()), _hops()
    scorer = scorer_of(model)
    scorer.score([first], (), Load.FULL)
    scorer.forget("cam")
    scorer.forget("nobody")
    after = scorer.score([then], (), Load.FULL)[0]
    fresh = scorer_of(model).score([then], (), Load.FULL)[0]
    np.testing.assert_array_equal(_embedding(after), _embedding(fresh))


def test_warming_up_leaves_nothing_behind() -> None:
    model = tiny(avp_settings())
    warm = scorer_of(model)
    warm.warm_up()
    one, two = (said_by_stream(scorer, _hops(), 1)[0] for scorer in (warm, scorer_of(model)))
    np.testing.assert_array_equal(_embedding(one), _embedding(two))


def test_warming_up_runs_all_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[View] = []
    judge = Judge.judge

    def watched(self: Judge, views: Sequence[View]) -> list[Verdict]:
        asked.extend(views)
        return judge(self, views)

    monkeypatch.setattr(Judge, "judge", watched)
    scorer_of(tiny(avp_settings())).warm_up()
    assert asked[-1].window.is_both


def test_sound_of_another_rate_is_refused() -> None:
    hop = _hops()[0]
    other = Hop("cam", 0, hop.span, 8_000, hop.samples, hop.heard, hop.frames)
    with pytest.raises(ScorerError, match="16000 Hz only: got 8000 Hz from cam; set hops"):
        scorer_of(tiny(avp_settings())).score([other], (), Load.FULL)


def _short_of_memory(
    work: Callable[..., object], most: int, error: type[RuntimeError]
) -> Callable[..., object]:
    def tried(first: Tensor | Mapping[Modality, Tokens], *rest: object) -> object:
        rows = first if isinstance(first, Tensor) else next(iter(first.values())).values
        if len(rows) > most:
            msg = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"
            raise error(msg)
        return work(first, *rest)

    return tried


@pytest.mark.parametrize("error", [RuntimeError, torch.cuda.OutOfMemoryError])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    monkeypatch: pytest.MonkeyPatch, error: type[RuntimeError]
) -> None:
    model = tiny(avp_settings())
    hops = [hop for row in zip(*(_hops(f"cam{n}") for n in range(5)), strict=True) for hop in row]
    easy = said_by_stream(scorer_of(model), hops, 10)
    scorer = scorer_of(model)
    for part, name, most in (
        (model.video.stages, "forward", 5),
        (model.audio, "step", 2),
        (model, "fuse", 1),
    ):
        monkeypatch.setattr(part, name, _short_of_memory(getattr(part, name), most, error))
    hard = said_by_stream(scorer, hops, 10)
    for one, two in zip(easy, hard, strict=True):
        np.testing.assert_allclose(_embedding(one), _embedding(two), atol=1e-5)
    n_halved = scorer.metrics.dropped["batch_halved"]
    assert n_halved >= 3
    said_by_stream(scorer, hops, 10)
    assert scorer.metrics.dropped["batch_halved"] == n_halved  # what fits is known by now


def test_a_single_hop_that_does_not_fit_is_an_error_and_others_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny(avp_settings())
    monkeypatch.setattr(model, "fuse", _short_of_memory(model.fuse, 0, RuntimeError))
    with pytest.raises(ScorerError, match="avp, windows: there is not enough memory"):
        scorer_of(model).score(_hops()[:1], (), Load.FULL)

    def broken(*_: object) -> None:
        msg = "mat1 and mat2 shapes cannot be multiplied"
        raise RuntimeError(msg)

    monkeypatch.setattr(model, "fuse", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        scorer_of(model).score(_hops()[:1], (), Load.FULL)


def _gist(scores: Scores) -> Floats:
    gist: Floats = scores.outputs[GIST].values[0]
    return gist


def _moment(scores: Scores) -> Floats:
    moment: Floats = scores.outputs[MOMENT].values[0]
    return moment


def _learned(folder: Path) -> Learned:
    taught_in, normal_in = folder / "taught", folder / "normal"
    return Learned(
        taught_in=taught_in, normal_in=normal_in, model="tiny", n_dims=8, detector="mine"
    )


def _teach(folder: Path, vector: Floats, *, model: str = "tiny", label: str = "kettle") -> None:
    about = TaughtSettings(
        label=label,
        called=label,
        model=model,
        threshold=0.5,
        reach=0.25,
        made="2026-11-23T00:00:00Z",
        clips=tuple(TaughtClip(name=f"{n}.wav", digest="0" * 16) for n in range(3)),
    )
    taught.save(folder / "taught", Prototype(about, vector))


def _learn(folder: Path, moments: Floats, source: str = "cam") -> None:
    usual = NormalSettings(source=source, model="tiny", threshold=0.1, n_learned=40, made="now")
    normal.save(folder / "normal", Normal(usual, moments))


def test_what_is_taught_and_learned_while_it_runs_is_scored(tmp_path: Path) -> None:
    model = tiny(avp_settings())
    scorer = AvpScorer(model, ("bark",), _learned(tmp_path))
    hops = _hops()
    before = scorer.score(hops[:3], (), Load.FULL)[-1]
    assert {*before.outputs} == {"bark", EMBEDDING, MOMENT, GIST}
    assert before.learned == ()
    last = said_by_stream(scorer_of(model), hops, 1)[-1]
    _teach(tmp_path, _gist(last))
    _learn(tmp_path, -_moment(last)[None])
    after = scorer.score(hops[3:], (), Load.FULL)[0]
    assert after.learned == (Label("kettle", "av", "mine"), Label("unusual", "av", "mine"))
    assert after.outputs["kettle"].values[0] == pytest.approx(0.988, abs=0.01)
    assert after.outputs["unusual"].values[0] == pytest.approx(1, abs=1e-3)
    other = scorer.score(_hops("door"), (), Load.FULL)[-1]
    assert "kettle" in other.outputs
    assert "unusual" not in other.outputs


def test_a_gist_has_a_half_for_each_sense_that_is_there() -> None:
    for sound, sight in ((True, True), (True, False), (False, True)):
        hops = _hops(sound=sound, sight=sight)
        gist = _gist(said_by_stream(scorer_of(tiny(avp_settings())), hops, 2)[-1])
        assert gist.shape == (32,)
        lengths = np.linalg.norm(gist.reshape(2, 16), axis=1)
        np.testing.assert_allclose(lengths, [sound, sight], atol=1e-5)


@pytest.mark.parametrize("sense", ["audio", "video"])
def test_what_was_taught_with_one_sense_is_told_beside_the_other(
    tmp_path: Path, sense: Modality
) -> None:
    """That sense has all of it, and the score is the one without the other sense."""
    hops = _hops()
    both = _gist(said_by_stream(scorer_of(tiny(avp_settings())), hops, 1)[-1])
    _teach(tmp_path, only(both[None], sense)[0])
    scorer = AvpScorer(tiny(avp_settings()), ("bark",), _learned(tmp_path))
    last = said_by_stream(scorer, hops, 1)[-1]
    assert last.outputs["kettle"].values[0] == pytest.approx(0.988, abs=0.01)
    share = last.fused["kettle"]
    heard = sense == "audio"
    assert (share.audio, share.video) == pytest.approx((float(heard), float(not heard)), abs=1e-4)
    other = AvpScorer(tiny(avp_settings()), ("bark",), _learned(tmp_path))
    deaf = said_by_stream(other, _hops(sound=not heard, sight=heard), 1)[-1]
    assert deaf.outputs["kettle"].values[0] < 1e-4


def test_windows_that_are_not_whole_are_not_judged_unusual(tmp_path: Path) -> None:
    """A window is 2 hops long: the first of a source and the first after a gap are too early."""
    _learn(tmp_path, np.eye(1, 16, dtype=np.float32))
    scorer = AvpScorer(tiny(avp_settings()), ("bark",), _learned(tmp_path))
    parts = [Part(n, _HOPS, has_sound=True, frame_ns=40_000_000, n_deaf=0) for n in (0, 1600)]
    said = said_by_stream(scorer, recorded("cam", parts).hops, 8)
    for name in (MOMENT, "unusual"):
        assert [name in one.outputs for one in said] == [False, True, True, True] * 2
    assert all("bark" in one.outputs for one in said)
    assert [len(one.learned) for one in said] == [0, 1, 1, 1] * 2


def test_what_each_sense_has_in_unusual_is_said_where_there_is_one_only(tmp_path: Path) -> None:
    _learn(tmp_path, np.eye(1, 16, dtype=np.float32))
    for sound, sight in ((True, True), (True, False), (False, True)):
        scorer = AvpScorer(tiny(avp_settings()), ("bark",), _learned(tmp_path))
        said = said_by_stream(scorer, _hops(sound=sound, sight=sight), 4)[-1]
        assert "unusual" in said.outputs
        alone = Fused(audio=float(sound), video=float(sight))
        assert said.fused.get("unusual") == (None if sound and sight else alone)


def test_files_that_cannot_be_used_are_problems_and_the_rest_is_told(tmp_path: Path) -> None:
    scorer = AvpScorer(tiny(avp_settings()), ("bark",), _learned(tmp_path))
    unit = np.eye(1, 32, dtype=np.float32)[0]
    assert len(scorer.problems) == 0
    _teach(tmp_path, unit)
    _teach(tmp_path, unit, model="another", label="other")
    _teach(tmp_path, np.eye(1, 5, dtype=np.float32)[0], label="short")
    _learn(tmp_path, np.eye(2, 8, dtype=np.float32))
    (tmp_path / "taught" / "torn.safetensors").write_bytes(b"x" * 40)
    said = said_by_stream(scorer, _hops(), 4)[-1]
    assert {*said.outputs} == {"bark", "kettle", EMBEDDING, MOMENT, GIST}
    other, short, torn, usual = scorer.problems
    assert "other was taught to the model another, not to tiny: teach it again" in other
    assert "short.safetensors: has vectors of 5 numbers, and this model makes such of 32" in short
    assert "torn.safetensors: not a whole safetensors file" in torn
    assert "cam.safetensors: has vectors of 8 numbers, and this model makes such of 16" in usual


def test_hops_and_what_is_told_of_them_are_counted() -> None:
    scorer = scorer_of(tiny(avp_settings()))
    scorer.score(_hops(sound=False, sight=False), (), Load.FULL)
    hops = _hops("door")
    scorer.score(hops[:3], (), Load.FULL)
    scorer.score(hops[3:], (), Load.INGEST)
    assert (scorer.metrics.n_in, scorer.metrics.n_out) == (8, 3)
