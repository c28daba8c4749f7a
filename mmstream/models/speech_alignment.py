"""When a token was said: dynamic time warping over the decoder's attention to the sound.

As `whisper.timing` of the paper's repository (github.com/openai/whisper) does it: the attention of
chosen heads, made comparable between tokens, smoothed in time, averaged; then the cheapest way
through it on which neither token nor time goes back.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_MEDIAN: Final = 7
"""Frames that the median is taken over."""
_TINY: Final = 1e-9


def token_frames(attention: NDArray[np.float64]) -> NDArray[np.int64]:
    """[heads, n, t] of the softmax over all frames -> [n] the frame in which each token begins.

    They do not fall; the first is 0.
    """
    spread = attention.std(axis=1, keepdims=True) + _TINY
    normal = (attention - attention.mean(axis=1, keepdims=True)) / spread
    return _starts(-_smoothed(normal).mean(axis=0))


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    n_beside = _MEDIAN // 2
    if values.shape[-1] <= n_beside:
        return values
    padded = np.pad(values, [(0, 0), (0, 0), (n_beside, n_beside)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _MEDIAN, axis=-1)
    return np.asarray(np.median(windows, axis=-1))


def _starts(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """[n, t] -> where the cheapest monotone path from first to last cell enters each row."""
    n, t = cost.shape
    total = np.full((n + 1, t + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(2, n + t + 1):  # its cells rest on the two before it only
        i = np.arange(max(1, diagonal - t), min(n, diagonal - 1) + 1)
        j = diagonal - i
        before = np.minimum(total[i - 1, j - 1], np.minimum(total[i - 1, j], total[i, j - 1]))
        total[i, j] = cost[i - 1, j - 1] + before
    starts = np.zeros(n, dtype=np.int64)
    i, j = n, t
    while i > 0:
        starts[i - 1] = j - 1
        steps = (total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
        step = int(np.argmin(steps))
        i, j = i - (step in {0, 1}), j - (step in {0, 2})
    return starts
