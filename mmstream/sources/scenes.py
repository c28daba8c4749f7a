"""Scenes with known truth: what a synthetic source shows and sounds like at any instant.

A scene is a pure function of time, its format and its seed. Scene time starts at 0; each round of
60 s is like the one before, but for the camera's noise. Nothing moves or sounds in the first 3 s
of a round, so that detectors learn the background.

    flash_beep   a white rectangle and a 1 kHz tone, together for 0.5 s every 2.5 s
    shapes       a square that crosses the picture; a tone; then both at once
    demo         things that fall and bounce, a smoke alarm, somebody who says a sentence: see
                 `mmstream.sources.demo_scene`

Truth. `motion` and `presence`: something moves, or changes at once in a large part of the picture
(the demo's lamp is too small to count). `loud`: an impact, a beep or speech can be heard over the
room. `speech` and `alarm`: of these, what they say. Stretches of the same label and cause that are
less than 1 s apart (`alarm`: 2 s) are one. `impact`: something hits the floor and is heard; each
time by itself, said to last 0.1 s.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final, Literal

import numpy as np

from mmstream.media import (
    NS_PER_SEC,
    Box,
    Bytes,
    Floats,
    Span,
    ns_to_samples,
    samples_to_ns,
    secs_to_ns,
)

Colour = tuple[int, int, int]
TruthLabel = Literal["motion", "presence", "loud", "speech", "alarm", "impact"]

ROUND_SECS: Final = 60
"""After so many seconds a scene starts over."""
ROUND_NS: Final = ROUND_SECS * NS_PER_SEC

_IMPACT_NS: Final = NS_PER_SEC // 10
_MERGE_NS: Final = NS_PER_SEC
_ALARM_MERGE_NS: Final = 2 * NS_PER_SEC
"""An alarm pauses for longer between its groups."""
_ROOM_RMS: Final = 1e-3
"""The room at rest: -60 dBFS."""
_GRAIN_MARGIN: Final = 64  # squared: the 12 bits of the hash in `picture`
"""The camera's noise is kept so much larger than a picture, which sees a changing part of it."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Something that really happens in a scene."""

    label: TruthLabel
    span: Span
    """Scene time."""
    what: str
    """What does it, for people: flash, beep, square, tone, ball, figure, impact, alarm, speech."""


@dataclass(frozen=True, slots=True)
class SceneFormat:
    """How a scene is looked at and listened to."""

    width: int
    """Pixels across."""
    height: int
    """Pixels down."""
    rate_hz: int


@dataclass(frozen=True, slots=True)
class Sound:
    """Something that is heard from an instant of the round."""

    what: str
    at_ns: int
    samples: Floats


@dataclass(frozen=True, slots=True)
class Mover:
    """Something that is seen for one or more spans of the round."""

    what: str
    spans: tuple[Span, ...]
    draw: Callable[[Bytes, float], None]
    """Onto a canvas, as it is so many seconds after the start of its span. Colours keep to 2..250:
    the camera's noise comes on top."""
    is_motion: bool = True


class Scene:
    """Something to see and hear whose truth is known; the same arguments make the same scene."""

    def __init__(
        self,
        background: Bytes,
        rate_hz: int,
        movers: Sequence[Mover],
        sounds: Sequence[Sound],
        rng: np.random.Generator,
    ) -> None:
        """`background`: [h, w] or [h, w, 3], 2..250."""
        self._background = background
        self._movers = movers
        self._grain = _grain(background.shape, rng)
        self._round = _mixed(sounds, rate_hz, rng)
        seen = [(mover.what, span) for mover in movers if mover.is_motion for span in mover.spans]
        heard = [(sound.what, Span(sound.at_ns, _end_ns(sound, rate_hz))) for sound in sounds]
        hits = [sound.at_ns for sound in sounds if sound.what == "impact"]
        self._truth = [
            *_merged("motion", seen),
            *_merged("presence", seen),
            *_merged("loud", heard),
            *_merged("speech", [one for one in heard if one[0] == "speech"]),
            *_merged("alarm", [one for one in heard if one[0] == "alarm"], _ALARM_MERGE_NS),
            *(Truth("impact", Span(at_ns, at_ns + _IMPACT_NS), "impact") for at_ns in hits),
        ]

    def samples(self, start_index: int, n: int) -> Floats:
        """[n] f32: the samples `start_index` .. `start_index + n`, counted from scene time 0."""
        return self._round.take(np.arange(start_index, start_index + n), mode="wrap")

    def picture(self, at_ns: int) -> Bytes:
        """[h, w] or [h, w, 3] (RGB) u8: what the camera sees at that instant.

        Its noise is +-1 level, and so is the flicker of its brightness.
        """
        canvas = self._background.copy()
        for mover in self._movers:
            for span in mover.spans:
                if span.contains(at_ns % ROUND_NS):
                    mover.draw(canvas, (at_ns % ROUND_NS - span.start_ns) / NS_PER_SEC)
        # Knuth's multiplicative hash: neighbouring instants see unrelated parts of the noise.
        top, left = divmod(at_ns // 1000 * 2654435761 % 2**32 >> 20, _GRAIN_MARGIN)
        flicker = round(math.sin(2 * math.pi * 0.7 * at_ns / NS_PER_SEC))
        height, width = canvas.shape[:2]
        canvas += self._grain[1 + flicker][top : top + height, left : left + width]
        canvas -= 2
        return canvas

    def truth(self, until_ns: int) -> tuple[Truth, ...]:
        """What happens in [0, until_ns), by start; what is still going on then is cut off."""
        rounds = (
            Truth(
                one.label,
                Span(round_ns + one.span.start_ns, min(until_ns, round_ns + one.span.end_ns)),
                one.what,
            )
            for round_ns in range(0, until_ns, ROUND_NS)
            for one in self._truth
            if round_ns + one.span.start_ns < until_ns
        )
        return tuple(sorted(rounds, key=lambda one: one.span))


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Bytes, Bytes, Bytes]:
    """The camera's noise plus 2, for a flicker of -1, 0 and 1; larger than `shape`."""
    height, width = shape[0] + _GRAIN_MARGIN, shape[1] + _GRAIN_MARGIN
    noise = rng.integers(1, 4, (height, width, *(1 for _ in shape[2:])), dtype=np.uint8)
    noise = np.ascontiguousarray(np.broadcast_to(noise, (height, width, *shape[2:])))
    return noise - np.uint8(1), noise, noise + np.uint8(1)


def _mixed(sounds: Iterable[Sound], rate_hz: int, rng: np.random.Generator) -> Floats:
    """One round: the room's noise, which repeats without a seam, and all sounds."""
    n = ROUND_SECS * rate_hz
    falling = 1 / np.sqrt(1 + np.fft.rfftfreq(n, 1 / rate_hz) / 300)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * falling, n)
    mixed: Floats = (noise * (_ROOM_RMS / noise.std())).astype(np.float32)
    for sound in sounds:
        first = ns_to_samples(sound.at_ns, rate_hz)
        mixed[first : first + sound.samples.size] += sound.samples
    return mixed


def _end_ns(sound: Sound, rate_hz: int) -> int:
    return sound.at_ns + samples_to_ns(sound.samples.size, rate_hz)


def _merged(
    label: TruthLabel, stretches: Iterable[tuple[str, Span]], merge_ns: int = _MERGE_NS
) -> list[Truth]:
    """What and when as truths; those of the same cause that are nearly adjacent become one."""
    truths: list[Truth] = []
    for what, group in groupby(sorted(stretches), key=itemgetter(0)):
        spans: list[Span] = []
        for _, span in group:
            if spans and span.start_ns - spans[-1].end_ns < merge_ns:
                spans[-1] = Span(spans[-1].start_ns, max(spans[-1].end_ns, span.end_ns))
            else:
                spans.append(span)
        truths += [Truth(label, span, what) for span in spans]
    return truths


def tone(frequency_hz: float, secs: float, rate_hz: int, amplitude: float) -> Floats:
    """[n] f32: a sine that fades in and out within 5 ms."""
    at_secs = np.arange(round(secs * rate_hz)) / rate_hz
    fade = np.minimum(1, np.minimum(at_secs, secs - at_secs) / 0.005)
    wave = amplitude * fade * np.sin(2 * np.pi * frequency_hz * at_secs)
    return wave.astype(np.float32)


def textured(brightness: int, look: SceneFormat, rng: np.random.Generator) -> Bytes:
    """[h, w]: blotches of 8 pixels, +-6 levels around `brightness`."""
    coarse = rng.integers(-6, 7, (look.height // 8 + 1, look.width // 8 + 1))
    blotches = coarse.repeat(8, axis=0).repeat(8, axis=1)[: look.height, : look.width]
    return (brightness + blotches).astype(np.uint8)


def fill(
    canvas: Bytes, top: float, left: float, size: tuple[float, float], colour: Colour | int
) -> None:
    """Paint a rectangle of `size` = (height, width) pixels, as far as it lies on the canvas."""
    bottom, right = max(0, round(top + size[0])), max(0, round(left + size[1]))
    canvas[max(0, round(top)) : bottom, max(0, round(left)) : right] = colour


def flash_beep(look: SceneFormat, rng: np.random.Generator) -> Scene:
    """[h, w]: both begin at the same instants, 3 s, 5.5 s, 8 s ... 58 s of each round.

    The rectangle is a third of the picture wide and high; the tone peaks at -12 dBFS.
    """
    third = (look.height / 3, look.width / 3)
    spans = tuple(
        Span(at_ns, at_ns + NS_PER_SEC // 2)
        for at_ns in range(3 * NS_PER_SEC, ROUND_NS, 5 * NS_PER_SEC // 2)
    )

    def draw(canvas: Bytes, _secs: float) -> None:
        fill(canvas, *third, third, 235)

    beep = tone(1000, 0.5, look.rate_hz, 0.25)
    sounds = [Sound("beep", span.start_ns, beep) for span in spans]
    background = textured(100, look, rng)
    return Scene(background, look.rate_hz, [Mover("flash", spans, draw)], sounds, rng)


def shapes(look: SceneFormat, rng: np.random.Generator) -> Scene:
    """[h, w]: draws and sounds what `square_at` and `tone_at` say; the tone peaks at -12 dBFS."""

    def draw(canvas: Bytes, secs: float) -> None:
        box = _square_after(secs, look)
        size = (box.height * look.height, box.width * look.width)
        fill(canvas, box.y * look.height, box.x * look.width, size, 235)

    sounds = [
        Sound("tone", span.start_ns, tone(frequency_hz, 1.5, look.rate_hz, 0.25))
        for span, frequency_hz in _TONES
    ]
    background = textured(100, look, rng)
    return Scene(background, look.rate_hz, [Mover("square", _SQUARES, draw)], sounds, rng)


_SQUARES: Final = tuple(Span(secs_to_ns(at), secs_to_ns(at + 3)) for at in (3, 12, 23, 32, 43, 52))
_TONES: Final = tuple(
    (Span(secs_to_ns(at), secs_to_ns(at + 1.5)), frequency_hz)
    for at, frequency_hz in ((8, 440), (12, 440), (28, 1000), (32, 1000), (48, 2500), (52, 2500))
)


def square_at(at_ns: int, look: SceneFormat) -> Box | None:
    """Where the square of `shapes` is: it crosses from left to right in 3 s, now and then."""
    for span in _SQUARES:
        if span.contains(at_ns % ROUND_NS):
            return _square_after((at_ns % ROUND_NS - span.start_ns) / NS_PER_SEC, look)
    return None


def _square_after(secs: float, look: SceneFormat) -> Box:
    """A quarter of the picture high; what sticks out on the left or right is cut off."""
    width = look.height / look.width / 4
    left = secs / 3 * (1 + width) - width
    start, end = max(0.0, left), min(1.0, left + width)
    return Box(start, 3 / 8, max(0.0, end - start), 1 / 4)


def tone_at(at_ns: int) -> int | None:
    """The frequency in Hz that sounds in `shapes` at an instant: 440, then 1000, then 2500."""
    for span, frequency_hz in _TONES:
        if span.contains(at_ns % ROUND_NS):
            return frequency_hz
    return None
