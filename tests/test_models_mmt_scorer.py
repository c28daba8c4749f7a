"""What training made, on live windows: the same as offline, words that decide, what is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import mmt_world as world
import numpy as np
import pytest
import torch

from mmstream.clock import ManualClock
from mmstream.codecs import image_from_array
from mmstream.errors import ScorerError
from mmstream.features.audio import LogMelSettings
from mmstream.heads.events import EventHead
from mmstream.media import (
    NS_PER_SEC,
    Hop,
    Modality,
    Scores,
    SourceEnded,
    SourceStarted,
    Span,
    TimedText,
    VideoFrame,
)
from mmstream.messages import Event
from mmstream.models.mmt import Inputs, Mmt, MmtSettings
from mmstream.models.mmt_scorer import MmtScorer, mmt_scorer
from mmstream.models.mmt_spec import MmtSpec
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.stages import Load
from mmstream.training.batches import Collator
from mmstream.training.dataset import Example
from mmstream.training.manifest import Annotation
from mmstream.training.reading import Words, WordSettings
from mmstream.training.recordings import (
    FULL_SCALE,
    PictureSettings,
    PieceSettings,
    SoundSettings,
    read_pieces,
)
from mmstream.windows import HopCutter, HopSettings

_HOP_NS = NS_PER_SEC // 4


def _spec(folder: Path, **said: object) -> MmtSpec:
    small = {"width": 16, "height": 16, "fps": 10}
    values = {"weights": str(folder), "window_secs": 1.0, "pictures": small}
    return MmtSpec.model_validate(values | said)


def _hop(index: int, source: str = "cam", *, sound: bool = True, sight: bool = True) -> Hop:
    rng = np.random.default_rng(index)
    start_ns = index * _HOP_NS
    n = world.RATE_HZ // 4
    samples = rng.normal(0, 0.1, n).astype(np.float32)
    heard = np.full(n, sound)
    picture = image_from_array(rng.integers(16, 235, (32, 32), np.uint8), "gray")
    frames = tuple(VideoFrame(source, start_ns + k * 40_000_000, picture) for k in range(6 * sight))
    span = Span(start_ns, start_ns + _HOP_NS)
    return Hop(source, index, span, world.RATE_HZ, samples * sound, heard, frames)


def _heard(hops: Sequence[Hop], words: Mapping[int, Sequence[TimedText]]) -> list[Scores]:
    return [
        Scores(hop.source, hop.index, hop.span, texts=tuple(words.get(hop.index, ())))
        for hop in hops
    ]


def _word(text: str, start_secs: float, secs: float = 0.2) -> TimedText:
    start_ns = round(start_secs * NS_PER_SEC)
    return TimedText(Span(start_ns, start_ns + round(secs * NS_PER_SEC)), text)


def _run(
    scorer: MmtScorer, hops: Sequence[Hop], words: Mapping[int, Sequence[TimedText]], n: int = 1
) -> list[Scores]:
    said = _heard(hops, words)
    rows = range(0, len(hops), n)
    return [one for k in rows for one in scorer.score(hops[k : k + n], said[k : k + n], Load.FULL)]


def _values(scores: Scores) -> list[float]:
    return [float(series.values[0]) for series in scores.outputs.values()]


@dataclass(frozen=True)
class _Law:
    """One way in which a span of a recording is looked at, live and in training."""

    modalities: Sequence[Modality] = world.ALL
    end_secs: float = 1.75
    """0.5: the span begins before the recording does."""
    words: str = "spades please"
    colour: Literal["luma", "rgb"] = "luma"
    gap_secs: float | None = None
    """Nothing from before is there any more; where a 1 / fps of the span begins."""
    keeps_log_mel: bool = False

    @property
    def tolerance(self) -> float:
        """Of a difference of logits: log-mel is kept as 16-bit floats, a part in 2000 wide."""
        return 5e-3 if self.keeps_log_mel else 1e-5


@pytest.mark.parametrize(
    "law",
    [
        _Law(),
        _Law(end_secs=1.0, colour="rgb"),
        _Law(end_secs=0.5),
        _Law(gap_secs=1.25),
        _Law(gap_secs=1.5, end_secs=2.0, colour="rgb", words=""),
        _Law(keeps_log_mel=True),
        _Law(keeps_log_mel=True, end_secs=0.5),
        _Law(("audio", "video"), words=""),
        _Law(("audio",), words=""),
        _Law(("video", "text")),
        _Law(("text",)),
        _Law(words="spades"),
    ],
    ids=str,
)
def test_a_recording_says_live_what_it_says_in_training(
    tmp_path: Path, data_dir: Path, law: _Law
) -> None:
    path = min((data_dir / "grid_s1" / "clips").glob("*.mp4"))
    torch.manual_seed(0)
    n_channels = 3 if law.colour == "rgb" else 1
    model = Mmt(
        world.settings(law.modalities, n_words=world.pieces().n_words, n_channels=n_channels)
    ).eval()
    inputs = _in_training(path, law, model.settings)
    with torch.inference_mode():
        logits = model(inputs).logits["Asked"][0]
    folder = world.saved(tmp_path / "model", model)
    pictures = {"width": 16, "height": 16, "fps": 10, "colour": law.colour}
    likely = np.array(_live(path, law, _spec(folder, pictures=pictures)))
    apart = np.log(likely / (1 - likely))  # of two classes: how far the logits are apart
    assert apart[0] == pytest.approx(float(logits[0] - logits[1]), abs=law.tolerance)


def _in_training(path: Path, law: _Law, settings: MmtSettings) -> Inputs:
    """What training makes of the span; what lies before the gap was neither heard nor seen."""
    end_ns = round(law.end_secs * NS_PER_SEC)
    span = Span(end_ns - NS_PER_SEC, end_ns)
    sound = SoundSettings(log_mel=LogMelSettings(n_mels=64) if law.keeps_log_mel else None)
    pictures = PictureSettings(width=16, height=16, fps=10, colour=law.colour)
    ((_, piece),) = read_pieces(path, [span], PieceSettings(sound=sound, pictures=pictures))
    heard = np.zeros(len(piece.sound), np.bool_)
    for start, end in piece.heard:
        heard[start:end] = True
    kept = piece.sound.astype(np.float32) / np.float32(1 if law.keeps_log_mel else FULL_SCALE)
    known = Annotation("test", (), transcript=law.words)
    at_secs = (piece.at_ns / NS_PER_SEC).astype(np.float32)
    example = Example(0, known, kept, heard, piece.pictures, at_secs)
    if law.gap_secs is not None:
        n_lost = round((law.gap_secs - law.end_secs + 1) * world.RATE_HZ)
        heard = np.arange(len(example.heard)) >= n_lost
        later = example.at_secs >= law.gap_secs - law.end_secs + 1
        example = replace(
            example,
            sound=example.sound * heard,
            heard=heard,
            pictures=example.pictures[later],
            at_secs=example.at_secs[later],
        )
    words = None
    if settings.text is not None:
        words = Words(WordSettings(text="transcript"), settings, world.pieces())
    return Collator(settings, words)([example]).inputs


def _live(path: Path, law: _Law, spec: MmtSpec) -> Sequence[float]:
    """How likely each label is at the end of the span."""
    cutter = HopCutter("cam", HopSettings(), live=False)
    hops: list[Hop] = []
    with MediaFile("cam", MediaSettings(url=str(path), pace="max"), ManualClock()).read() as items:
        for item in items:
            hops.extend(cutter.push(item))
    hops = [hop for hop in hops if hop.span.end_ns <= law.end_secs * NS_PER_SEC]
    if law.gap_secs is not None:
        gap_ns = round(law.gap_secs * NS_PER_SEC)
        hops = [replace(hop, gap_before=hop.span.start_ns == gap_ns) for hop in hops]
    if not law.keeps_log_mel:  # samples are kept as 16-bit integers
        kept = [(hop.samples * FULL_SCALE).round() / np.float32(FULL_SCALE) for hop in hops]
        hops = [replace(hop, samples=its) for hop, its in zip(hops, kept, strict=True)]
    words = enumerate(law.words.split())
    said = [_word(text, law.end_secs - 0.3 + 0.1 * n, 0.1) for n, text in words]
    return _values(_run(mmt_scorer(spec, "cpu"), hops, {hops[-1].index: said})[-1])


def test_the_word_makes_the_event_and_text_is_what_made_it(tmp_path: Path) -> None:
    spec = _spec(world.learned(tmp_path / "ears"), events=(world.SPADES,))
    hops = [_hop(n) for n in range(12)]
    words = {6: [_word("ask", 0.9), _word("for", 1.1), _word("spades", 1.3)]}
    scores = _run(mmt_scorer(spec, "cpu"), hops, words)
    head = EventHead(node="n", source="cam", labels=spec.labels, settings={})
    head.push(SourceStarted("cam", frozenset(("audio", "video")), 0, None))
    told = [decided.content for one in scores for decided in head.push(one)]
    told += [decided.content for decided in head.push(SourceEnded("cam"))]
    starts = [one for one in told if isinstance(one, Event) and one.type == "start"]
    assert [one.label for one in starts] == [world.SPADES]
    assert starts[0].contribution.text > 0.8
    assert [one.modality for one in starts[0].evidence] == ["text"]
    silent = _run(mmt_scorer(spec, "cpu"), hops, {})
    assert max(_values(one)[0] for one in silent) < 0.5 < max(_values(one)[0] for one in scores)


def test_a_word_counts_while_all_of_it_is_in_the_window(tmp_path: Path) -> None:
    folder, hops = world.random(tmp_path / "m"), [_hop(n) for n in range(10)]
    late = _run(mmt_scorer(_spec(folder), "cpu"), hops, {5: [_word("spades", 1.1)]})
    never = _run(mmt_scorer(_spec(folder), "cpu"), hops, {})
    differs = [_values(one) != _values(other) for one, other in zip(late, never, strict=True)]
    # Committed with hop 5, [1.25, 1.5); the window that ends at 2.25 begins after it was said.
    assert differs == [False] * 5 + [True] * 3 + [False] * 2


def test_a_word_waits_until_the_window_has_reached_its_end(tmp_path: Path) -> None:
    folder, hops = world.random(tmp_path / "m"), [_hop(n) for n in range(8)]
    early = _run(mmt_scorer(_spec(folder), "cpu"), hops, {5: [_word("spades", 1.4)]})
    never = _run(mmt_scorer(_spec(folder), "cpu"), hops, {})
    differs = [_values(one) != _values(other) for one, other in zip(early, never, strict=True)]
    assert differs == [False] * 6 + [True] * 2


def test_words_are_read_in_the_order_they_were_said(tmp_path: Path) -> None:
    folder, hops = world.random(tmp_path / "m"), [_hop(n) for n in range(6)]
    said = [_word("spades", 0.8), _word("please", 1.1)]
    one, other, wrong = (
        _values(_run(mmt_scorer(_spec(folder), "cpu"), hops, {5: words})[-1])
        for words in (said, said[::-1], [_word("spades", 1.1), _word("please", 0.8)])
    )
    assert one == other != wrong


@pytest.mark.parametrize(
    "modalities",
    [("audio",), ("video",), ("text",), ("audio", "text"), ("video", "text"), world.ALL],
)
def test_any_modalities_will_do_and_none_says_nothing(
    tmp_path: Path, modalities: tuple[Modality, ...]
) -> None:
    spec = _spec(world.random(tmp_path / "m", modalities))
    scorer = mmt_scorer(spec, "cpu")
    nothing, full = _hop(0, "a", sound=False, sight=False), _hop(0, "b")
    words = [_word("spades", 0.0)]
    said = [Scores("a", 0, nothing.span), Scores("b", 0, full.span, texts=tuple(words))]
    empty, known = scorer.score([nothing, full], said, Load.FULL)
    assert not empty.outputs
    assert not empty.fused
    assert set(known.outputs) == {world.SPADES, world.NOTHING}
    several = len(modalities) > 1
    assert {label.modality for label in spec.labels} == {"av" if several else modalities[0]}
    assert bool(known.fused) == several
    if several:
        lacking = set(world.ALL) - set(modalities)
        assert all(getattr(one, name) == 0 for one in known.fused.values() for name in lacking)


def test_sources_in_one_batch_say_what_each_says_alone(tmp_path: Path) -> None:
    folder = world.random(tmp_path / "m")
    ours, theirs = [_hop(n) for n in range(6)], [_hop(n, "v", sound=False) for n in range(6)]
    words = {4: [_word("spades", 0.9)]}
    mixed = [hop for pair in zip(ours, theirs, strict=True) for hop in pair]
    together = _run(mmt_scorer(_spec(folder), "cpu"), mixed, words, n=4)
    for hops in (ours, theirs):
        alone = _run(mmt_scorer(_spec(folder), "cpu"), hops, words)
        mine = [one for one in together if one.source == hops[0].source]
        for one, other in zip(mine, alone, strict=True):
            assert _values(one) == pytest.approx(_values(other), abs=1e-5)


@pytest.mark.parametrize("how", ["gap", "forget"])
def test_nothing_from_before_a_gap_is_in_a_window(tmp_path: Path, how: str) -> None:
    folder = world.random(tmp_path / "m")
    scorer = mmt_scorer(_spec(folder), "cpu")
    _run(scorer, [_hop(n) for n in range(3)], {2: [_word("spades", 0.5)]})
    after = _hop(3)
    if how == "gap":
        after = replace(after, gap_before=True)
    else:
        scorer.forget("cam")
    late = {3: [_word("spades", 0.6, 0.1)]}
    fresh = _run(mmt_scorer(_spec(folder), "cpu"), [after], {})
    assert _values(_run(scorer, [after], late)[0]) == _values(fresh[0])


def test_what_is_only_kept_is_known_afterwards_and_cadence_is_by_time(tmp_path: Path) -> None:
    folder, hops = world.random(tmp_path / "m"), [_hop(n) for n in range(6)]
    whole = _run(mmt_scorer(_spec(folder), "cpu"), hops, {})
    scorer = mmt_scorer(_spec(folder), "cpu")
    kept = scorer.score(hops[:5], _heard(hops[:5], {}), Load.INGEST)
    assert not any(one.outputs for one in kept)
    assert _values(_run(scorer, hops[5:], {})[0]) == _values(whole[5])
    seldom = _run(mmt_scorer(_spec(folder, every_secs=0.5), "cpu"), hops, {})
    assert [bool(one.outputs) for one in seldom] == [False, True] * 3


def test_a_score_of_one_half_is_the_threshold(tmp_path: Path) -> None:
    folder, hops = world.random(tmp_path / "m"), [_hop(0)]
    likely = _values(_run(mmt_scorer(_spec(folder), "cpu"), hops, {})[0])[0]
    spec = _spec(folder, thresholds={world.SPADES: likely})
    assert _values(_run(mmt_scorer(spec, "cpu"), hops, {})[0])[0] == pytest.approx(0.5, abs=1e-4)


def test_sound_of_another_rate_and_a_lost_vocabulary_are_refused(tmp_path: Path) -> None:
    folder = world.random(tmp_path / "m")
    other = replace(_hop(0), rate_hz=8_000)
    with pytest.raises(ScorerError, match="m hears 16000 Hz only: got 8000 Hz from cam"):
        _run(mmt_scorer(_spec(folder), "cpu"), [other], {})
    (folder / "vocabulary.json").unlink()
    with pytest.raises(ScorerError, match=r"vocabulary\.json"):
        mmt_scorer(_spec(folder), "cpu")
