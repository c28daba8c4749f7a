"""What is compared with what is normal: the window, and once more what is seen just now.

    [fused, seen] / sqrt(2)     of length 1; without pictures `seen` is 0

`fused` tells of 2 s, of which somebody who comes into the last quarter changes little. `seen` is
the mean of the last 5 tokens of pictures, of length 1: it is another at once.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch.nn.functional import normalize

from mmstream.media import Floats
from mmstream.models.avp_windows import Window

_N_SEEN: Final = 5


@torch.inference_mode()
def moments(windows: Sequence[Window], embeddings: Sequence[Floats]) -> Floats:
    """Of windows and what was fused of each, [d] of length 1: [n, 2d] of length 1, n >= 1."""
    means = [
        one.video.values[-_N_SEEN:].mean(dim=0)
        if one.has("video")
        else one.video.values.new_zeros(d)
        for one, d in zip(windows, map(len, embeddings), strict=True)
    ]
    seen = normalize(torch.stack(means).float(), dim=-1).cpu().numpy()
    both = np.concatenate((np.stack(embeddings), seen), axis=1)
    return np.asarray(both / np.linalg.norm(both, axis=1, keepdims=True), np.float32)
