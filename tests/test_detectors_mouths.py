from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmstream.codecs import image_from_array
from mmstream.detectors.mouths import MAX_LAG_NS, SETTLED_NS, WINDOW_NS, Ear, Mouth, Moves
from mmstream.media import NS_PER_SEC, Box, Bytes, Floats, Hop, Span, VideoFrame, ns_to_samples

RATE_HZ = 16_000
FPS = 25
FACE = Box(0.25, 0.1, 0.5, 0.6)
HEIGHT, WIDTH = 200, 240
SYLLABLES_HZ = (1.1, 2.7, 4.3)


def loudness(secs: NDArray[np.float64]) -> Floats:
    """0..1: syllables in no simple rhythm."""
    waves = [np.sin(2 * np.pi * hz * secs + 3 * n) for n, hz in enumerate(SYLLABLES_HZ)]
    return np.asarray(np.clip(np.mean(waves, axis=0) + 0.3, 0, 1), np.float32)


def voice(secs: float, *, late_secs: float = 0.0) -> Floats:
    """Noise as loud as `loudness` says."""
    at = np.arange(round(secs * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(0).normal(0, 0.3, at.size).astype(np.float32)
    return np.asarray(noise * loudness(at - late_secs), np.float32)


def cut(samples: Floats, hop_ms: int = 250, *, unheard: slice | None = None) -> list[Hop]:
    heard = np.ones(samples.size, np.bool_)
    if unheard is not None:
        heard[unheard] = False
    hops, hop_ns = [], hop_ms * 1_000_000
    for index in range(samples.size * NS_PER_SEC // RATE_HZ // hop_ns):
        span = Span(index * hop_ns, (index + 1) * hop_ns)
        here = slice(*(ns_to_samples(at, RATE_HZ) for at in (span.start_ns, span.end_ns)))
        hops.append(Hop("cam", index, span, RATE_HZ, samples[here].copy(), heard[here].copy(), ()))
    return hops


def listened(hops: Sequence[Hop]) -> Ear:
    ear = Ear()
    for hop in hops:
        ear.hear(hop)
    return ear


def talking(secs: float, *, sway_px: float = 0.0, is_mute: bool = False) -> list[VideoFrame]:
    """A textured face whose mouth flickers as loudly as `loudness` says."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(60, 140, (HEIGHT // 8 + 1, WIDTH // 8 + 1)).repeat(8, 0).repeat(8, 1)
    face = coarse[:HEIGHT, :WIDTH].astype(np.float32)
    frames = []
    for n in range(round(secs * FPS)):
        picture = face.copy()
        if not is_mute:
            open_ = float(loudness(np.array([n / FPS]))[0])
            picture[112:130, 95:145] += open_ * rng.normal(0, 40, (18, 50))
        picture = np.roll(picture, round(sway_px * np.sin(9 * n / FPS)), axis=1)
        luma: Bytes = np.clip(picture, 0, 255).astype(np.uint8)
        image = image_from_array(luma, "gray")
        frames.append(VideoFrame("cam", n * NS_PER_SEC // FPS, image))
    return frames


def watched(frames: Sequence[VideoFrame], boxes: Sequence[Box] = (FACE,)) -> Mouth:
    mouth = Mouth()
    for n, frame in enumerate(frames):
        mouth.see(frame, frames[n - 1] if n else None, boxes[n % len(boxes)])
    return mouth


def last(mouth: Mouth, at_secs: float = 3.0) -> Moves:
    moves = mouth.last(round(at_secs * NS_PER_SEC))
    assert moves is not None
    return moves


def level(moves: Moves) -> float:
    return moves.level((int(moves.at_ns[0]), int(moves.at_ns[-1])))


# --- the ear --------------------------------------------------------------------------------------


def test_the_envelope_follows_the_voice_and_not_the_bass() -> None:
    at = np.arange(3 * RATE_HZ, dtype=np.float32) / RATE_HZ
    bass = np.sin(2 * np.pi * 100 * at).astype(np.float32)
    envelope = listened(cut(voice(3) + bass)).envelope()
    secs = envelope.at_ns / NS_PER_SEC
    energy = np.exp(envelope.log_energy / 2)
    assert np.corrcoef(energy, loudness(secs))[0, 1] > 0.95
    assert np.all(np.diff(envelope.at_ns) == 20_000_000)


@settings(max_examples=15)
@given(hop_ms=st.sampled_from([50, 100, 130, 250, 500, 1000]))
def test_how_sound_is_cut_changes_nothing(hop_ms: int) -> None:
    samples = voice(2)
    one, other = (listened(cut(samples, size)).envelope() for size in (250, hop_ms))
    n_common = min(one.at_ns.size, other.at_ns.size)
    assert n_common >= 90
    assert one.at_ns[:n_common].tolist() == other.at_ns[:n_common].tolist()
    assert one.log_energy[:n_common] == pytest.approx(other.log_energy[:n_common], abs=1e-4)


def test_what_is_lost_is_missing_and_the_rest_stays_in_place() -> None:
    samples = voice(2)
    whole = listened(cut(samples)).envelope()
    holed = listened(cut(samples, unheard=slice(16_000, 16_100))).envelope()
    lost = np.isnan(holed.log_energy)
    assert (holed.at_ns[lost] / 1e6).tolist() == [1000, 1020]
    assert holed.log_energy[~lost].tolist() == whole.log_energy[~lost].tolist()
    hops = cut(samples)
    gap = listened([*hops[:3], *hops[5:]]).envelope()
    after = whole.at_ns > 1_250_000_000 + 20_000_000
    known = ~np.isnan(gap.log_energy)
    # A hole in the row would be interpolated: what came before it is forgotten.
    assert gap.at_ns[known].tolist() == whole.at_ns[after].tolist()
    assert gap.log_energy[known].tolist() == whole.log_energy[after].tolist()


def test_it_remembers_seconds_not_hours() -> None:
    samples = np.tile(voice(2), 10)
    assert listened(cut(samples)).envelope().at_ns.size < 250


# --- the mouth ------------------------------------------------------------------------------------


def test_a_mouth_moves_more_than_a_head_that_sways() -> None:
    talks, still = level(last(watched(talking(3)))), level(last(watched(talking(3, is_mute=True))))
    sways = level(last(watched(talking(3, sway_px=4, is_mute=True))))
    assert still == 0
    assert talks > 0.05
    assert sways < 0.8 * talks


def test_a_box_that_jumps_is_no_motion() -> None:
    shaken = [FACE, Box(0.26, 0.12, 0.5, 0.6), Box(0.25, 0.1, 0.52, 0.62)]
    assert level(last(watched(talking(3, is_mute=True), shaken))) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 90)])
def test_a_face_that_is_less_than_a_pixel_is_survived(size: tuple[int, int]) -> None:
    image = image_from_array(np.full(size, 90, np.uint8), "gray")
    frames = [VideoFrame("cam", n * NS_PER_SEC // FPS, image) for n in range(3 * FPS)]
    for box in (Box(0.5, 0.5, 0.5, 0.5), Box(1, 1, 0, 0), Box(0, 0, 1, 1), Box(0.9, 0.9, 0.1, 0.1)):
        assert level(last(watched(frames, [box]))) == 0


def test_too_little_says_nothing() -> None:
    assert watched(talking(1)).last(NS_PER_SEC) is None
    assert watched(talking(3)[::5]).last(3 * NS_PER_SEC) is None


def test_what_is_said_at_an_instant_does_not_change() -> None:
    mouth = watched(talking(2.5))
    before = last(mouth, 2.4)
    assert before.at_ns[-1] <= 2_400_000_000 - SETTLED_NS
    assert before.at_ns[-1] - before.at_ns[0] <= WINDOW_NS
    after = last(watched(talking(3)), 2.4)
    assert before.at_ns.tolist() == after.at_ns.tolist()
    assert before.motion.tolist() == after.motion.tolist()


def test_lost_pictures_are_not_bridged() -> None:
    frames = talking(3)
    mouth = Mouth()
    for n, frame in enumerate(frames):
        if not 30 <= n < 40:
            mouth.see(frame, frames[n - 1] if n and n != 40 else None, FACE)
    at_ms = [at / 1e6 for at in last(mouth).at_ns.tolist()]
    assert not [at for at in at_ms if 1160 < at < 1600]
    assert len(at_ms) > 30


# --- both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("late_ms", [-160, -100, 0, 60, 140])
def test_the_lag_is_found(late_ms: int) -> None:
    envelope = listened(cut(voice(3.5, late_secs=late_ms / 1000))).envelope()
    found = last(watched(talking(3))).agreement(envelope)
    assert found is not None
    assert found.r > 0.4
    assert abs(found.offset_ns / 1e6 - late_ms) <= 40
    assert abs(found.offset_ns) <= MAX_LAG_NS


def test_another_rhythm_does_not_agree() -> None:
    own = last(watched(talking(3))).agreement(listened(cut(voice(3.5))).envelope())
    other = last(watched(talking(3))).agreement(listened(cut(voice(3.5)[::-1].copy())).envelope())
    assert own is not None
    assert other is not None
    assert own.r - other.r > 0.3


def test_sound_that_was_lost_agrees_with_nothing() -> None:
    moves = last(watched(talking(3)))
    assert moves.agreement(Ear().envelope()) is None
    holed = listened(cut(voice(3.5), unheard=slice(20_000, 24_000))).envelope()
    assert moves.agreement(holed) is None
