"""The ear and the eye of AVP: the sound and pictures of hops, cut into what its encoders take.

    hop     |-------- 0.25 s --------|-------- 0.25 s --------|
    frames  | | | | | | | | | | | | | | | | | | | | | | | | | |   n_window - n_hop zeros go before
    chunks  [tok tok tok tok tok     ][tok tok tok tok tok    ]   encoded when it is full
    cells   |p |p |p |p |p |p |p |p |p |p |p |p |p |p |p |p |p|   one picture in each 1 / fps

Of hops that are as long as a chunk each gives exactly one. Hops may be of any other length too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmstream.features.audio import Feature, FeatureStream, StftSettings
from mmstream.features.video import small_luma
from mmstream.media import NS_PER_SEC, Floats, VideoFrame, samples_to_ns
from mmstream.models.audio import AudioSettings
from mmstream.models.avp import SeenSettings
from mmstream.models.video import about_zero

Instants = NDArray[np.int64]
Flags = NDArray[np.bool_]

_EARLY_NS: Final = NS_PER_SEC // 1_000
"""Containers round the instants of pictures to as much; as in `mmstream.training.recordings`."""


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """Full chunks of frames of sound, on the CPU."""

    frames: Tensor
    """[k, n_chunk * n_stack, n_bands]."""
    present: Tensor
    """[k, n_chunk * n_stack] bool: all samples of the frame were heard."""
    at_ns: Instants
    """[k, n_chunk]: the middle of what each token covers."""
    is_there: Flags
    """[k, n_chunk]: all frames of the token are present."""


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """Pictures with those before them, on the model's device."""

    stacks: Tensor
    """[n, n_seen, h, w]: each picture is the last of its stack; 0 where none came before."""
    at_ns: Instants
    """[n]"""


class Ear:
    """The sound of one source since it was last broken off."""

    def __init__(self, settings: AudioSettings, feature: Feature, start_ns: int) -> None:
        """Nothing was heard before `start_ns`."""
        front, self._settings = settings.front_end, settings
        n_before = front.n_window - front.n_hop
        self._stream = FeatureStream(feature)
        self._stream.push(np.zeros(n_before, np.float32))
        self._flags = np.ones(n_before, np.bool_)
        """Of the samples that the stream holds."""
        self._frames = torch.zeros(0, front.n_bands)
        self._present = np.zeros(0, np.bool_)
        self._n_token = settings.n_stack * front.n_hop
        middle = samples_to_ns(self._n_token - n_before, 2 * front.rate_hz)
        self._start_ns = start_ns + middle
        self._n_done = 0

    def hear(self, samples: Floats, heard: Flags) -> Sound:
        """Take the next samples [n], and which of them were heard; give the chunks they fill."""
        frames = torch.cat((self._frames, self._stream.push(samples)))
        present = np.concatenate((self._present, self._whole_frames(heard)))
        n_chunk = self._settings.n_chunk
        n_step = self._settings.n_stack * n_chunk
        n_chunks = len(frames) // n_step
        n_used = n_chunks * n_step
        self._frames, self._present = frames[n_used:].clone(), present[n_used:]
        present = present[:n_used].reshape(n_chunks, n_step)
        in_tokens = present.reshape(n_chunks, n_chunk, self._settings.n_stack)
        is_there: Flags = np.all(in_tokens, axis=2)
        return Sound(
            frames[:n_used].reshape(n_chunks, n_step, frames.shape[1]),
            torch.from_numpy(present),
            self._instants(n_chunks * n_chunk).reshape(n_chunks, n_chunk),
            is_there,
        )

    def _whole_frames(self, heard: Flags) -> Flags:
        """[n] -> [t]: of the frames that these samples complete, which were heard as a whole."""
        flags = np.concatenate((self._flags, heard))
        front: StftSettings = self._settings.front_end
        n_frames = front.n_frames(flags.size)
        self._flags = flags[n_frames * front.n_hop :].copy()
        n_lost = np.concatenate(([0], np.cumsum(~flags)))
        starts = np.arange(n_frames) * front.n_hop
        whole: Flags = n_lost[starts + front.n_window] == n_lost[starts]
        return whole

    def _instants(self, n_tokens: int) -> Instants:
        rate_hz = self._settings.front_end.rate_hz
        base_ns = self._start_ns + samples_to_ns(self._n_done * self._n_token, rate_hz)
        self._n_done += n_tokens
        since = np.arange(n_tokens, dtype=np.int64) * self._n_token
        at_ns: Instants = base_ns + (since * NS_PER_SEC + rate_hz // 2) // rate_hz
        return at_ns


class Eye:
    """The pictures of one source since it was last broken off."""

    def __init__(self, settings: SeenSettings, *, n_seen: int, device: torch.device) -> None:
        """Nothing was seen before."""
        self._settings = settings
        self._device = device
        self._n_seen = n_seen
        self._before = torch.zeros(n_seen - 1, settings.height, settings.width, device=device)
        self._cell: int | None = None

    def see(self, frames: Sequence[VideoFrame]) -> Sight:
        """Take the next pictures; give those that are first in their 1 / fps."""
        chosen = [frame for frame in frames if self._is_first(frame.start_ns)]
        seen = self._before
        if chosen:
            width, height = self._settings.width, self._settings.height
            small = [small_luma(frame.image, width=width, height=height) for frame in chosen]
            pictures = torch.from_numpy(np.stack(small)).to(self._device, non_blocking=True)
            seen = torch.cat((self._before, about_zero(pictures)))
        n_before = self._n_seen - 1
        self._before = seen[len(seen) - n_before :].clone()
        stacks = [seen[i : len(seen) - n_before + i] for i in range(self._n_seen)]
        at_ns = np.array([frame.start_ns for frame in chosen], np.int64)
        return Sight(torch.stack(stacks, dim=1), at_ns)

    def _is_first(self, at_ns: int) -> bool:
        cell = (at_ns + _EARLY_NS) * self._settings.fps // NS_PER_SEC
        if self._cell is not None and cell <= self._cell:
            return False
        self._cell = cell
        return True
