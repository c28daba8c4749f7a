"""Synchrony: offsets found from tokens, when it keeps silent, what it forgets, what it keeps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from avp_recordings import LABELS, RATE_HZ, Part, avp_settings, recorded, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.errors import ScorerError
from mmstream.media import NS_PER_SEC, Hop, Scores, Span
from mmstream.models.audio import LogMelFront
from mmstream.models.avp import TASK, Avp, AvpSettings
from mmstream.models.avp_spec import OUT_OF_SYNC, AvpSpec
from mmstream.models.avp_synchrony import CLEAR, SYNCHRONY, Apart, Synchrony, with_synchrony
from mmstream.models.avp_windows import Held, Window
from mmstream.models.checkpoint import Identity, save
from mmstream.models.tokens import Tokens
from mmstream.stages import Load, Scorer

_MS = NS_PER_SEC // 1_000
_HOP_NS = 250 * _MS
_WINDOW_NS = 2 * NS_PER_SEC
_TOKEN_NS = 50 * _MS
_STEP_NS = 10 * _MS
_BASE_NS = 40 * NS_PER_SEC
_SECS = 12


def _settings(window_secs: float = 2.0) -> AvpSettings:
    """Its tokens of sound are 50 ms apart, and 8 numbers are compared as they are."""
    of = avp_settings(n_stack=4)
    front = LogMelFront(n_mels=8, n_hop=200)
    audio = of.audio.model_copy(update={"front_end": front})
    changes = {"audio": audio, "n_compared": 8, "window_secs": window_secs}
    return of.model_copy(update=changes)


def _model() -> Avp:
    model = tiny(_settings())
    for part in (model.heard_at, model.seen_at):
        torch.nn.init.eye_(part.weight)
        torch.nn.init.zeros_(part.bias)
    return model


def _course(seed: int) -> torch.Tensor:
    """[n, 8]: what happens, every 10 ms from 1 s before on; all is new after 0.15 s."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((100 * (_SECS + 2), 8))
    smooth = np.apply_along_axis(lambda one: np.convolve(one, np.hanning(15), "same"), 0, noise)
    return torch.from_numpy(smooth.astype(np.float32))


def _held(course: torch.Tensor, first_ns: int, step_ns: int, late_ns: int) -> Held:
    """Tokens of all the time from `_BASE_NS` on, of what happened `late_ns` before."""
    at_ns = np.arange(_BASE_NS + first_ns, _BASE_NS + _SECS * NS_PER_SEC, step_ns, dtype=np.int64)
    index = (at_ns - _BASE_NS - late_ns + NS_PER_SEC) // _STEP_NS
    return Held(course[torch.from_numpy(index)], at_ns)


class _Stream:
    """The hops and windows of a source whose sound is late by so much."""

    def __init__(self, late_ms: int, *, seed: int = 0, source: str = "cam") -> None:
        course = _course(seed)
        self.source = source
        self.audio = _held(course, 25 * _MS, _TOKEN_NS, late_ms * _MS)
        self.video = _held(course, 0, 40 * _MS, 0)

    def hop(self, index: int) -> Hop:
        start_ns = _BASE_NS + index * _HOP_NS
        n = _HOP_NS * RATE_HZ // NS_PER_SEC
        sound, heard = np.zeros(n, np.float32), np.ones(n, np.bool_)
        return Hop(
            self.source, index, Span(start_ns, start_ns + _HOP_NS), RATE_HZ, sound, heard, ()
        )

    def window(self, index: int) -> Window:
        end_ns = _BASE_NS + (index + 1) * _HOP_NS
        first_ns = end_ns - _WINDOW_NS
        audio, video = (_until(one.since(first_ns), end_ns) for one in (self.audio, self.video))
        return Window(end_ns, audio, video)


def _until(held: Held, end_ns: int) -> Held:
    n = int(np.searchsorted(held.at_ns, end_ns))
    return Held(held.values[:n], held.at_ns[:n])


def _said(
    synchrony: Synchrony, stream: _Stream, hops: Sequence[Hop], n_batch: int = 1
) -> list[Apart | None]:
    found: list[Apart | None] = []
    for first in range(0, len(hops), n_batch):
        some = hops[first : first + n_batch]
        found += synchrony.take(some, [stream.window(hop.index) for hop in some])
    return found


def _hops(stream: _Stream, n: int = 4 * _SECS) -> list[Hop]:
    return [stream.hop(index) for index in range(n)]


@settings(max_examples=15, deadline=None)
@given(late_ms=st.integers(-70, 70).map(lambda step: 10 * step), seed=st.integers(0, 9))
def test_it_finds_how_late_the_sound_is(late_ms: int, seed: int) -> None:
    stream = _Stream(late_ms, seed=seed)
    found = _said(Synchrony(_model()), stream, _hops(stream))
    last = found[-1]
    assert last is not None
    assert last.offset_secs == pytest.approx(late_ms / 1e3, abs=0.02)
    assert last.clear > CLEAR
    assert last.is_acceptable == (-0.09 <= last.offset_secs <= 0.185)
    assert (last.score > 0.5) == (not last.is_acceptable)


@settings(max_examples=10, deadline=None)
@given(n_batch=st.integers(2, 48), seed=st.integers(0, 9), gap=st.integers(1, 40))
def test_how_hops_are_batched_changes_nothing(n_batch: int, seed: int, gap: int) -> None:
    stream = _Stream(0, seed=seed)
    hops = _hops(stream)
    hops[gap] = replace(hops[gap], gap_before=True)
    one_by_one = _said(Synchrony(_model()), stream, hops)
    together = _said(Synchrony(_model()), stream, hops, n_batch)
    assert [one is None for one in together] == [one is None for one in one_by_one]
    for one, two in zip(together, one_by_one, strict=True):
        if one is not None and two is not None:
            assert one.offset_secs == pytest.approx(two.offset_secs, abs=1e-4)
            assert one.clear == pytest.approx(two.clear, abs=1e-4)


def test_sources_side_by_side_are_kept_apart() -> None:
    early, late = _Stream(-300, source="early"), _Stream(300, seed=1, source="late")
    synchrony = Synchrony(_model())
    for index in range(4 * _SECS):
        found = synchrony.take(
            [early.hop(index), late.hop(index)], [early.window(index), late.window(index)]
        )
    assert [one and one.offset_secs for one in found] == [
        pytest.approx(-0.3, abs=0.02),
        pytest.approx(0.3, abs=0.02),
    ]


def test_every_frame_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, stream = _model(), _Stream(0)
    seen: list[int] = []
    compare = model.synchrony

    def watched(audio: Tokens, video: Tokens, offsets: torch.Tensor) -> torch.Tensor:
        seen.append(int(video.present.sum()))
        return compare(audio, video, offsets)

    monkeypatch.setattr(model, "synchrony", watched)
    _said(Synchrony(model), stream, _hops(stream))
    first_ns, last_ns = stream.audio.at_ns[0] + 801 * _MS, stream.audio.at_ns[-1] - 801 * _MS
    assert sum(seen) == ((stream.video.at_ns >= first_ns) & (stream.video.at_ns < last_ns)).sum()


def test_nothing_is_said_before_there_is_enough_and_when_not_synced() -> None:
    stream = _Stream(300)
    found = _said(Synchrony(_model()), stream, _hops(stream))
    # 0.825 s of sound must lie before the first frame and after the 50th, 2 s later
    assert [index for index, one in enumerate(found) if one is None] == list(range(14))
    unsynced = [replace(hop, synced=False) for hop in _hops(stream)]
    synchrony = Synchrony(_model())
    assert set(_said(synchrony, stream, unsynced)) == {None}
    assert synchrony.n_kept == 0


def test_from_where_they_are_on_one_clock_it_begins_anew() -> None:
    stream, synchrony = _Stream(300), Synchrony(_model())
    hops = [replace(hop, synced=hop.index >= 8) for hop in _hops(stream)]
    found = _said(synchrony, stream, hops)
    assert [index for index, one in enumerate(found) if one is None] == list(range(8 + 14))


@pytest.mark.parametrize("way", ["gap_before", "lost", "earlier"])
def test_what_was_before_a_gap_does_not_count(way: str) -> None:
    before, after = _Stream(300), _Stream(0, seed=1)
    synchrony = Synchrony(_model())
    told = _said(synchrony, before, _hops(before)[:20])[-1]
    assert told is not None
    assert told.offset_secs == pytest.approx(0.3, abs=0.02)
    first = {"gap_before": 20, "lost": 22, "earlier": 10}[way]
    hops = _hops(after)[first : first + 15]
    if way == "gap_before":
        hops[0] = replace(hops[0], gap_before=True)
    found = _said(synchrony, after, hops)
    assert set(found[:14]) == {None}
    assert found[14] is not None
    assert found[14].offset_secs == pytest.approx(0, abs=0.02)


def test_no_frame_is_compared_across_a_hole_in_the_sound() -> None:
    stream = _Stream(300)
    is_there = (stream.audio.at_ns < _BASE_NS + 3 * NS_PER_SEC) | (
        stream.audio.at_ns > _BASE_NS + 3 * NS_PER_SEC + 100 * _MS
    )
    audio = Held(stream.audio.values[torch.from_numpy(is_there)], stream.audio.at_ns[is_there])
    stream.audio = audio
    whole, holed = _Stream(300), stream
    counts = []
    for one in (whole, holed):
        synchrony = Synchrony(_model())
        found = _said(synchrony, one, _hops(one)[:24])
        counts.append(sum(said is not None for said in found))
    assert counts[0] == 10
    assert counts[1] < counts[0]
    last = found[-1]
    assert last is None or last.offset_secs == pytest.approx(0.3, abs=0.02)


def test_an_offset_at_the_end_of_what_is_tried_is_none() -> None:
    stream = _Stream(820)
    found = _said(Synchrony(_model()), stream, _hops(stream))[-1]
    assert found is not None
    assert found.score < 0.1


def test_sound_of_something_else_is_not_clear() -> None:
    stream, other = _Stream(0), _Stream(0, seed=1)
    stream.audio = other.audio
    found = _said(Synchrony(_model()), stream, _hops(stream))
    assert all(one is None or one.clear < CLEAR for one in found)


def test_what_is_kept_is_bounded_and_goes_with_the_source() -> None:
    stream, synchrony = _Stream(0), Synchrony(_model())
    _said(synchrony, stream, _hops(stream))
    assert 4 * 6 - 1 <= synchrony.n_kept <= 4 * 6 + 1
    synchrony.forget("cam")
    synchrony.forget("nobody")
    assert synchrony.n_kept == 0


def test_the_event_carries_the_offset() -> None:
    hop = _Stream(0).hop(3)
    said = with_synchrony(Scores("cam", 3, hop.span), Apart(0.4, 0.9))
    assert said.outputs[OUT_OF_SYNC].values[0] > 0.5
    assert said.outputs[OUT_OF_SYNC].at_ns.tolist() == [hop.span.start_ns]
    np.testing.assert_allclose(said.outputs[SYNCHRONY].values, [[0.4, 0.9]])
    fused = said.fused[OUT_OF_SYNC]
    assert (fused.audio, fused.video, fused.offset_ns) == (1.0, 1.0, 400 * _MS)
    assert Apart(0.4, CLEAR).score == pytest.approx(0.5)
    assert Apart(-0.09, 1.0).score == Apart(0.185, 1.0).score == 0
    assert Apart(-0.1, 1.0).score == Apart(0.19, 1.0).score == 1


def _scorer(folder: Path, *, synchrony: bool) -> Scorer:
    model = _model()
    identity = Identity(task=TASK, rate_hz=RATE_HZ, trained=True)
    save(folder, model, model.settings, identity, "# tiny\n", half=False)
    return AvpSpec(weights=str(folder), events=LABELS, synchrony=synchrony).build("cpu")


def _recorded() -> tuple[Hop, ...]:
    part = Part(0, (4000,) * 20, has_sound=True, frame_ns=40 * _MS, n_deaf=0)
    return recorded("cam", [part]).hops


def test_the_scorer_tells_it_only_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hops = _recorded()
    scorer = _scorer(tmp_path / "on", synchrony=True)
    told = scorer.score(hops, (), Load.FULL)
    assert not {OUT_OF_SYNC, SYNCHRONY} & {*told[12].outputs}  # 3.25 s: too little
    assert {OUT_OF_SYNC, SYNCHRONY, *LABELS} <= {*told[-1].outputs}
    assert {*told[-1].fused} == {*LABELS, OUT_OF_SYNC}
    scorer.forget("cam")
    assert OUT_OF_SYNC not in scorer.score(hops[-1:], (), Load.FULL)[0].outputs

    def never(*_: object) -> torch.Tensor:
        pytest.fail("it was computed")

    monkeypatch.setattr(Avp, "synchrony", never)
    without = _scorer(tmp_path / "off", synchrony=False).score(hops, (), Load.FULL)
    assert {*told[-1].outputs} - {*without[-1].outputs} == {OUT_OF_SYNC, SYNCHRONY}


def test_what_is_only_ingested_counts_afterwards(tmp_path: Path) -> None:
    hops = _recorded()
    scorer = _scorer(tmp_path, synchrony=True)
    assert all(not one.outputs for one in scorer.score(hops[:19], (), Load.INGEST))
    assert OUT_OF_SYNC in scorer.score(hops[19:], (), Load.FULL)[0].outputs


def test_windows_that_are_too_short_for_it_are_refused() -> None:
    with pytest.raises(ScorerError, match=r"longer than 1\.7 s: got window_secs 1\.5"):
        Synchrony(tiny(_settings(window_secs=1.5)))


def test_it_is_a_label_only_if_asked_for() -> None:
    assert OUT_OF_SYNC not in [label.name for label in AvpSpec().labels]
    label = AvpSpec(synchrony=True).labels[len(AvpSpec().told)]
    assert (label.name, label.modality, label.detector) == (OUT_OF_SYNC, "av", "avp-small")
