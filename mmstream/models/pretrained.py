"""Encoders of the transformers library: which folder or hub repository, and what is made of it.

    video: {type: pretrained, weights: google/siglip2-base-patch16-224}
    audio: {type: pretrained, weights: /srv/models/ast, train: true}

What images and sound become before the network sees them follows the folder's own
preprocessor_config.json. Only settings are here: the library takes seconds to import.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator
from torch import Tensor

from mmstream.config import Settings
from mmstream.features.audio import Feature, StftSettings
from mmstream.models.tokens import MOST_DIMS, MOST_LAYERS, MOST_TOKENS


class PretrainedSettings(Settings):
    """What all pretrained encoders have."""

    type: Literal["pretrained"] = "pretrained"
    weights: str = Field(min_length=1)
    """A folder as `save_pretrained` writes it, or the id of a repository of the hub. Only its
    safetensors are read, and none of its code."""
    n_dims: int = Field(default=128, ge=1, le=MOST_DIMS)
    """Numbers in a token, to which what the network gives is projected."""
    train: bool = False
    """Whether training changes the network's weights too, and not only the projection."""
    files: Mapping[str, JsonValue] | None = None
    """Its JSON files by name, which the encoder fills in for the checkpoint that is made of it:
    with them neither folder nor hub is looked at, and the weights come from the checkpoint."""


class SamplesFront(StftSettings):
    """The samples themselves, one in a frame: the encoder makes of them what its network wants."""

    type: Literal["samples"] = "samples"
    n_window: Literal[1] = 1
    n_hop: Literal[1] = 1
    n_fft: Literal[2] = 2

    @property
    def n_bands(self) -> int:
        """Numbers in a frame."""
        return 1

    def build(self) -> Feature:
        """What makes frames [..., n, 1] of samples [..., n]."""
        return _Samples(self)


class _Samples:
    def __init__(self, settings: StftSettings) -> None:
        self.settings = settings

    def __call__(self, samples: Tensor) -> Tensor:
        return samples[..., None]


class PretrainedAudio(PretrainedSettings):
    """AST, Wav2Vec2 (HuBERT and WavLM too), or the encoder of Whisper."""

    rate_hz: int = Field(default=16_000, gt=0)
    """Samples per second of the sound it gets; must be what the folder says."""

    @property
    def front_end(self) -> SamplesFront:
        """What a frame of sound is."""
        return SamplesFront(rate_hz=self.rate_hz)


class PretrainedVideo(PretrainedSettings):
    """ResNet, ConvNeXt V2, SigLIP 2, or another one that gives one vector for an image."""


class PretrainedText(PretrainedSettings):
    """BERT, or another one that gives one vector for each piece of a text."""

    n_longest: int = Field(default=64, ge=3, le=MOST_TOKENS)
    """Pieces in a text, at most, with those that begin and end it."""
    words_only: bool = False
    """Only its word embeddings, which know nothing of each other."""


class ResNetSettings(Settings):
    """A residual network (He et al. 2016) with random weights, to be trained from the start."""

    type: Literal["resnet"] = "resnet"
    n_channels: int = Field(default=3, ge=1, le=3)
    """1: luma; 3: red, green, blue."""
    n_dims: int = Field(default=128, ge=1, le=MOST_DIMS)
    """Numbers in a token."""
    block: Literal["basic", "bottleneck"] = "basic"
    """basic: two 3x3 convolutions, as in ResNet-18 and -34; bottleneck: as in ResNet-50."""
    widths: tuple[Annotated[int, Field(ge=4, le=MOST_DIMS, multiple_of=4)], ...] = Field(
        default=(64, 128, 256, 512), min_length=1
    )
    """Filters of each stage; each but the first halves the picture, the stem quarters it."""
    n_blocks: tuple[Annotated[int, Field(ge=1, le=MOST_LAYERS)], ...] = Field(
        default=(2, 2, 2, 2), min_length=1
    )
    """Blocks of each stage; (2, 2, 2, 2) with basic blocks is ResNet-18."""

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if len(self.widths) != len(self.n_blocks):
            msg = (
                "widths and n_blocks are of the same stages: "
                f"got {len(self.widths)} and {len(self.n_blocks)}"
            )
            raise ValueError(msg)
        return self
