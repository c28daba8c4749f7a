"""A camera and its sound whose clocks drift and jump, and what a network makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from mmstream.media import NS_PER_SEC

FPS: Final = 25
START_NS: Final = 5_000 * NS_PER_SEC
"""Our clock at instant 0."""

Doubles = NDArray[np.float64]
Link = Literal["microphone", "two clocks", "one clock"]
"""The sound is a microphone's; the camera's, before RTCP says how its two clocks lie; after."""
Trouble = Literal["restart", "freeze", "gap", "ahead", "sound", "back", "jitter", "wrap", "step"]
"""What happens, one each minute: stamps start anew at 0; nothing comes for 4 s, then all at once;
7 s are lost; stamps jump an hour ahead; 3 s of sound are lost (a microphone counts anew); stamps
jump back by 2 s; jitter is four times as much for 20 s; stamps wrap (32 bits of 90 kHz); stamps
jump ahead by 0.3 s. Besides, the camera's first 2 s come in a burst, and every other minute,
between these, a picture's stamp is wild."""

_TROUBLES: Final[tuple[Trouble, ...]] = (
    *("restart", "freeze", "gap", "ahead", "sound"),
    *("back", "jitter", "wrap", "step"),
)
_CAMERA: Final = tuple(trouble for trouble in _TROUBLES if trouble != "sound")
"""What happens to a camera's stamps."""
_LASTS_SECS: Final[dict[Trouble, float]] = {"freeze": 4, "gap": 7, "sound": 3, "jitter": 20}
_JUMPS_SECS: Final[dict[Trouble, float]] = {
    "ahead": 3600,
    "back": -2,
    "wrap": -(2**32) / 90_000,
    "step": 0.3,
}
_EVERY_SECS: Final = 60.0
_WILD_SECS: Final = 120.0
_BURST_SECS: Final = 2.0
_DELAY_SECS: Final = 0.005


@dataclass(frozen=True)
class Scenario:
    """One camera and its sound."""

    link: Link
    camera_ppm: float
    sound_ppm: float
    is_wifi: bool = False

    @property
    def frame_secs(self) -> float:
        """How long each piece of sound is."""
        return 0.06 if self.link == "microphone" else 0.064


@dataclass(frozen=True)
class Items:
    """What a device sends."""

    true_secs: Doubles
    """[n]: when each was captured."""
    stamps_ns: NDArray[np.int64]
    seen_ns: NDArray[np.int64]
    n_anew: NDArray[np.int64]
    """[n]: how often its stamps had jumped until then."""
    is_wild: NDArray[np.bool_]
    delay_secs: float

    def errors_ms(self, at_ns: NDArray[np.int64]) -> Doubles:
        """How far instants given to the items are from when they were captured."""
        return ((at_ns - START_NS) / 1e9 - self.true_secs - self.delay_secs) * 1e3

    def baseline_ms(self) -> Doubles:
        """The same for stamps at face value, from the first arrival after each jump."""
        _, firsts = np.unique(self.n_anew, return_index=True)
        first = firsts[self.n_anew]
        errors_ms = self.errors_ms(self.seen_ns[first] + self.stamps_ns - self.stamps_ns[first])
        errors_ms[self.is_wild] = 0.0
        return errors_ms


def sent(scenario: Scenario, secs: float, rng: np.random.Generator) -> tuple[Items, Items]:
    """Pictures and sound of `secs` of a scenario."""
    picture, sound = _pictures(scenario, secs, rng), _sound(scenario, secs, rng)
    _connect([picture] if scenario.link == "microphone" else [picture, sound])
    return picture, sound


def _pictures(scenario: Scenario, secs: float, rng: np.random.Generator) -> Items:
    true_secs = np.arange(-_BURST_SECS, secs, 1 / FPS)
    true_secs = true_secs[_is_sent(true_secs, ("gap",))]
    stamps, n_anew = _stamped(true_secs, scenario.camera_ppm, 1000.0, _CAMERA)
    wild = np.searchsorted(true_secs, np.arange(_EVERY_SECS / 2, secs, _WILD_SECS))
    stamps[wild] += rng.choice([-5000, -3, 4, 90_000], wild.size)
    items = _items(true_secs, stamps, n_anew, _arrivals(true_secs, rng, is_wifi=scenario.is_wifi))
    items.is_wild[wild] = True
    return items


def _sound(scenario: Scenario, secs: float, rng: np.random.Generator) -> Items:
    each_secs = scenario.frame_secs / (1 + scenario.sound_ppm * 1e-6)
    if scenario.link == "microphone":
        true_secs = np.arange(0, secs, each_secs)
        true_secs = true_secs[_is_sent(true_secs, ("sound",))]
        stamps, n_anew = _stamped(true_secs, scenario.sound_ppm, 0.0, ("sound",))
        seen = true_secs + rng.uniform(-0.005, 0.005, true_secs.size)
        seen += 0.05 * rng.choice([-1, 0, 1], seen.size, p=[0.002, 0.996, 0.002])
        return _items(true_secs, stamps, n_anew, seen, delay_secs=0.0)
    true_secs = np.arange(-_BURST_SECS, secs, each_secs)
    true_secs = true_secs[_is_sent(true_secs, ("gap", "sound"))]
    first_secs = 1000.0 if scenario.link == "one clock" else 7.0
    stamps, n_anew = _stamped(true_secs, scenario.sound_ppm, first_secs, _CAMERA)
    return _items(true_secs, stamps, n_anew, _arrivals(true_secs, rng, is_wifi=scenario.is_wifi))


def _items(
    true_secs: Doubles,
    stamps: Doubles,
    n_anew: NDArray[np.int64],
    seen: Doubles,
    *,
    delay_secs: float = _DELAY_SECS,
) -> Items:
    seen_ns = np.rint(seen * 1e9).astype(np.int64) + START_NS
    stamps_ns = np.rint(stamps * 1e9).astype(np.int64)
    is_wild = np.zeros(true_secs.size, np.bool_)
    return Items(true_secs, stamps_ns, seen_ns, n_anew, is_wild, delay_secs)


def _troubles(secs: float) -> list[tuple[Trouble, float]]:
    """What happens, and when."""
    n_troubles = int(secs // _EVERY_SECS)
    return [(_TROUBLES[i % len(_TROUBLES)], (i + 1) * _EVERY_SECS) for i in range(n_troubles)]


def _during(true_secs: Doubles, trouble: Trouble) -> NDArray[np.bool_]:
    is_during = np.zeros(true_secs.size, np.bool_)
    for found, begin_secs in _troubles(true_secs[-1]):
        if found == trouble:
            end_secs = begin_secs + _LASTS_SECS[trouble]
            is_during |= (true_secs >= begin_secs) & (true_secs < end_secs)
    return is_during


def _is_sent(true_secs: Doubles, losses: Sequence[Trouble]) -> NDArray[np.bool_]:
    is_sent = np.ones(true_secs.size, np.bool_)
    for trouble in losses:
        is_sent &= ~_during(true_secs, trouble)
    return is_sent


def _stamped(
    true_secs: Doubles, ppm: float, first_secs: float, troubles: Sequence[Trouble]
) -> tuple[Doubles, NDArray[np.int64]]:
    """Stamps in seconds by a clock that is fast by `ppm`, and how often it had jumped by then."""
    rate = 1 + ppm * 1e-6
    stamps = true_secs * rate + first_secs
    n_anew = np.zeros(true_secs.size, np.int64)
    ahead_secs = first_secs
    for trouble, begin_secs in _troubles(true_secs[-1]):
        jump_secs = _JUMPS_SECS.get(trouble)
        if trouble in {"restart", "sound"}:
            jump_secs = -(begin_secs + _LASTS_SECS.get(trouble, 0)) * rate - ahead_secs
        if trouble in troubles and jump_secs is not None:
            ahead_secs += jump_secs
            stamps[true_secs >= begin_secs] += jump_secs
            n_anew[true_secs >= begin_secs] += 1
    return stamps, n_anew


def _arrivals(true_secs: Doubles, rng: np.random.Generator, *, is_wifi: bool) -> Doubles:
    """[n] seconds: late, and after what held them up as fast as they can."""
    n_items = true_secs.size
    late = rng.exponential(0.04, n_items) if is_wifi else rng.gamma(2, 0.006, n_items)
    late[_during(true_secs, "jitter")] *= 4
    seen = np.maximum(true_secs + _DELAY_SECS + late, 0.05)
    for trouble, begin_secs in _troubles(true_secs[-1]):
        if trouble == "freeze":
            is_held = (seen >= begin_secs) & (seen < begin_secs + _LASTS_SECS[trouble])
            seen[is_held] = begin_secs + _LASTS_SECS[trouble]
    return seen


def _connect(streams: Sequence[Items]) -> None:
    """Streams that share a connection: what is late holds up all that follows."""
    order = np.argsort(np.concatenate([items.true_secs for items in streams]), kind="stable")
    seen_ns = np.concatenate([items.seen_ns for items in streams])
    seen_ns[order] = np.maximum.accumulate(seen_ns[order])
    at = 0
    for items in streams:
        items.seen_ns[:] = seen_ns[at : at + items.seen_ns.size]
        at += items.seen_ns.size
