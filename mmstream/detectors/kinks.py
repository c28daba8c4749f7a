r"""Kinks: where something that moves stops or turns back at once.

    height  \          .            what differs from the median of all pictures of a moment, as
             \       .   .          patches; each is followed, and its path is two straight lines
              \    .       .        of three pictures each: where they meet is the instant, to a
    floor  ____\_.__________        fraction of the time between two pictures

A peak of speed alone says little: in video that is sampled 10 to 60 times a second the picture in
which a ball hits the floor is the one in which it moved least. What tells an impact is how much
its velocity changes from one picture to the next (`jump`), that little of it goes on in the old
direction (`kept`), and that the path is smooth before and after (`roughness`): patches that only
flicker, lips, and leaves in the wind jump as far, but all the time. Of the demo's impacts that lie
six pictures apart the roughness was 0.01 to 0.08, of nearly all that speech, music and gunfire in
real clips coincide with 0.2 to 0.5, and of the rest the patch did not keep its size.

Where much of the picture differs at once (a cut, a shaken or panning camera, the light) nothing is
found.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from mmstream.media import NS_PER_SEC, Box, Bytes

N_LINE: Final = 3
"""Pictures on each side of a kink."""
MOST_AREA: Final = 0.35
"""Where more of a picture differs, the camera moved or the light changed: nothing can be told."""

_DIFFERENT: Final = 14
"""Levels of luma, in the mean of 3x3 pixels."""
_LEAST_AREA: Final = 0.0015
_MAX_PATCHES: Final = 6
_MAX_STEP: Final = 0.3
"""A patch goes no further from one picture to the next than so much of the shorter side."""
_MAX_GROWTH: Final = 2.0
"""Of a patch, from one picture to the next."""
_SAME_SIZE: Final = 1.5
"""What hits something keeps its size better than this over two lines; of those found in the demo
the worst was 1.33, of patches that merge, split or flicker in real clips the best 1.66."""
_BETWEEN: Final = 0.35
"""Lines may meet so far outside of the two pictures between them, in times between pictures."""

_TINY: Final = 1e-12
"""What stands still has some speed, so that it can be divided by."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kink:
    """Something that stopped or turned back."""

    at_ns: int
    jump: float
    """How much its velocity changed, shorter sides of the picture per second."""
    speed: float
    """That before, in the same unit."""
    kept: float
    """How much of that velocity is left, in its direction: 1 all, 0 stopped, -1 thrown back."""
    roughness: float
    """How far pictures lie from the lines, as part of what the jump makes from one to the next."""
    box: Box
    """Around it, as it turned."""


@dataclass(frozen=True, slots=True)
class Moves:
    """What went on in some consecutive pictures."""

    area: float
    """The part of the picture that differs, in the picture where it is largest."""
    kinks: tuple[Kink, ...]


@dataclass(frozen=True, slots=True)
class _Patch:
    """A connected place that differs, in one of the pictures."""

    picture: int
    middle: tuple[float, float]
    """Across and down, shorter sides of the picture, from the top left corner."""
    area: int
    box: Box


def moves(pictures: Sequence[Bytes], at_ns: Sequence[int], around: Sequence[Bytes]) -> Moves:
    """What moves in `pictures`, [h, w] each, at rising instants.

    `around`: some pictures from before to after them, [h, w] too; what moves lies somewhere else
    in most of them.
    """
    usual = _median(around)
    largest, seen = 0.0, []
    for number, picture in enumerate(pictures):
        different = cv2.boxFilter(cv2.absdiff(picture, usual), -1, (3, 3)) > _DIFFERENT
        area = float(np.count_nonzero(different)) / different.size
        largest = max(largest, area)
        if area > MOST_AREA:
            return Moves(largest, ())
        seen.append(_patches(different, number) if area >= _LEAST_AREA else [])
    at_secs = (np.array(at_ns, np.int64) - at_ns[0]) / NS_PER_SEC
    found = [kink for path in _paths(seen) for kink in _kinks(path, at_secs, at_ns[0])]
    return Moves(largest, tuple(found))


def _median(pictures: Sequence[Bytes]) -> Bytes:
    """[h, w], pixel by pixel, by a sorting network: 10 times as fast as `np.median`."""
    rows = list(pictures)
    for turn in range(len(rows)):
        for low in range(turn % 2, len(rows) - 1, 2):
            one, other = rows[low], rows[low + 1]
            rows[low], rows[low + 1] = np.minimum(one, other), np.maximum(one, other)
    return rows[len(rows) // 2]


def _patches(different: NDArray[np.bool_], picture: int) -> list[_Patch]:
    """The largest of them."""
    height, width = different.shape
    side = min(different.shape)
    _, _, statistics, middles = cv2.connectedComponentsWithStats(different.view(np.uint8))
    found = [
        _Patch(picture, (across, down), area, _box(edges, width, height))
        for (*edges, area), (across, down) in zip(
            statistics[1:].tolist(), (middles[1:] / side).tolist(), strict=True
        )
        if area >= _LEAST_AREA * different.size
    ]
    return sorted(found, key=lambda patch: -patch.area)[:_MAX_PATCHES]


def _box(edges: Sequence[int], width: int, height: int) -> Box:
    left, top, across, down = edges
    return Box(left / width, top / height, across / width, down / height)


def _paths(seen: Sequence[Sequence[_Patch]]) -> list[list[_Patch]]:
    """Patches that are the same thing in consecutive pictures: the nearest first."""
    ended: list[list[_Patch]] = []
    going: list[list[_Patch]] = []
    for patches in seen:
        distances = sorted(
            (_distance(path, patch), before, after)
            for before, path in enumerate(going)
            for after, patch in enumerate(patches)
        )
        follows: dict[int, int] = {}
        for distance, before, after in distances:
            if distance > _MAX_STEP:
                break
            if before not in follows and after not in follows.values():
                follows[before] = after
        ended += [path for before, path in enumerate(going) if before not in follows]
        new = [patches[after] for after in range(len(patches)) if after not in follows.values()]
        going = [[*going[before], patches[after]] for before, after in follows.items()]
        going += [[patch] for patch in new]
    return ended + going


def _distance(path: Sequence[_Patch], patch: _Patch) -> float:
    """From where it is, or would be if it went on; without end for what is of another size."""
    last = path[-1]
    if not 1 / _MAX_GROWTH < patch.area / last.area < _MAX_GROWTH:
        return float("inf")
    away = math.dist(patch.middle, last.middle)
    if len(path) > 1:
        (across, down), (across_before, down_before) = last.middle, path[-2].middle
        expected = 2 * across - across_before, 2 * down - down_before
        away = min(away, math.dist(patch.middle, expected))
    return away


def _kinks(path: Sequence[_Patch], at_secs: _Floats, first_ns: int) -> list[Kink]:
    if len(path) < 2 * N_LINE:
        return []
    secs = at_secs[path[0].picture : path[-1].picture + 1]
    lines = _lines(secs, np.array([patch.middle for patch in path]))
    before, after = lines.velocity[:-N_LINE], lines.velocity[N_LINE:]
    jump = after - before
    squared, speed = (jump**2).sum(axis=1) + _TINY, (before**2).sum(axis=1) + _TINY
    last, following = secs[N_LINE - 1 : -N_LINE], secs[N_LINE : len(secs) - N_LINE + 1]
    period = following - last
    meet = (jump * (lines.origin[:-N_LINE] - lines.origin[N_LINE:])).sum(axis=1) / squared
    missed = (lines.missed[:-N_LINE] + lines.missed[N_LINE:]) / 2
    rough = np.sqrt(missed / squared) / period
    kept = (after * before).sum(axis=1) / speed
    sizes = np.lib.stride_tricks.sliding_window_view([patch.area for patch in path], 2 * N_LINE)
    is_same = sizes.max(axis=1) <= _SAME_SIZE * sizes.min(axis=1)
    is_between = np.abs(meet - (last + following) / 2) <= (0.5 + _BETWEEN) * period
    return [
        Kink(
            first_ns + round(float(meet[at]) * NS_PER_SEC),
            math.sqrt(squared[at]),
            math.sqrt(speed[at]),
            float(kept[at]),
            float(rough[at]),
            path[at + N_LINE - 1].box,
        )
        for at in np.flatnonzero(is_same & is_between).tolist()
    ]


@dataclass(frozen=True, slots=True)
class _Lines:
    """The straight lines, walked evenly, that lie nearest to places in a row."""

    velocity: _Floats
    """[n, 2]"""
    origin: _Floats
    """[n, 2]: where they are at 0 s."""
    missed: _Floats
    """[n]: the means of squared distances from them."""


def _lines(secs: _Floats, places: _Floats) -> _Lines:
    """[t] and [t, 2] -> a line through each `N_LINE` in a row."""
    times = np.lib.stride_tricks.sliding_window_view(secs, N_LINE)
    rows = np.lib.stride_tricks.sliding_window_view(places, N_LINE, axis=0)  # [n, 2, N_LINE]
    at, middle = times.mean(axis=1, keepdims=True), rows.mean(axis=2)
    past = (times - at)[:, None, :]
    apart = rows - middle[:, :, None]
    velocity = (apart * past).sum(axis=2) / (past**2).sum(axis=2)
    missed = ((apart - velocity[:, :, None] * past) ** 2).sum(axis=1).mean(axis=1)
    return _Lines(velocity, middle - velocity * at, missed)
