"""The demo: a minute in a room where things fall, an alarm sounds and somebody speaks.

Between the acts is peace for 2.5 s or more: nothing moves and only the room's noise is heard.

     3 s   a ball falls in, bounces and rolls out; each impact is heard
     9 s   a smoke alarm, three times three beeps, and its lamp
    23 s   a crate falls in and slides out
    31 s   somebody walks in, says `SENTENCE` and walks out
    42 s   a ball; at 50 s two more, from both sides
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmstream.codecs import read_audio
from mmstream.media import NS_PER_SEC, Bytes, Floats, Span, secs_to_ns
from mmstream.sources.scenes import Colour, Mover, Scene, SceneFormat, Sound, fill, textured, tone

SENTENCE: Final = "The kettle is on the stove, please open the door."
"""What is said (scripts/make_sentence)."""
SENTENCE_FILE: Final = Path(__file__).with_name("sentence.flac")


@dataclass(frozen=True, slots=True)
class _Throw:
    """Something that falls in from above, bounces and leaves on the other side."""

    what: str
    at_secs: float
    colour: Colour
    size: float
    """Its height; the picture's is 1, here and in all heights of the flight."""
    across: float
    """How fast it goes to the right (below 0: to the left), picture widths per second."""
    restitution: float
    """Speed after an impact over the speed before it."""
    pitch_hz: float


_THROWS: Final = (
    _Throw("ball", 3, (236, 120, 30), 0.16, 0.31, 0.75, 320),
    _Throw("crate", 23, (40, 60, 130), 0.2, -0.35, 0.45, 140),
    _Throw("ball", 42, (180, 30, 40), 0.22, 0.28, 0.6, 220),
    _Throw("ball", 50, (20, 110, 60), 0.13, 0.33, 0.8, 420),
    _Throw("ball", 50.8, (236, 120, 30), 0.16, -0.31, 0.7, 320),
)
_GRAVITY: Final = 9.8 / 2.5
"""The picture is 2.5 m high."""
_FLOOR: Final = 0.88
"""Where things land, from the top."""
_ROLLS: Final = 0.3
"""Slower than this nothing bounces once more."""


class _Arc(NamedTuple):
    """A stretch of free flight."""

    at_secs: float
    """After the throw."""
    above: float
    """How high it is then, from the floor."""
    speed: float
    """Upward, then."""


def _flight(throw: _Throw) -> list[_Arc]:
    """The fall from above the picture, then one arc from each impact; the last one rolls."""
    secs = math.sqrt(2 * _FLOOR / _GRAVITY)
    arcs = [_Arc(0, _FLOOR, 0), _Arc(secs, 0, _GRAVITY * secs * throw.restitution)]
    while (speed := arcs[-1].speed) > _ROLLS:
        secs += 2 * speed / _GRAVITY
        arcs.append(_Arc(secs, 0, speed * throw.restitution))
    return arcs


def _thrown(
    throw: _Throw, look: SceneFormat, rng: np.random.Generator
) -> tuple[Mover, list[Sound]]:
    """It in flight, and the sounds it makes while it is in sight."""
    across = throw.across * rng.uniform(0.95, 1.05)
    width = throw.size * look.height / look.width
    start = 0.05 if across > 0 else 0.95 - width
    secs_in_sight = 0.95 / abs(across)
    arcs = _flight(throw)
    sprite = _sprite(throw, round(throw.size * look.height))

    def draw(canvas: Bytes, secs: float) -> None:
        arc = max(one for one in arcs if one.at_secs <= secs)
        flown = secs - arc.at_secs
        above = max(0.0, arc.above + arc.speed * flown - _GRAVITY * flown**2 / 2)
        top, left = _FLOOR - above - throw.size, start + across * secs
        _stamp(canvas, sprite, round(top * look.height), round(left * look.width))

    at_ns = secs_to_ns(throw.at_secs)
    mover = Mover(throw.what, (Span(at_ns, at_ns + secs_to_ns(secs_in_sight)),), draw)
    sounds = [
        Sound(
            "impact",
            at_ns + secs_to_ns(arc.at_secs),
            _impact(throw.restitution**n, throw.pitch_hz, look.rate_hz, rng),
        )
        for n, arc in enumerate(arcs[1:])
        if arc.at_secs < secs_in_sight - 0.3
    ]
    return mover, sounds


def _impact(strength: float, pitch_hz: float, rate_hz: int, rng: np.random.Generator) -> Floats:
    """[n] f32: 0.3 s of a struck bar's first three modes (1 : 2.76 : 5.4) and a burst of noise."""
    at_secs = np.arange(round(0.3 * rate_hz)) / rate_hz
    wave = rng.standard_normal(at_secs.size) * np.exp(-at_secs / 0.008) * 0.2
    for ratio, decay_secs in ((1.0, 0.1), (2.76, 0.06), (5.4, 0.03)):
        wave += np.sin(2 * np.pi * ratio * pitch_hz * at_secs) * np.exp(-at_secs / decay_secs)
    wave *= 0.7 * strength * np.linspace(1, 0, at_secs.size) / np.abs(wave).max()
    return np.asarray(wave, np.float32)


class _Sprite(NamedTuple):
    pixels: Bytes
    """[h, w, 3]"""
    mask: NDArray[np.bool_]
    """[h, w, 1]"""


def _sprite(throw: _Throw, size: int) -> _Sprite:
    """A ball lit from the upper left, or a crate with two planks."""
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    mask = np.ones((size, size), np.bool_)
    light = np.where(np.abs(y) < 1 / 3, 1.0, 0.8)
    if throw.what == "ball":
        mask = x**2 + y**2 <= 1
        light = 0.85 - 0.2 * (x + y)
    pixels = np.clip(light[:, :, None] * np.array(throw.colour), 2, 250).astype(np.uint8)
    return _Sprite(pixels, mask[:, :, None])


def _stamp(canvas: Bytes, sprite: _Sprite, top: int, left: int) -> None:
    """Paint a sprite as far as it lies on the canvas."""
    first_y, first_x = max(0, -top), max(0, -left)
    seen = np.s_[
        first_y : max(first_y, canvas.shape[0] - top),
        first_x : max(first_x, canvas.shape[1] - left),
    ]
    pixels, mask = sprite.pixels[seen], sprite.mask[seen]
    height, width = mask.shape[:2]
    onto = canvas[top + first_y :, left + first_x :][:height, :width]
    np.copyto(onto, pixels, where=mask)


_BODY: Final = (
    (0.14, 0.0, 0.30, 0.20, (60, 70, 130)),
    (0.44, 0.03, 0.22, 0.14, (50, 45, 45)),
    (0.0, 0.04, 0.15, 0.12, (205, 150, 115)),
    (0.0, 0.04, 0.04, 0.12, (50, 35, 30)),
)
"""Top, left, height, width and colour of the speaker's shirt, trousers, face and hair."""


def _speaker(look: SceneFormat, sentence: Floats, at_ns: int) -> tuple[Mover, Sound]:
    """Somebody walks in, says the sentence with mouth and hand, and walks out."""
    block = look.rate_hz // 50
    blocks = sentence[: sentence.size // block * block].reshape(-1, block)
    loudness = np.sqrt(np.mean(blocks**2, axis=1))
    loudness /= loudness.max()
    walk_secs, speaks_secs = 1.8, 2.1
    leaves_secs = speaks_secs + sentence.size / look.rate_hz + 0.3
    turns_secs = (0, walk_secs, leaves_secs, leaves_secs + walk_secs)

    def draw(canvas: Bytes, secs: float) -> None:
        walks = not walk_secs <= secs < leaves_secs
        left = float(np.interp(secs, turns_secs, (-0.26, 0.45, 0.45, -0.26)))
        top = 0.26 - 0.02 * walks * abs(math.sin(2 * math.pi * secs))
        said = math.floor((secs - speaks_secs) * look.rate_hz / block)
        voice = float(loudness[said]) if 0 <= said < loudness.size else 0.0
        mouth = (0.1, 0.075, 0.006 + 0.04 * voice, 0.05, (110, 20, 25))
        reach = 0.24 * (1 - voice)
        sleeve = (0.16, 0.18, 0.06 + reach, 0.07, (45, 52, 100))
        hand = (0.22 + reach, 0.18, 0.08, 0.08, (205, 150, 115))
        for down, right, height, width, colour in (*_BODY, mouth, sleeve, hand):
            size = (height * look.height, width * look.height)
            fill(canvas, (top + down) * look.height, (left + right) * look.height, size, colour)

    seen = Span(at_ns, at_ns + secs_to_ns(turns_secs[-1]))
    speech = Sound("speech", at_ns + secs_to_ns(speaks_secs), sentence)
    return Mover("figure", (seen,), draw), speech


def _alarm(look: SceneFormat, at_ns: int) -> tuple[Mover, list[Sound]]:
    """Three groups of the temporal-three signal (ISO 8201), and a lamp that blinks with it."""
    starts_ns = [
        at_ns + group * 4 * NS_PER_SEC + beep * NS_PER_SEC
        for group in range(3)
        for beep in range(3)
    ]

    def draw(canvas: Bytes, _secs: float) -> None:
        _lamp(canvas, look, (250, 30, 20))

    beep = tone(3100, 0.5, look.rate_hz, 0.25)
    lit = tuple(Span(start_ns, start_ns + NS_PER_SEC // 2) for start_ns in starts_ns)
    sounds = [Sound("alarm", start_ns, beep) for start_ns in starts_ns]
    return Mover("lamp", lit, draw, is_motion=False), sounds


def _lamp(canvas: Bytes, look: SceneFormat, colour: Colour) -> None:
    side = max(2.0, 0.02 * look.height)
    fill(canvas, 0.12 * look.height, 0.75 * look.width, (side, side), colour)


def _parlour(look: SceneFormat, rng: np.random.Generator) -> Bytes:
    """[h, w, 3]: a wall with a window and a lamp, a floor."""
    tint = np.ones((look.height, 1, 3)) * (1, 0.97, 0.9)
    tint[round((_FLOOR - 0.06) * look.height) :] = (0.62, 0.48, 0.36)
    parlour: Bytes = (textured(200, look, rng)[:, :, None] * tint).astype(np.uint8)
    frame, pane = 0.34 * look.height, 0.3 * look.height
    left = 0.5 * look.width
    fill(parlour, 0.1 * look.height, left, (frame, frame), (235, 235, 230))
    fill(parlour, 0.12 * look.height, left + 0.02 * look.height, (pane, pane), (150, 185, 215))
    _lamp(parlour, look, (110, 60, 55))
    return parlour


def demo(look: SceneFormat, rng: np.random.Generator) -> Scene:
    """The acts of a minute, with 2.5 s or more of peace between them."""
    thrown = [_thrown(throw, look, rng) for throw in _THROWS]
    lamp, beeps = _alarm(look, secs_to_ns(9))
    figure, speech = _speaker(look, read_audio(SENTENCE_FILE, look.rate_hz), secs_to_ns(31))
    movers = [lamp, figure, *(mover for mover, _ in thrown)]
    sounds = [*beeps, speech, *(sound for _, impacts in thrown for sound in impacts)]
    return Scene(_parlour(look, rng), look.rate_hz, movers, sounds, rng)
