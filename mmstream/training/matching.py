"""How well AVP knows what belongs together: offsets found, clips found by each other."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from mmstream.config import Settings
from mmstream.errors import ConfigError
from mmstream.media import DEFAULT_RATE_HZ
from mmstream.models.avp import Avp
from mmstream.models.tokens import Tokens
from mmstream.training.dataset import Example, ExampleDataset
from mmstream.training.scenes import features

SHIFT_STEP_SECS: Final = 0.04
"""A frame."""
N_SHIFTS: Final = 10
"""Frames that the sound may be early or late."""
MATCH_SECS: Final = 2.0
"""What an offset is found from."""
NEAR: Final = 1
"""An offset is found if it is wrong by at most so many frames."""
CHANCE: Final = (2 * NEAR + 1) / (2 * N_SHIFTS + 1)
"""Share of offsets that are found by guessing."""
_N_BATCH: Final = 32


class Matched(Settings):
    """What was found among `n` clips, each with its own sound and pictures."""

    n: int
    offset: float
    """Share of them whose sound and sight are found to be together, within one frame, among
    shifts of 0.4 s either way in steps of 0.04 s, from 2 s; chance is 3 in 21."""
    recall_1: float
    """Share of them whose pictures are the nearest of all to their sound, and the other way
    round: the mean of both; chance is 1 in n."""
    recall_5: float
    """... among the 5 nearest."""
    recall_10: float

    @property
    def beats_chance(self) -> bool:
        """Whether more offsets are found than by chance, by 3 standard errors of chance."""
        return self.offset > CHANCE + 3 * math.sqrt(CHANCE * (1 - CHANCE) / self.n)


@torch.no_grad()
def match(avp: Avp, examples: ExampleDataset) -> Matched:
    """Judge a model in eval mode; examples that are no pairs are left out.

    Raises:
        ConfigError: none has both.
    """
    pairs = pairs_of(examples, fps=avp.settings.seen.fps)
    if not pairs:
        msg = f"data: no example of the split has sound and pictures for {MATCH_SECS:g} s"
        raise ConfigError(msg)
    n_right = 0
    sounds, sights = [], []
    for start in range(0, len(pairs), _N_BATCH):
        sound, sight = encoded(avp, [examples[n] for n in pairs[start : start + _N_BATCH]])
        n_right += int((offsets(avp, sound, sight).abs() <= NEAR).sum())
        sounds.append(sound)
        sights.append(sight)
    alike = avp.alike(_cut_alike(sounds), _cut_alike(sights), instants(sights[0]))
    ranks = torch.cat((_ranks(alike), _ranks(alike.T)))
    recall = [float((ranks < k).float().mean()) for k in (1, 5, 10)]
    return Matched(
        n=len(pairs),
        offset=n_right / len(pairs),
        recall_1=recall[0],
        recall_5=recall[1],
        recall_10=recall[2],
    )


def pairs_of(examples: ExampleDataset, *, fps: int) -> list[int]:
    """The places of those with sound and pictures for as long as an offset is found from."""
    n_heard, n_seen = round(MATCH_SECS * DEFAULT_RATE_HZ), round(MATCH_SECS * fps)
    return [
        n
        for n in range(len(examples))
        if len(examples[n].sound) >= n_heard and len(examples[n].pictures) >= n_seen
    ]


def encoded(avp: Avp, batch: Sequence[Example]) -> tuple[Tokens, Tokens]:
    """The tokens of sound and sight of whole clips, as long as the shortest of the batch."""
    front = avp.settings.audio.front_end.build()
    n_samples = min(len(one.sound) for one in batch)
    n_frames = min(len(one.pictures) for one in batch)
    device = avp.background.device
    frames = features(front, [one.sound[:n_samples] for one in batch]).to(device)
    images = np.stack([one.pictures[:n_frames] for one in batch])
    at_secs = np.stack([one.at_secs[:n_frames] for one in batch])
    shown = torch.from_numpy(images).permute(0, 1, 4, 2, 3).to(device)
    return hear(avp, frames), see(avp, shown, torch.from_numpy(at_secs).to(device))


def hear(avp: Avp, frames: Tensor) -> Tokens:
    """Frames [b, t, f] from `features` -> tokens, timed from the first sample."""
    there = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
    front = avp.settings.audio.front_end
    tokens: Tokens = avp.audio(frames, there)
    return tokens.shifted(-(front.n_window - front.n_hop) / front.rate_hz)


def see(avp: Avp, images: Tensor, at_secs: Tensor) -> Tokens:
    """Frames [b, t, 1, h, w] -> tokens."""
    there = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
    tokens: Tokens = avp.video(images, there, at_secs)
    return tokens


def within(avp: Avp, tokens: Tokens, end_secs: float) -> Tokens:
    """Those of the window that ends there, of tokens that are timed alike in all rows."""
    start_secs = end_secs - avp.settings.window_secs
    inside = ((tokens.at_secs >= start_secs) & (tokens.at_secs < end_secs)).any(dim=0)
    return Tokens(tokens.values[:, inside], tokens.present[:, inside], tokens.at_secs[:, inside])


def instants(sight: Tokens) -> Tensor:
    """[n]: those at which clips are compared, `MATCH_SECS` in their middle."""
    n = round(MATCH_SECS / SHIFT_STEP_SECS)
    middle_secs = float(sight.at_secs.max()) / 2
    steps = torch.arange(n, device=sight.at_secs.device) - (n - 1) / 2
    return middle_secs + steps * SHIFT_STEP_SECS


def offsets(avp: Avp, sound: Tokens, sight: Tokens, *, late_secs: float = 0.0) -> Tensor:
    """[b]: by how many frames the sound seems later than it is, from 2 s in the clips' middle.

    `late_secs`: by how much it really is later than the clips have it; the result is against that.
    """
    n_seen = round(MATCH_SECS * avp.settings.seen.fps)
    start = (sight.values.shape[1] - n_seen) // 2
    part = Tokens(
        sight.values[:, start : start + n_seen],
        sight.present[:, start : start + n_seen],
        sight.at_secs[:, start : start + n_seen],
    )
    steps = torch.arange(-N_SHIFTS, N_SHIFTS + 1, device=sight.values.device)
    fits = avp.synchrony(sound.shifted(late_secs), part, steps * SHIFT_STEP_SECS)
    return steps[fits.argmax(dim=1)] - round(late_secs / SHIFT_STEP_SECS)


def _ranks(alike: Tensor) -> Tensor:
    """[n, n] -> [n]: how many others are nearer than one's own."""
    own = alike.diagonal()[:, None]
    return (alike > own).sum(dim=1)


def _cut_alike(parts: Sequence[Tokens]) -> Tokens:
    """Batches as one, as long as the shortest."""
    n = min(one.values.shape[1] for one in parts)
    return Tokens(
        torch.cat([one.values[:, :n] for one in parts]),
        torch.cat([one.present[:, :n] for one in parts]),
        torch.cat([one.at_secs[:, :n] for one in parts]),
    )
