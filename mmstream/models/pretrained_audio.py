"""Sound -> tokens by AST, Wav2Vec2 and its kin, or the encoder of Whisper.

Each is given what its folder's own feature extractor makes of the samples. Where its tokens stand
in time follows from the strides of its layers (samples of 16 kHz):

                token 0 is about   the next is    one pass takes
    AST             1400              1600        10.24 s  patches of 16 frames, every 10th
    Wav2Vec2         200               320        any      seven convolutions
    Whisper            0               320        30 s     every second frame, each around its time

Longer sound is given to AST and Whisper in passes, whose tokens follow each other evenly.
"""

# Before transformers imports a torchaudio that cannot:
import mmstream.features.audio  # noqa: F401 # isort: skip

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    HubertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    SequenceFeatureExtractor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from mmstream.errors import ScorerError
from mmstream.media import Floats
from mmstream.models.pretrained import PretrainedAudio
from mmstream.models.pretrained_loading import (
    PREPROCESSORS,
    PretrainedEncoder,
    Source,
    found,
    load,
    read_config,
)
from mmstream.models.tokens import Tokens, blank

_Wav2Vec2Like = Wav2Vec2Config | HubertConfig | WavLMConfig
_ALLOWED = (
    "encoder of sound; allowed: AST, HuBERT, Wav2Vec2, WavLM, Whisper, "
    "with its preprocessor_config.json"
)
_FRAMES_PER_SEC, _WINDOWS_PER_SEC = 100, 40  # of Kaldi's filterbanks: every 10 ms, 25 ms long


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where tokens stand, in samples."""

    n_hop: int
    """From the middle of one to that of the next."""
    n_middle: int
    """From the first sample to the middle of the first token."""
    n_after: int
    """That a token needs after its middle."""
    n_tokens: int | None = None
    """Of one pass; None: as many as there is sound."""
    n_samples: int | None = None
    """That one pass takes; None: any number."""

    def heard(self, present: Tensor) -> Tensor:
        """[b, n] bool -> [b, t]: whether all was heard that is nearest to each token."""
        n_tokens = (present.shape[1] - self.n_middle - self.n_after) // self.n_hop + 1
        middles = self.n_middle + self.n_hop * torch.arange(max(0, n_tokens), device=present.device)
        starts, ends = (middles - self.n_hop // 2).clamp(min=0), middles + self.n_after
        n_heard = nn.functional.pad(present.long().cumsum(dim=1), (1, 0))
        return n_heard[:, ends] - n_heard[:, starts] == ends - starts


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one pass gets."""

    row: int
    n_before: int
    """Tokens of the row that come before its own."""
    samples: Floats


class PretrainedAudioEncoder(PretrainedEncoder):
    """Samples -> Tokens."""

    def __init__(self, settings: PretrainedAudio) -> None:
        """The network of the folder or hub repository.

        Raises:
            ScorerError: it cannot be had, is of another kind, or for another rate.
        """
        source = found(settings, *PREPROCESSORS)
        config = read_config(source)
        extractor = source.read(AutoFeatureExtractor.from_pretrained, _ALLOWED)
        try:
            layout = _layout(source, config, extractor)
        except (ArithmeticError, LookupError, TypeError) as error:  # a stride of 0, no patch
            source.refuse(f"no {_ALLOWED}", error)
        if extractor.sampling_rate != settings.rate_hz:
            has = f"takes {extractor.sampling_rate} Hz"
            source.refuse(f"{has}: rate_hz must be that, got {settings.rate_hz}")
        network = load(source, config, _encoder_of)
        super().__init__(settings, network, n_features=config.hidden_size)
        self.settings = settings.model_copy(update={"files": source.files})
        self._config, self._extractor, self._layout = config, extractor, layout

    def forward(self, frames: Tensor, present: Tensor) -> Tokens:
        """The tokens of recordings, `at_secs` after their first sample.

        A token is present if all that is nearer to it than to others is. Samples that are not
        present are silence to the network.

        Args:
            frames: [b, n, 1] samples.
            present: [b, n] bool.

        Raises:
            ScorerError: the shapes are others.
        """
        if frames.ndim != 3 or frames.shape[2] != 1 or present.shape != frames.shape[:2]:  # noqa: PLR2004 - [b, n, 1]
            msg = (
                "the pretrained sound encoder takes frames [b, n, 1] and present [b, n]: "
                f"got {list(frames.shape)} and {list(present.shape)}"
            )
            raise ScorerError(msg)
        there = self._layout.heard(present)
        features = frames.new_zeros(*there.shape, self._config.hidden_size)
        for batch in self._batches(frames, present, there):
            for piece, encoded in zip(batch, self._encoded(batch), strict=True):
                own = features[piece.row, piece.n_before : piece.n_before + len(encoded)]
                own.copy_(encoded[: len(own)])
        middles = self._layout.n_middle + self._layout.n_hop * torch.arange(there.shape[1])
        at_secs = (middles / self.settings.rate_hz).to(frames.device).expand(there.shape)
        return Tokens(blank(self.projection(features), there), there, at_secs)

    def _batches(self, frames: Tensor, present: Tensor, there: Tensor) -> list[list[_Piece]]:
        """What can be given together: all, or for a network that cannot pad those of one length."""
        samples = blank(frames[..., 0], present).detach().float().cpu().numpy()
        layout = self._layout
        pieces: list[_Piece] = []
        for row, (heard, tokens) in enumerate(zip(present, there, strict=True)):
            if not tokens.any():
                continue
            n, n_tokens = (int(some.nonzero()[-1]) + 1 for some in (heard, tokens))
            for n_before in range(0, n_tokens, layout.n_tokens or n_tokens):
                start = n_before * layout.n_hop
                end = min(n, start + (layout.n_samples or n))
                pieces.append(_Piece(row, n_before, samples[row, start:end]))
        if layout.n_samples is not None:
            return [pieces] if pieces else []
        lengths = sorted({len(piece.samples) for piece in pieces})
        return [[piece for piece in pieces if len(piece.samples) == n] for n in lengths]

    def _encoded(self, pieces: list[_Piece]) -> Tensor:
        """[n, t, features]."""
        with torch.autocast("cpu", enabled=False):  # numpy has no bfloat16
            inputs = self._extractor(
                [np.ascontiguousarray(piece.samples) for piece in pieces],
                sampling_rate=self.settings.rate_hz,
                return_tensors="pt",
            )
        given = inputs[self._extractor.model_input_names[0]].to(self.projection[0].weight.device)
        with self.learning():
            states: Tensor = self.network(given).last_hidden_state
        if not isinstance(self._config, ASTConfig):
            return states
        # Behind two summaries the patches of the lowest bands, in time, then of the next.
        by_band = states[:, 2:].reshape(
            len(states), -1, self._layout.n_tokens or 1, states.shape[2]
        )
        return by_band.mean(dim=1)


def _layout(
    source: Source, config: PreTrainedConfig, extractor: SequenceFeatureExtractor
) -> _Layout:
    """Where tokens stand.

    Raises:
        ScorerError: it is another kind of network, or its extractor is for another one.
    """
    if isinstance(config, ASTConfig) and isinstance(extractor, ASTFeatureExtractor):
        fits = (extractor.max_length, extractor.num_mel_bins) == (
            config.max_length,
            config.num_mel_bins,
        )
        layout = _ast_layout(config, extractor)
    elif isinstance(config, WhisperConfig) and isinstance(extractor, WhisperFeatureExtractor):
        n_tokens, n_hop = config.max_source_positions, 2 * extractor.hop_length
        fits = (extractor.nb_max_frames, extractor.feature_size) == (
            2 * n_tokens,
            config.num_mel_bins,
        )
        layout = _Layout(n_hop, 0, n_hop // 2, n_tokens, n_tokens * n_hop)
    elif isinstance(config, _Wav2Vec2Like) and isinstance(extractor, Wav2Vec2FeatureExtractor):
        fits, layout = True, _wav2vec2_layout(config)
    else:
        has = f"{config.model_type} with a {type(extractor).__name__}"
        source.refuse(f"{has} is no {_ALLOWED}")
    if not fits:
        source.refuse("its feature extractor makes frames of another shape than it takes")
    return layout


def _ast_layout(config: ASTConfig, extractor: ASTFeatureExtractor) -> _Layout:
    rate_hz, n_patch = extractor.sampling_rate, _whole(config.patch_size)
    n_frame, n_window = rate_hz // _FRAMES_PER_SEC, rate_hz // _WINDOWS_PER_SEC
    n_hop = config.time_stride * n_frame
    return _Layout(
        n_hop=n_hop,
        n_middle=((n_patch - 1) * n_frame + n_window) // 2,
        n_after=n_hop // 2,
        n_tokens=(config.max_length - n_patch) // config.time_stride + 1,
        n_samples=config.max_length * n_frame,
    )


def _whole(number: int | Sequence[int]) -> int:
    return number if isinstance(number, int) else number[0]


def _wav2vec2_layout(config: _Wav2Vec2Like) -> _Layout:
    n_covered, n_hop = 1, 1
    for n_kernel, n_stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        n_covered += (n_kernel - 1) * n_hop
        n_hop *= n_stride
    return _Layout(n_hop=n_hop, n_middle=n_covered // 2, n_after=n_covered - n_covered // 2)


def _encoder_of(model: PreTrainedModel) -> nn.Module:
    if isinstance(model, WhisperModel):
        return model.encoder
    # Of Wav2Vec2: for its own training only, and many folders lack it.
    model.register_parameter("masked_spec_embed", None)
    return model
