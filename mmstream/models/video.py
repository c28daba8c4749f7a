"""Pictures -> tokens: one for each frame, from a small convolutional network.

A token is made of its frame and of `n_seen - 1` before it, so a stream encodes each frame once,
however many windows it is in. Before the first frame, and where one is not there, all is grey.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.models.tokens import MOST_DIMS, Tokens, blank

_MIDDLE, _SPREAD = 0.5, 0.25  # of pixels in 0..1, roughly
_GROUPS = 4
_MOST_MIXED = 16  # a side; beyond, most of the product would be with 0


class VideoSettings(Settings):
    """A small convolutional encoder of frames."""

    type: Literal["own"] = "own"
    n_channels: int = Field(default=1, ge=1, le=3)
    """1: luma; 3: red, green, blue."""
    n_dims: int = Field(default=128, ge=1, le=MOST_DIMS)
    """Numbers in a token."""
    widths: tuple[Annotated[int, Field(gt=0, le=MOST_DIMS, multiple_of=_GROUPS)], ...] = Field(
        default=(16, 32, 64), min_length=1
    )
    """Filters of each stage, multiples of 4; each stage halves the picture."""
    n_grid: int = Field(default=4, ge=1, le=64)
    """The last stage is averaged in n_grid x n_grid fields, so that where things are is kept."""
    n_seen: int = Field(default=1, ge=1, le=64)
    """Frames that a token is made of: its own and those before it, so that it knows of motion
    (after the first layer of LipNet, Assael et al. 2016)."""
    is_deep: bool = True
    """Two convolutions in a stage; one costs a quarter, and is enough for a mouth."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of numbers zeroed in training."""


class VideoEncoder(nn.Module):
    """Frames [b, t, c, h, w] -> Tokens [b, t, d]."""

    def __init__(self, settings: VideoSettings) -> None:
        """Random weights."""
        super().__init__()
        self.settings = settings
        ins = (settings.n_channels * settings.n_seen, *settings.widths)
        stage = _stage if settings.is_deep else _shallow_stage
        self.stages = nn.Sequential(
            *(stage(n_in, n_out) for n_in, n_out in pairwise(ins)),
            _Fields(settings.n_grid),
            nn.Flatten(),
            nn.Dropout(settings.dropout),
            nn.Linear(ins[-1] * settings.n_grid**2, settings.n_dims),
            nn.LayerNorm(settings.n_dims),
        )

    def forward(self, images: Tensor, present: Tensor, at_secs: Tensor) -> Tokens:
        """One token for each frame.

        Args:
            images: [b, t, c, h, w], u8 or floats in 0..1.
            present: [b, t] bool.
            at_secs: [b, t] f32, when each was captured.

        Raises:
            ScorerError: the shapes are others.
        """
        check_images(images, present, at_secs, n_channels=(self.settings.n_channels,))
        pixels = blank(about_zero(images), present)
        n_batch, n_frames = images.shape[:2]
        if n_batch * n_frames == 0:
            values = pixels.new_zeros(n_batch, n_frames, self.settings.n_dims)
        else:
            pixels = _with_earlier(pixels, self.settings.n_seen)
            values = self.stages(pixels.flatten(0, 1)).unflatten(0, (n_batch, n_frames))
        return Tokens(blank(values, present), present, at_secs)


class _Fields(nn.Module):
    """nn.AdaptiveAvgPool2d(n_grid), as one product where that is slow: fields that overlap."""

    def __init__(self, n_grid: int) -> None:
        super().__init__()
        self._n_grid = n_grid

    def forward(self, x: Tensor) -> Tensor:
        n_grid, (height, width) = self._n_grid, x.shape[2:]
        is_even = height % n_grid == 0 and width % n_grid == 0
        if is_even or x.is_cuda or max(height, width) > _MOST_MIXED:
            return adaptive_avg_pool2d(x, n_grid)
        shares = _shares(n_grid, height, width).to(x)
        fields: Tensor = x.flatten(2) @ shares
        return fields.reshape(*x.shape[:2], n_grid, n_grid)


@lru_cache(maxsize=16)
@torch.inference_mode(mode=False)
def _shares(n_grid: int, height: int, width: int) -> Tensor:
    """[height * width, n_grid ** 2]: how much of each field each place is."""
    places = torch.eye(height * width).reshape(-1, 1, height, width)
    return adaptive_avg_pool2d(places, n_grid).flatten(1)


def check_images(
    images: Tensor, present: Tensor, at_secs: Tensor, *, n_channels: tuple[int, ...]
) -> None:
    """Let pass pictures [b, t, c, h, w] of so many channels, with what belongs to each.

    Raises:
        ScorerError: the shapes are others.
    """
    if images.ndim != 5 or images.shape[2] not in n_channels:  # noqa: PLR2004 - [b, t, c, h, w]
        channels = " or ".join(map(str, n_channels))
        msg = f"the video encoder takes images [b, t, {channels}, h, w]: got {list(images.shape)}"
        raise ScorerError(msg)
    if not images.shape[:2] == present.shape == at_secs.shape:
        msg = (
            f"images {list(images.shape)} come with present [b, t] and at_secs [b, t]: "
            f"got {list(present.shape)} and {list(at_secs.shape)}"
        )
        raise ScorerError(msg)


def about_zero(images: Tensor) -> Tensor:
    """Pixels, u8 or floats of any width in 0..1 -> f32 in -2..2."""
    pixels = images.float() if images.is_floating_point() else images.float() / 255
    return (pixels - _MIDDLE) / _SPREAD


def _with_earlier(pixels: Tensor, n_seen: int) -> Tensor:
    """[b, t, c, h, w] -> [b, t, n_seen * c, h, w]: each frame's own channels are the last."""
    n_frames = pixels.shape[1]
    before = pixels.new_zeros(pixels.shape[0], n_seen - 1, *pixels.shape[2:])
    padded = torch.cat((before, pixels), dim=1)
    return torch.cat([padded[:, i : i + n_frames] for i in range(n_seen)], dim=2)


def _shallow_stage(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size=3, stride=2, padding=1),
        nn.GroupNorm(_GROUPS, n_out),
        nn.GELU(),
    )


def _stage(n_in: int, n_out: int) -> nn.Sequential:
    # Group norms, not batch norms: a frame's token must not depend on what is beside it.
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size=3, padding=1),
        nn.GroupNorm(_GROUPS, n_out),
        nn.GELU(),
        nn.Conv2d(n_out, n_out, kernel_size=3, stride=2, padding=1),
        nn.GroupNorm(_GROUPS, n_out),
        nn.GELU(),
    )
