"""Sound -> tokens: log-mel, MFCC or STFT frames, then a Transformer or a GRU that can stream.

    frames  | | | | | | | | | | | | | | | |     10 ms apart, from mmstream.features.audio
    stem    [tok 0  tok 1] [tok 2  tok 3]       n_stack frames each, convolved within a chunk
    body    [   chunk 0  ] [   chunk 1  ]       n_chunk tokens each

The stem's convolutions see nothing beyond the chunk, nor does what they are normalised by. A token
of the Transformer looks at all of its chunk and at the `n_context` tokens before the chunk (after
Chen et al. 2021, "Developing real-time streaming Transformer transducer", and Shi et al.
2021, "Emformer"): a chunk computed with the remembered keys and values of those
before it is what the whole recording under the same mask gives. Where a token stands, attention
knows by its distance only, so the tokens of a stream never depend on how long it has been running.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.features.audio import (
    Feature,
    LogMel,
    LogMelSettings,
    Mfcc,
    MfccSettings,
    Stft,
    StftSettings,
)
from mmstream.models.attention import check_heads
from mmstream.models.recurrent import (
    ChunkSettings,
    ChunkTransformer,
    GruSettings,
    RecurrentGru,
    StreamState,
)
from mmstream.models.tokens import MOST_DIMS, MOST_TOKENS, Tokens, blank

_STFT_FLOOR = 1e-6  # as LogMelSettings.floor
_GROUPS = 4


class LogMelFront(LogMelSettings):
    """Log-mel energies."""

    type: Literal["log_mel"] = "log_mel"

    @property
    def n_bands(self) -> int:
        """Numbers in a frame."""
        return self.n_mels

    def build(self) -> Feature:
        """What makes frames [..., t, n_bands] of samples [..., n]."""
        return LogMel(self)


class MfccFront(MfccSettings):
    """Cepstral coefficients."""

    type: Literal["mfcc"] = "mfcc"

    @property
    def n_bands(self) -> int:
        """Numbers in a frame."""
        return self.n_mfcc

    def build(self) -> Feature:
        """What makes frames [..., t, n_bands] of samples [..., n]."""
        return Mfcc(self)


class StftFront(StftSettings):
    """The logarithm of the power of every frequency: ln(max(|X|^2, 1e-6))."""

    type: Literal["stft"] = "stft"

    @property
    def n_bands(self) -> int:
        """Numbers in a frame."""
        return self.n_freqs

    def build(self) -> Feature:
        """What makes frames [..., t, n_bands] of samples [..., n]."""
        return _LogPower(self)


FrontEnd = Annotated[LogMelFront | MfccFront | StftFront, Field(discriminator="type")]


class _LogPower:
    def __init__(self, settings: StftSettings) -> None:
        self.settings = settings
        self._stft = Stft(settings)

    def __call__(self, samples: Tensor) -> Tensor:
        return self._stft(samples).abs().square().clamp(min=_STFT_FLOOR).log()


class AudioSettings(Settings):
    """An encoder of sound."""

    type: Literal["own"] = "own"
    front_end: FrontEnd = LogMelFront(n_mels=64)
    """What a frame of sound is."""
    n_stack: int = Field(default=4, ge=1, le=MOST_TOKENS)
    """Frames in a token; 4 are 40 ms."""
    n_dims: int = Field(default=128, ge=2, le=MOST_DIMS)
    """Numbers in a token."""
    widths: tuple[Annotated[int, Field(gt=0, le=MOST_DIMS, multiple_of=_GROUPS)], ...] = Field(
        default=(16, 32, 64, 128), min_length=1
    )
    """Filters of each stage of the stem, multiples of 4. A stage halves the bands; all but the
    first halve time too, while a token has frames to halve, and what is left is averaged."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of numbers zeroed in training."""
    body: Annotated[ChunkSettings | GruSettings, Field(discriminator="type")] = ChunkSettings()
    """What lets tokens know of each other."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if isinstance(self.body, ChunkSettings):
            check_heads(n_dims=self.n_dims, n_heads=self.body.n_heads)
        return self

    @property
    def n_chunk(self) -> int:
        """Tokens that the stem makes together; the GRU waits for none."""
        return self.body.n_chunk if isinstance(self.body, ChunkSettings) else 1

    @property
    def token_secs(self) -> float:
        """Time from one token to the next."""
        return self.n_stack * self.front_end.hop_secs


class _Stem(nn.Module):
    """Frames [b, t * n_stack, f] -> tokens [b, t, d]; each from the frames of its chunk."""

    def __init__(self, settings: AudioSettings) -> None:
        super().__init__()
        self._n_stack = settings.n_stack
        self._n_chunk = settings.n_chunk
        self.stages = nn.Sequential()
        n_left, n_bands = settings.n_stack, settings.front_end.n_bands
        for n_in, n_out in pairwise((1, *settings.widths)):
            halved = 2 if n_in > 1 and n_left % 2 == 0 else 1
            self.stages.append(_stage(n_in, n_out, halved))
            n_left, n_bands = n_left // halved, -(-n_bands // 2)
        self.average = nn.AvgPool2d((n_left, 1)) if n_left > 1 else nn.Identity()
        self.out = nn.Linear(settings.widths[-1] * n_bands, settings.n_dims)

    def forward(self, frames: Tensor) -> Tensor:
        n_batch, n_frames, n_bands = frames.shape
        n_tokens = n_frames // self._n_stack
        if n_batch * n_tokens == 0:
            return frames.new_zeros(n_batch, n_tokens, self.out.out_features)
        # A last chunk that is not full is filled up, in a stream as in a whole recording.
        n_chunks = -(-n_tokens // self._n_chunk)
        n_in_chunk = self._n_chunk * self._n_stack
        full = nn.functional.pad(frames, (0, 0, 0, n_chunks * n_in_chunk - n_frames))
        seen = self.stages(full.reshape(n_batch * n_chunks, 1, n_in_chunk, n_bands))
        tokens: Tensor = self.out(self.average(seen).transpose(1, 2).flatten(2))
        return tokens.reshape(n_batch, n_chunks * self._n_chunk, tokens.shape[2])[:, :n_tokens]


def _stage(n_in: int, n_out: int, halved: int) -> nn.Sequential:
    # Group norms, as in mmstream.models.video: a batch has clean and noisy, long and short sounds.
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size=3, stride=(halved, 2), padding=1),
        nn.GroupNorm(_GROUPS, n_out),
        nn.GELU(),
    )


class AudioEncoder(nn.Module):
    """Frames of sound -> Tokens, of a whole recording or step by step."""

    mean: Tensor
    std: Tensor

    def __init__(self, settings: AudioSettings) -> None:
        """Random weights."""
        super().__init__()
        self.settings = settings
        n_bands = settings.front_end.n_bands
        self.register_buffer("mean", torch.zeros(n_bands))
        self.register_buffer("std", torch.ones(n_bands))
        self.stem = _Stem(settings)
        body, n_dims, dropout = settings.body, settings.n_dims, settings.dropout
        self.body: ChunkTransformer | RecurrentGru = (
            ChunkTransformer(body, n_dims=n_dims, dropout=dropout)
            if isinstance(body, ChunkSettings)
            else RecurrentGru(body, n_dims=n_dims, dropout=dropout)
        )

    @torch.no_grad()
    def standardise(self, *, mean: Tensor, std: Tensor) -> None:
        """Set what frames are shifted and divided by: [n_bands] each, of the training frames."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=1e-3))  # a band that never sounds must not blow up

    def forward(self, frames: Tensor, present: Tensor) -> Tokens:
        """The tokens of whole recordings.

        Frames beyond the last full stack make no token. A token is present if all of its frames
        are; `at_secs` is the middle of what it covers, after the start of frame 0.

        Args:
            frames: [b, t, n_bands], from `settings.front_end.build()`.
            present: [b, t] bool.

        Raises:
            ScorerError: the shapes are others.
        """
        x, there = self._stacked(frames, present)
        return self._tokens(self.body(x, there), there)

    def step(self, frames: Tensor, present: Tensor, state: StreamState) -> "AudioStep":
        """The tokens of the next chunk of each of b streams.

        Args:
            frames: [b, n_chunk * n_stack, n_bands]; fewer, in whole stacks, only in the last step.
                The GRU takes any number of stacks.
            present: [b, ...] bool.
            state: what the step before left, or `empty_state`.

        Raises:
            ScorerError: the shapes are others.
        """
        x, there = self._stacked(frames, present)
        values, state = self.body.step(x, there, state)
        return AudioStep(self._tokens(values, there), state)

    def empty_state(self, n_batch: int) -> StreamState:
        """Before the first step of `n_batch` streams."""
        return self.body.empty_state(n_batch, device=self.mean.device)

    def _stacked(self, frames: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        n_bands, n_stack = self.settings.front_end.n_bands, self.settings.n_stack
        if frames.ndim != 3 or frames.shape[2] != n_bands or present.shape != frames.shape[:2]:  # noqa: PLR2004 - [b, t, n_bands]
            msg = (
                f"the audio encoder takes frames [b, t, {n_bands}] and present [b, t]: "
                f"got {list(frames.shape)} and {list(present.shape)}"
            )
            raise ScorerError(msg)
        n_tokens = frames.shape[1] // n_stack
        there = (
            present[:, : n_tokens * n_stack].reshape(frames.shape[0], n_tokens, n_stack).all(dim=2)
        )
        frames = (frames[:, : n_tokens * n_stack] - self.mean) / self.std
        # Of a token that is not there no other sees anything: it may be the end of a recording.
        frames = blank(frames, there.repeat_interleave(n_stack, dim=1))
        return blank(self.stem(frames), there), there

    def _tokens(self, values: Tensor, there: Tensor) -> Tokens:
        settings = self.settings
        covered_secs = settings.token_secs + (
            (settings.front_end.n_window - settings.front_end.n_hop) / settings.front_end.rate_hz
        )
        at_secs = torch.arange(values.shape[1], device=values.device) * settings.token_secs
        at_secs = (at_secs + covered_secs / 2).expand(values.shape[0], -1)
        return Tokens(blank(values, there), there, at_secs)


@dataclass(frozen=True, slots=True, eq=False)
class AudioStep:
    """What a step gives."""

    tokens: Tokens
    """[b, ...], `at_secs` after the start of the step's first frame."""
    state: StreamState
    """For the next step."""


class AudioStream:
    """The tokens of one unbroken stream of frames, pushed in pieces of any size.

    All pushes and the flush together give the tokens of the whole. After a gap begin another.
    """

    def __init__(self, encoder: AudioEncoder) -> None:
        """Begin before the first frame; the encoder may be shared and must be in eval mode."""
        settings = encoder.settings
        self._encoder = encoder
        self._state = encoder.empty_state(1)
        self._held = encoder.mean.new_empty(0, settings.front_end.n_bands)
        self._n_step = settings.n_stack * settings.n_chunk
        self._at_secs = 0.0

    def push(self, frames: Tensor) -> Tokens:
        """Take the next frames [n, n_bands]; give the tokens [1, t, d] that they settle, t >= 0."""
        held = torch.cat((self._held, frames))
        n_whole = held.shape[0] // self._n_step * self._n_step
        self._held = held[n_whole:].clone()  # a view would keep all of `held` alive
        return self._stepped(held[:n_whole])

    def flush(self) -> Tokens:
        """The tokens of the last, unfinished chunk; nothing may be pushed after it."""
        held, self._held = self._held, self._held[:0]
        return self._stepped(held)

    @torch.no_grad()
    def _stepped(self, frames: Tensor) -> Tokens:
        settings = self._encoder.settings
        parts = [Tokens.absent(n_batch=1, n_dims=settings.n_dims, device=frames.device)]
        for begin in range(0, frames.shape[0], self._n_step):
            piece = frames[begin : begin + self._n_step]
            present = torch.ones(1, piece.shape[0], dtype=torch.bool, device=piece.device)
            step = self._encoder.step(piece[None], present, self._state)
            self._state = step.state
            parts.append(step.tokens.shifted(self._at_secs))
            self._at_secs += step.tokens.values.shape[1] * settings.token_secs
        return Tokens.joined(parts)
