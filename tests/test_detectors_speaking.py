import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path as File

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.clock import ManualClock
from mmstream.codecs import image_from_array
from mmstream.detectors.speaking import (
    ALONE,
    FITS,
    MISFIT,
    STILL,
    PersonSpeakingScorer,
    PersonSpeakingSettings,
)
from mmstream.detectors.speech import SpeechSettings
from mmstream.media import (
    Box,
    Bytes,
    Detection,
    Floats,
    Hop,
    Label,
    ObjectSeries,
    Path,
    Scores,
    Series,
    Span,
    VideoFrame,
)
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.stages import Load
from mmstream.windows import HopCutter, HopSettings

CLOSE_UP = Box(0.17, 0.02, 0.7, 0.7)
"""Where the face is in the clips of GRID's speaker s1 (and where Haar puts it)."""
N_SECOND = 16_000
WINDOW_NS = 32_000_000
_Faces = Callable[[Hop], Sequence[tuple[ObjectSeries, Detection]]]


def seen(
    hop: Hop, box: Box = CLOSE_UP, *, label: str = "face", track: int = 1, score: float = 0.9
) -> tuple[ObjectSeries, Detection]:
    """As a detector says it at each hop."""
    at_ns = hop.span.start_ns
    series = Series(np.array([at_ns], np.int64), np.array([score], np.float32))
    place = Detection(label, at_ns, "video", "scripted", score, box, Path(track))
    return ObjectSeries(label, track, series), place


def close_up(hop: Hop) -> Sequence[tuple[ObjectSeries, Detection]]:
    return [seen(hop)]


def framed(box: Box, hop: Hop) -> Sequence[tuple[ObjectSeries, Detection]]:
    return [seen(hop, box)]


def nobody(_: Hop) -> Sequence[tuple[ObjectSeries, Detection]]:
    return []


def somebody(hop: Hop) -> Sequence[tuple[ObjectSeries, Detection]]:
    return [seen(hop, label="person")]


@dataclass(frozen=True)
class Said:
    """What the scorers before have said of each hop, and the hops."""

    hops: Sequence[Hop]
    so_far: Sequence[Scores]


@dataclass(frozen=True)
class Found:
    """All that was said."""

    scores: Sequence[Scores]

    @property
    def values(self) -> Floats:
        found = [one.outputs["person_speaking"].values for one in self.scores if one.outputs]
        return np.concatenate([*found, np.zeros(0, np.float32)])

    @property
    def at_ns(self) -> list[int]:
        found = [one.outputs["person_speaking"].at_ns for one in self.scores if one.outputs]
        return [at_ns for part in found for at_ns in part.tolist()]

    @property
    def top(self) -> float:
        return float(self.values.max(initial=0.0))

    def told(self, label: str = "person_speaking") -> list[Detection]:
        found = [d for one in self.scores for d in one.detections]
        return [d for d in found if d.label == label and d.modality == "video"]

    @property
    def best(self) -> Detection:
        return max(self.told(), key=lambda detection: detection.score)

    def digest(self) -> object:
        return [
            (
                one.index,
                {k: (s.at_ns.tolist(), s.values.tolist()) for k, s in one.outputs.items()},
                one.detections,
                one.fused,
            )
            for one in self.scores
        ]


def read(path: File) -> list[Hop]:
    cutter = HopCutter("cam", HopSettings(), live=False)
    hops: list[Hop] = []
    with MediaFile("cam", MediaSettings(url=str(path), pace="max"), ManualClock()).read() as items:
        for item in items:
            hops += [one for one in cutter.push(item) if isinstance(one, Hop)]
    return [*hops, *(one for one in cutter.flush() if isinstance(one, Hop))]


def with_speech(hops: Sequence[Hop], faces: _Faces = close_up) -> Said:
    """`hops` with the speech that Silero hears in them, and scripted faces."""
    scorer = SpeechSettings().build("cpu")
    return with_faces(hops, [scorer.score([hop], (), Load.FULL)[0] for hop in hops], faces)


def with_faces(hops: Sequence[Hop], heard: Sequence[Scores], faces: _Faces) -> Said:
    said = []
    for hop, one in zip(hops, heard, strict=True):
        objects, places = [o for o, _ in faces(hop)], [d for _, d in faces(hop)]
        said.append(replace(one, objects=tuple(objects), detections=tuple(places)))
    return Said(hops, said)


def speak(said: Said, scorer: PersonSpeakingScorer | None = None, load: Load = Load.FULL) -> Found:
    scorer = scorer or PersonSpeakingSettings().build("cpu")
    steps = zip(said.hops, said.so_far, strict=True)
    return Found([scorer.score([hop], [known], load)[0] for hop, known in steps])


def with_sound(hops: Sequence[Hop], samples: Floats) -> list[Hop]:
    """The pictures of `hops` with another soundtrack; silence where that ends."""
    sizes = [hop.samples.size for hop in hops]
    padded = np.zeros(sum(sizes), np.float32)
    padded[: samples.size] = samples[: padded.size]
    parts = np.split(padded, np.cumsum(sizes)[:-1])
    heard = [np.ones(size, np.bool_) for size in sizes]
    return [
        replace(hop, samples=part, heard=flags)
        for hop, part, flags in zip(hops, parts, heard, strict=True)
    ]


def soundtrack(hops: Sequence[Hop]) -> Floats:
    return np.concatenate([hop.samples for hop in hops])


def late(hops: Sequence[Hop], secs: float) -> list[Hop]:
    """The same with the sound later than the picture, or earlier."""
    samples = soundtrack(hops)
    n_lost = round(secs * N_SECOND)
    if n_lost < 0:
        return with_sound(hops, samples[-n_lost:])
    return with_sound(hops, np.concatenate((np.zeros(n_lost, np.float32), samples)))


def redrawn(hops: Sequence[Hop], draw: Callable[[Bytes], Bytes]) -> list[Hop]:
    """The same with other pictures."""
    return [
        replace(
            hop,
            frames=tuple(
                VideoFrame(one.source, one.start_ns, image_from_array(draw(one.image.luma), "gray"))
                for one in hop.frames
            ),
        )
        for hop in hops
    ]


def frozen(hops: Sequence[Hop]) -> list[Hop]:
    first = hops[0].frames[0].image.luma
    return redrawn(hops, lambda _: first)


@pytest.fixture(scope="module")
def clips(data_dir: File) -> list[list[Hop]]:
    """One clip in 40 of one speaker, and five of others."""
    paths = sorted((data_dir / "grid_s1" / "clips").glob("*.mp4"))[::40]
    return [read(path) for path in paths]


@pytest.fixture(scope="module")
def clip(clips: list[list[Hop]]) -> list[Hop]:
    return clips[1]


@pytest.fixture(scope="module")
def said(clip: list[Hop]) -> Said:
    return with_speech(clip)


# --- mouth and sound ------------------------------------------------------------------------------


def test_who_speaks_is_found_and_seldom_doubted(clips: list[list[Hop]]) -> None:
    found = [speak(with_speech(hops)) for hops in clips]
    notes = [one.best.note for one in found]
    assert min(one.top for one in found) >= 0.85
    assert notes.count(FITS) >= 18
    assert MISFIT not in notes
    assert all(one.note != STILL for each in found for one in each.told())


def test_sound_that_comes_late_lowers_the_score_and_is_told(clips: list[list[Hop]]) -> None:
    notes, lower = [], []
    for hops in clips[:12]:
        found = speak(with_speech(late(hops, 1.0)))
        notes.append(found.best.note)
        lower.append(speak(with_speech(hops)).top - found.top)
    assert FITS not in notes
    assert notes.count(MISFIT) >= 5
    assert notes.count(None) <= 1
    assert min(lower) >= 0
    assert sorted(lower)[1] > 0.15


def test_the_sound_of_another_clip_fits_less(clips: list[list[Hop]]) -> None:
    """All of these sentences have the same rhythm and nearly the same start: few are noticed."""
    swapped = [with_sound(hops, soundtrack(clips[n - 1])) for n, hops in enumerate(clips)]
    own, other = ([speak(with_speech(hops)) for hops in each] for each in (clips, swapped))
    n_fit, n_other_fit = (sum(one.best.note == FITS for one in each) for each in (own, other))
    assert n_other_fit <= n_fit - 3
    assert np.mean([one.top for one in other]) < np.mean([one.top for one in own])
    assert any(one.note == MISFIT for each in other for one in each.told())


def test_the_offset_follows_the_sound(clips: list[list[Hop]]) -> None:
    def offset_ms(hops: Sequence[Hop]) -> float:
        found = speak(with_speech(hops)).scores
        known = [
            f.offset_ns for one in found for f in one.fused.values() if f.offset_ns is not None
        ]
        return float(np.median(known)) / 1e6 if known else np.nan

    own = float(np.nanmedian([offset_ms(hops) for hops in clips[:10]]))
    later = float(np.nanmedian([offset_ms(late(hops, 0.1)) for hops in clips[:10]]))
    assert abs(own) <= 60
    assert 50 <= later - own <= 150


def test_other_speakers_are_believed_too(data_dir: File) -> None:
    boxes = {"lbax4n": (107, 72, 165), "swiz3n": (97, 85, 143), "sbia1a": (113, 95, 140)}
    for name, (x, y, side) in boxes.items():
        box = Box(x / 360, y / 288, side / 360, side / 288)
        hops = read(data_dir / "grid_speakers" / f"{name}.mpg")
        heard = with_speech(hops, nobody).so_far
        found = speak(with_faces(hops, heard, partial(framed, box)))
        assert found.top >= 0.85, name
        assert found.best.note != MISFIT, name


def test_a_mouth_that_does_not_move_does_not_speak(clips: list[list[Hop]]) -> None:
    for hops in clips[:6]:
        said = with_speech(frozen(hops))
        found = speak(said)
        speech_ns = {at for one in said.so_far for at in one.outputs["speech"].at_ns.tolist()}
        assert found.top < 0.5
        assert {one.note for one in found.told()} == {STILL}
        aside = found.told("speech")
        assert aside
        assert {one.note for one in aside} == {STILL}
        assert {one.at_ns for one in aside} <= speech_ns


def test_of_two_faces_it_is_the_one_whose_mouth_moves(clip: list[Hop]) -> None:
    first = clip[0].frames[0].image.luma
    hops = redrawn(clip, lambda luma: np.hstack((first, luma)))
    left, right = Box(0.085, 0.02, 0.35, 0.7), Box(0.585, 0.02, 0.35, 0.7)
    found = speak(with_speech(hops, lambda hop: [seen(hop, left), seen(hop, right, track=2)]))
    assert found.top >= 0.85
    assert found.best.box == right
    assert {one.path for one in found.told()} == {Path(2)}
    assert STILL not in {one.note for one in found.told()}


def test_a_small_face_is_not_judged(clip: list[Hop]) -> None:
    hops = redrawn(frozen(clip), lambda luma: luma[::3, ::3].copy())
    found = speak(with_speech(hops))
    assert found.top == pytest.approx(0.9)
    assert {one.note for one in found.told()} == {None}
    assert all(one.fused["person_speaking"].offset_ns is None for one in found.scores if one.fused)


def test_it_waits_for_no_mouth_that_cannot_be_judged(clip: list[Hop]) -> None:
    """Two pictures a second say nothing of a mouth; no score is lost for that."""
    rare = [replace(hop, frames=hop.frames[:1] if hop.index % 2 == 0 else ()) for hop in clip]
    found = speak(with_speech(rare))
    assert found.top == pytest.approx(0.9)
    assert float(np.sum(found.values >= 0.5)) * WINDOW_NS > 0.7e9
    assert {one.note for one in found.told()} == {None}


# --- who is in sight ------------------------------------------------------------------------------


def test_a_person_needs_no_face(clip: list[Hop]) -> None:
    said = with_speech(clip, somebody)
    found = speak(said)
    speech = np.concatenate([one.outputs["speech"].values for one in said.so_far])
    late_enough = slice(25, None)
    assert found.values[late_enough] == pytest.approx(np.minimum(speech, 0.9)[late_enough])
    assert {one.note for one in found.told()} == {None}


def test_where_nobody_is_in_sight_that_is_told_with_the_speech(clip: list[Hop]) -> None:
    twice = with_sound(clip, np.tile(soundtrack(clip)[N_SECOND : 2 * N_SECOND], 3))
    said = with_speech(twice, nobody)
    found = speak(said)
    assert found.values.size
    assert found.top == 0
    aside = found.told("speech")
    assert {one.note for one in aside} == {ALONE}
    assert min(one.at_ns for one in aside) >= 2_000_000_000
    for one, known in zip(found.scores, said.so_far, strict=True):
        here = set(known.outputs["speech"].at_ns.tolist())
        assert {detection.at_ns for detection in one.detections} <= here
    assert speak(with_speech(twice, somebody)).told("speech") == []


def test_who_is_missed_in_one_look_is_still_there(clip: list[Hop]) -> None:
    def flickering(hop: Hop) -> Sequence[tuple[ObjectSeries, Detection]]:
        is_seen = hop.index % 6 not in (4, 5)
        series, place = seen(hop, score=0.9 if is_seen else 0.0)
        return [(series, place if is_seen else replace(place, label="other"))]

    steady = speak(with_speech(clip))
    found = speak(with_speech(clip, flickering))
    assert np.mean(found.values >= 0.5) == pytest.approx(np.mean(steady.values >= 0.5), abs=0.02)


def test_one_look_is_not_believed(clip: list[Hop]) -> None:
    found = speak(with_speech(clip, lambda hop: [seen(hop, score=0.9 * (hop.index in (4, 5)))]))
    assert found.values.size
    assert found.top == 0


def test_without_pictures_nothing_is_scored(clip: list[Hop]) -> None:
    found = speak(with_speech([replace(hop, frames=()) for hop in clip]))
    assert found.digest() == [(hop.index, {}, (), {}) for hop in clip]


def test_without_sound_nothing_is_scored(clip: list[Hop]) -> None:
    deaf = [replace(hop, heard=np.zeros_like(hop.heard)) for hop in clip]
    found = speak(with_speech(deaf))
    assert found.digest() == [(hop.index, {}, (), {}) for hop in clip]


@pytest.mark.parametrize("lost", ["pictures", "sound"])
def test_what_waits_for_a_mouth_is_told_when_pictures_or_sound_are_lost(
    said: Said, lost: str
) -> None:
    hops, so_far = [*said.hops], [*said.so_far]
    hop_ns, silence = hops[0].span.duration_ns, np.zeros(hops[0].samples.size, np.float32)
    for n in range(4, 16):
        span = Span(n * hop_ns, (n + 1) * hop_ns)
        hops[n:] = [Hop("cam", n, span, N_SECOND, silence, silence > 0, ())]
        so_far[n:] = [Scores("cam", n, span)]
        if lost == "pictures":
            at_ns = np.arange(span.start_ns, span.end_ns, WINDOW_NS)
            series = Series(at_ns, np.zeros(at_ns.size, np.float32))
            so_far[n:] = [Scores("cam", n, span, {"speech": series})]
        else:
            pictures = [replace(one, start_ns=span.start_ns) for one in hops[0].frames[:1]]
            hops[n] = replace(hops[n], frames=tuple(pictures))
    told = set(speak(Said(hops, so_far)).at_ns)
    assert set(speak(Said(hops[:4], so_far[:4])).at_ns) < told, "some had waited"
    assert {at for one in so_far[:4] for at in one.outputs["speech"].at_ns.tolist()} <= told


# --- how it says it -------------------------------------------------------------------------------


def test_it_says_what_it_rests_on(said: Said) -> None:
    settings_ = PersonSpeakingSettings()
    assert settings_.labels == (Label("person_speaking", "av", "speaking"),)
    assert pickle.loads(pickle.dumps(settings_)) == settings_  # noqa: S301 - our own bytes
    found = speak(said)
    strongest = [
        (float(one.outputs["person_speaking"].values.max()), one)
        for one in found.scores
        if one.outputs
    ]
    score, hop = max(strongest, key=lambda pair: pair[0])
    here = [d for d in hop.detections if d.score == pytest.approx(score) and d.box][:1]
    assert [(one.box, one.path, one.note) for one in here] == [(CLOSE_UP, Path(1), FITS)]
    heard = [d for d in hop.detections if d.modality == "audio" and d.at_ns == here[0].at_ns]
    assert [one.detector for one in heard] == ["speech"]
    fused = hop.fused["person_speaking"]
    assert (fused.audio, fused.video) == (1, 1)
    assert fused.offset_ns is not None


def test_each_instant_is_scored_once_and_in_order(said: Said) -> None:
    at_ns = speak(said).at_ns
    speech_ns = [at for one in said.so_far for at in one.outputs["speech"].at_ns.tolist()]
    assert at_ns == speech_ns[: len(at_ns)]
    assert len(speech_ns) - len(at_ns) < 1.3e9 / WINDOW_NS


def test_unsynced_it_is_silent_and_starts_anew(said: Said) -> None:
    apart = [replace(hop, synced=hop.index >= 2) for hop in said.hops]
    found = speak(Said(apart, said.so_far))
    fresh = speak(Said(said.hops[2:], said.so_far[2:]))
    assert [one.outputs for one in found.scores[:2]] == [{}, {}]
    assert found.digest()[2:] == fresh.digest()  # type: ignore[index] # it is a list


def test_a_gap_is_not_bridged(said: Said) -> None:
    hops = [replace(hop, gap_before=hop.index == 4) for hop in said.hops]
    found = speak(Said(hops, said.so_far))
    fresh = speak(Said(said.hops[4:], said.so_far[4:]))
    assert found.digest()[4:] == fresh.digest()  # type: ignore[index] # it is a list


def test_under_ingest_it_follows_and_says_nothing(said: Said) -> None:
    scorer = PersonSpeakingSettings().build("cpu")
    quiet = Said(said.hops[:4], said.so_far[:4])
    assert [one.outputs for one in speak(quiet, scorer, Load.INGEST).scores] == [{}] * 4
    rest = Said(said.hops[4:], said.so_far[4:])
    assert speak(rest, scorer).top > 0.9
    assert speak(rest, scorer, Load.STRETCHED).scores


def test_what_is_forgotten_leaves_no_trace(said: Said) -> None:
    scorer = PersonSpeakingSettings().build("cpu")
    first = speak(said, scorer).digest()
    scorer.forget("cam")
    assert speak(said, scorer).digest() == first


@settings(max_examples=8)
@given(cut=st.integers(1, 11))
def test_a_prefix_stays_as_it_was(said: Said, cut: int) -> None:
    whole = speak(said).digest()
    assert speak(Said(said.hops[:cut], said.so_far[:cut])).digest() == whole[:cut]  # type: ignore[index] # it is a list


@settings(max_examples=8)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12))
def test_sources_in_one_batch_do_not_mix(said: Said, sizes: list[int]) -> None:
    scorer = PersonSpeakingSettings().build("cpu")
    pairs = [
        (replace(hop, source=name), replace(known, source=name))
        for hop, known in zip(said.hops, said.so_far, strict=True)
        for name in ("cam", "porch")
    ]
    scores: list[Scores] = []
    for size in [*sizes, len(pairs)]:
        batch = pairs[len(scores) : len(scores) + size]
        scores += scorer.score([hop for hop, _ in batch], [k for _, k in batch], Load.FULL)
    alone = speak(said).digest()
    for name in ("cam", "porch"):
        assert Found([one for one in scores if one.source == name]).digest() == alone
