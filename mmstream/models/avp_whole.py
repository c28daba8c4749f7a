"""What AVP says of a recording that is there as a whole: what a stream of it must give, too.

Each unbroken stretch is encoded at once, under the same chunk masks, and each window is fused by
itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.nn.functional import normalize

from mmstream.features.audio import Feature
from mmstream.media import NS_PER_SEC, Bytes, Floats, Modality, secs_to_ns
from mmstream.models.avp import Avp
from mmstream.models.avp_senses import Flags, Instants
from mmstream.models.avp_windows import Said
from mmstream.models.tokens import Tokens

_NEVER_NS: Final = 2**62


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """A part of a recording in which nothing breaks off."""

    start_ns: int
    samples: Floats
    """[n], from the start on, at the model's rate; n = 0: it has no sound."""
    heard: Flags
    """[n]"""
    pictures: Bytes
    """[m, h, w], as `small_luma` makes them, of the model's size."""
    at_ns: Instants
    """[m], rising."""


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """The tokens of one modality of a stretch."""

    tokens: Tokens
    """[1, t, d]; their own times are not used."""
    at_ns: Instants
    """[t]"""
    known_ns: Instants
    """[t]: when all that it was made of is there; a window that ends before does not have it."""

    def within(self, start_ns: int, end_ns: int) -> Tokens:
        """Those of a window, timed from its end."""
        inside = (self.at_ns >= start_ns) & (self.at_ns < end_ns) & (self.known_ns <= end_ns)
        kept = torch.from_numpy(inside)
        at_secs = (self.at_ns[inside] - end_ns) / NS_PER_SEC
        return Tokens(
            self.tokens.values[:, kept],
            self.tokens.present[:, kept],
            torch.from_numpy(at_secs.astype(np.float32))[None],
        )


@torch.inference_mode()
def whole(model: Avp, stretches: Sequence[Stretch], ends_ns: Sequence[int]) -> Said:
    """What the windows that end then say; rows of NaN where there is nothing in a window.

    Args:
        model: in eval mode, on the CPU.
        stretches: at least one, in the order of time.
        ends_ns: at least one.
    """
    feature: Feature = model.settings.audio.front_end.build()
    heard = [_heard(model, feature, one) for one in stretches]
    seen = [_seen(model, one) for one in stretches]
    window_ns = secs_to_ns(model.settings.window_secs)
    rows = []
    for end_ns in ends_ns:
        parts: dict[Modality, Tokens] = {
            "audio": Tokens.joined([one.within(end_ns - window_ns, end_ns) for one in heard]),
            "video": Tokens.joined([one.within(end_ns - window_ns, end_ns) for one in seen]),
        }
        embedding = model.fuse(parts, torch.zeros(1)).embedding
        if not any(tokens.present.any() for tokens in parts.values()):
            embedding = torch.full_like(embedding, torch.nan)
        rows.append(embedding)
    embeddings = torch.cat(rows)
    return Said(normalize(embeddings, dim=-1).numpy(), model.events(embeddings).numpy())


def _heard(model: Avp, feature: Feature, stretch: Stretch) -> _Encoded:
    settings = model.settings.audio
    front = settings.front_end
    n_before = front.n_window - front.n_hop if stretch.samples.size else 0
    samples = np.concatenate((np.zeros(n_before, np.float32), stretch.samples))
    flags = torch.from_numpy(np.concatenate((np.ones(n_before, np.bool_), stretch.heard)))
    frames = feature(torch.from_numpy(samples)).reshape(1, -1, front.n_bands)
    present = torch.zeros(1, 0, dtype=torch.bool)
    if frames.shape[1]:
        present = flags.unfold(0, front.n_window, front.n_hop).all(dim=1)[None]
    tokens = model.audio(frames, present)
    numbers = np.arange(tokens.values.shape[1])
    n_token = settings.n_stack * front.n_hop
    chunk_ends = (numbers // settings.n_chunk + 1) * settings.n_chunk * n_token
    middles = numbers * n_token + (n_token - n_before) / 2
    to_ns = NS_PER_SEC / front.rate_hz
    known_ns = stretch.start_ns + np.rint(chunk_ends * to_ns).astype(np.int64)
    known_ns[chunk_ends > stretch.samples.size] = _NEVER_NS
    at_ns = stretch.start_ns + np.rint(middles * to_ns).astype(np.int64)
    return _Encoded(tokens, at_ns, known_ns)


def _seen(model: Avp, stretch: Stretch) -> _Encoded:
    images = torch.from_numpy(stretch.pictures)[None, :, None]
    present = torch.ones(1, len(stretch.at_ns), dtype=torch.bool)
    tokens = model.video(images, present, torch.zeros(present.shape))
    return _Encoded(tokens, stretch.at_ns, stretch.at_ns)
