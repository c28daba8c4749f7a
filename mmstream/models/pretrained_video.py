"""Pictures -> tokens by an image network of the transformers library: one for each frame.

A pretrained one is given what its folder's own image processor makes of a frame: size, crop, mean
and standard deviation are those it was trained with. The ResNet that is trained here from random
weights takes frames as they are.
"""

# Before transformers imports a torchaudio that cannot:
import mmstream.features.audio  # noqa: F401 # isort: skip

from functools import partial

import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor, BaseImageProcessor, ResNetConfig, ResNetModel

from mmstream.models.pretrained import PretrainedVideo, ResNetSettings
from mmstream.models.pretrained_loading import (
    PREPROCESSORS,
    PretrainedEncoder,
    found,
    load,
    quiet,
    read_config,
)
from mmstream.models.tokens import Tokens
from mmstream.models.video import about_zero, check_images

_ALLOWED = (
    "encoder of images; allowed: ResNet, ConvNeXt V2, SigLIP 2 and such, "
    "with its preprocessor_config.json"
)


class PretrainedVideoEncoder(PretrainedEncoder):
    """Frames [b, t, c, h, w] -> Tokens [b, t, d]."""

    def __init__(self, settings: PretrainedVideo) -> None:
        """The network of the folder or hub repository.

        Raises:
            ScorerError: it cannot be had, or gives no vector for an image.
        """
        source = found(settings, *PREPROCESSORS)
        config = read_config(source)
        # torchvision, where it is installed, would round other than Pillow.
        read = partial(AutoImageProcessor.from_pretrained, backend="pil")
        processor = source.read(read, _ALLOWED)
        network = load(source, config, lambda model: model)
        try:
            with torch.no_grad(), quiet():
                black = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
                pooled = _pooled(network, processor, black)
        except Exception as error:  # the library raises no narrower one
            what = f"no {_ALLOWED}"
            raise source.refusal(what, error) from error
        if not pooled.isfinite().all():
            source.refuse("makes of a black image what is not finite: see its preprocessor")
        super().__init__(settings, network, n_features=pooled.shape[1])
        self.settings = settings.model_copy(update={"files": source.files})
        self._processor = processor

    def forward(self, images: Tensor, present: Tensor, at_secs: Tensor) -> Tokens:
        """One token for each frame.

        Args:
            images: [b, t, 1 or 3, h, w], u8 or floats in 0..1.
            present: [b, t] bool.
            at_secs: [b, t] f32, when each was captured.

        Raises:
            ScorerError: the shapes are others.
        """
        check_images(images, present, at_secs, n_channels=(1, 3))
        seen = images[present].expand(-1, 3, -1, -1)
        if seen.is_floating_point():
            seen = (seen * 255).round().clamp(0, 255).to(torch.uint8)
        values = torch.zeros(*present.shape, self.settings.n_dims, device=images.device)
        if len(seen):
            with self.learning():
                pooled = _pooled(self.network, self._processor, seen)
            values[present] = self.projection(pooled).to(values.dtype)
        return Tokens(values, present, at_secs)


class ResNetEncoder(nn.Module):
    """Frames [b, t, c, h, w] -> Tokens [b, t, d].

    Its batch norms take their statistics, in training, from the frames that are there; one alone
    may be too small to have any, and gets those of before.
    """

    def __init__(self, settings: ResNetSettings) -> None:
        """Random weights."""
        super().__init__()
        self.settings = settings
        widening = 4 if settings.block == "bottleneck" else 1  # of the last in each of its blocks
        self.network = ResNetModel(
            ResNetConfig(
                num_channels=settings.n_channels,
                embedding_size=settings.widths[0] // widening,
                hidden_sizes=settings.widths,
                depths=settings.n_blocks,
                layer_type=settings.block,
            )
        )
        self.projection = nn.Sequential(
            nn.Linear(settings.widths[-1], settings.n_dims), nn.LayerNorm(settings.n_dims)
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
        pixels = about_zero(images[present])
        values = torch.zeros(*present.shape, self.settings.n_dims, device=images.device)
        if len(pixels):
            self.network.train(self.training and len(pixels) > 1)
            pooled = self.network(pixels).pooler_output.flatten(1)
            values[present] = self.projection(pooled).to(values.dtype)
        return Tokens(values, present, at_secs)


def _pooled(network: nn.Module, processor: BaseImageProcessor, images: Tensor) -> Tensor:
    """Images [n, 3, h, w] u8 -> [n, features]."""
    pictures = list(images.permute(0, 2, 3, 1).cpu().numpy())
    inputs = processor(images=pictures, return_tensors="pt", input_data_format="channels_last")
    pooled: Tensor = network(**inputs.to(images.device)).pooler_output
    return pooled.flatten(1)
