"""What is compared with what is normal, the moment, and with what was taught, the gist.

    moment  [fused, seen] / sqrt(2)     of length 1; without pictures `seen` is 0
    gist    [heard, seen]               each of length 1, or 0 without that sense

`fused` tells of 2 s, of which somebody who comes into the last quarter changes little. The moment's
`seen` is the mean of the last 5 tokens of pictures, of length 1: it is another at once.

A half of the gist is the mean of the tokens of a sense over the last second and their deviation,
each of length 1: what is fused knows only what it was trained to tell, and tells less of the rest.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmstream.media import Floats, Modality, secs_to_ns
from mmstream.models.avp_spec import GIST_SECS
from mmstream.models.avp_windows import Window

_N_SEEN: Final = 5
_FEWEST: Final = 2
"""Tokens; a single one has no deviation."""
_GIST_NS: Final = secs_to_ns(GIST_SECS)
_HALVES: Final[tuple[Modality, ...]] = ("audio", "video")


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


def half(values: Tensor) -> Tensor:
    """What the tokens of a sense are like: [..., t, d] -> [..., 2d] of length 1; t < 2: 0."""
    *rows, n_tokens, n_dims = values.shape
    if n_tokens < _FEWEST:
        return values.new_zeros(*rows, 2 * n_dims)
    deviation, mean = torch.std_mean(values.float(), dim=-2)
    parts = normalize(mean, dim=-1), normalize(deviation, dim=-1)
    return normalize(torch.cat(parts, dim=-1), dim=-1)


@torch.inference_mode()
def gists(windows: Sequence[Window]) -> Floats:
    """[n, 4d], n >= 1."""
    rows = [
        torch.cat([half(one.of(kind).since(one.end_ns - _GIST_NS).values) for kind in _HALVES])
        for one in windows
    ]
    return np.asarray(torch.stack(rows).float().cpu().numpy(), np.float32)


def only(of: Floats, modality: Modality) -> Floats:
    """Gists [n, 4d] without what the other sense says."""
    halves = of.reshape(len(of), len(_HALVES), of.shape[1] // len(_HALVES)).copy()
    halves[:, [kind != modality for kind in _HALVES]] = 0
    return halves.reshape(of.shape)
