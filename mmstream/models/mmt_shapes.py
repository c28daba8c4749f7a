"""Sounds and pictures of several spans -> what the three-modality Transformer takes.

One way for both: training makes batches of examples with it, the stream batches of windows, and so
a span says live what it says in training.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmstream.features.audio import Feature
from mmstream.features.video import small_luma
from mmstream.media import NS_PER_SEC, Bytes, Floats, Image
from mmstream.models.mmt_spec import MmtPictures

_AT_ONCE: Final = 8
"""Sounds whose features are taken together: of 64 at once each takes up to 4 times as long."""
_EARLY_NS: Final = NS_PER_SEC // 1_000
"""Containers round the instants of pictures to as much."""


def sound_of(
    sounds: Sequence[Floats], heard: Sequence[NDArray[np.bool_]], feature: Feature
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Frames [b, t, f], and whether all of each was heard [b, t]; None: none has sound.

    Args:
        sounds: of each span [n] samples, or [t, f] frames that were made of them.
        heard: of each [n] or [t].
        feature: what makes frames of samples.
    """
    if not any(map(len, sounds)):
        return None, None
    whole, there = padded(sounds)
    there &= padded(heard)[0]
    if whole.ndim == 3:  # noqa: PLR2004 - frames already
        return whole, there
    frames = torch.cat([feature(part) for part in torch.split(whole, _AT_ONCE)])
    front = feature.settings
    if there.shape[1] < front.n_window:
        return frames, there[:, :0]
    return frames, there.unfold(1, front.n_window, front.n_hop).all(dim=2)


def sight_of(
    pictures: Sequence[Bytes], at_secs: Sequence[Floats]
) -> tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]:
    """Pictures [b, t, c, h, w], whether they are there, and when, s, [b, t]; None: none has any.

    Args:
        pictures: of each span [t, h, w, c].
        at_secs: of each [t]: when they started, from its start.
    """
    if not any(map(len, pictures)):
        return None, None, None
    whole, present = padded(pictures)
    return whole.permute(0, 1, 4, 2, 3), present, padded(at_secs)[0]


def padded(arrays: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """[b, n, ...] with zeros behind, and which of [b, n] are no padding; empty ones fit any."""
    like = next((array for array in arrays if len(array)), arrays[0])
    whole = np.zeros((len(arrays), len(max(arrays, key=len)), *like.shape[1:]), like.dtype)
    present = np.zeros(whole.shape[:2], np.bool_)
    for row, there, array in zip(whole, present, arrays, strict=True):
        if len(array):
            row[: len(array)] = array
            there[: len(array)] = True
    return torch.from_numpy(whole), torch.from_numpy(present)


def picture_of(image: Image, settings: MmtPictures) -> Bytes:
    """[height, width, 1 or 3], scaled down by averaging."""
    if settings.colour == "rgb":
        return image.rgb((settings.width, settings.height))
    return small_luma(image, width=settings.width, height=settings.height)[..., None]


def slot_of(since_ns: int, settings: MmtPictures) -> int:
    """In which 1 / fps of a span a picture starts, so long after the span; the first is kept."""
    return (since_ns + _EARLY_NS) * settings.fps // NS_PER_SEC
