"""AVP: one model of sound and sight, pre-trained without labels, that hears events on the way.

    sound  -> audio encoder -> tokens --+-> fusion over a window -> embedding -> events
    frames -> video encoder -> tokens --+                              |
                  |                                                    `-> what belongs together
                  `-> which instants belong together (synchrony)

The encoders run once over a stream; whatever is said of a window is made of the tokens that lie in
it. How it is trained says `mmstream.training.pretraining`; CAV-MAE (Gong et al. 2023, "Contrastive
audio-visual masked autoencoder") is the model for the objectives.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmstream.config import Settings
from mmstream.media import Modality
from mmstream.models.audio import AudioEncoder, AudioSettings
from mmstream.models.fusion import AnyFusionSettings, Fused, build_fusion
from mmstream.models.heads import Classifier, ClassifierSettings
from mmstream.models.tokens import MOST_DIMS, Tokens
from mmstream.models.video import VideoEncoder, VideoSettings

TASK: Final = "avp"
"""What checkpoints of it say that they are for."""


class SeenSettings(Settings):
    """What the model sees of a frame."""

    width: int = Field(default=48, ge=8, le=1024)
    """Pixels across; the aspect is not kept."""
    height: int = Field(default=48, ge=8, le=1024)
    """Pixels down."""
    fps: int = Field(default=25, ge=1, le=120)
    """At most so many frames in a second: the first that starts in each 1 / fps."""


class AvpSettings(Settings):
    """A model of sound and sight."""

    audio: AudioSettings
    video: VideoSettings
    seen: SeenSettings = SeenSettings()
    fusion: AnyFusionSettings
    events: ClassifierSettings
    """What is heard, each label on its own (kind any)."""
    n_compared: int = Field(default=64, ge=2, le=MOST_DIMS)
    """Numbers in the vectors by which instants of sound and sight are compared."""
    window_secs: float = Field(default=2.0, gt=0, le=60)
    """How much of the past is fused at once."""
    n_background: int = Field(default=128, ge=1, le=MOST_DIMS)
    """Ordinary windows whose gists a checkpoint keeps."""
    thresholds: Mapping[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)
    """The probability at which each event is decided; 0.5 for those left out."""
    told: tuple[str, ...] = ()
    """The events that are good enough to be told without being asked for."""

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        unknown = {*self.told, *self.thresholds} - set(self.events.labels)
        if unknown:
            msg = f"told and thresholds are of events.labels: got {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if set(self.fusion.modalities) != {"audio", "video"}:
            msg = f"fusion.modalities: audio and video: got {', '.join(self.fusion.modalities)}"
            raise ValueError(msg)
        if self.video.n_channels != 1:
            msg = f"video.n_channels: frames are luma, 1: got {self.video.n_channels}"
            raise ValueError(msg)
        if self.events.kind != "any":
            msg = f"events.kind: labels do not exclude each other, any: got {self.events.kind}"
            raise ValueError(msg)
        sizes = {
            "audio": self.audio.n_dims,
            "video": self.video.n_dims,
            "fusion": self.fusion.n_dims,
            "events": self.events.n_dims,
        }
        if len(set(sizes.values())) > 1:
            got = ", ".join(f"{name} {n}" for name, n in sizes.items())
            msg = f"n_dims must be the same everywhere: got {got}"
            raise ValueError(msg)
        return self


class Avp(nn.Module):
    """Tokens of sound and sight, and what windows of them say."""

    background: Tensor
    """[n_background, 4d]: gists of windows that it was trained on (`mmstream.models.avp_moments`),
    of sound, of pictures and of both; what is taught later is told apart from them."""

    def __init__(self, settings: AvpSettings) -> None:
        """Random weights."""
        super().__init__()
        self.settings = settings
        n_dims, n_compared = settings.fusion.n_dims, settings.n_compared
        self.audio = AudioEncoder(settings.audio)
        self.video = VideoEncoder(settings.video)
        self.fusion = build_fusion(settings.fusion)
        self.events = Classifier(settings.events)
        self.heard_at = nn.Linear(n_dims, n_compared)
        self.seen_at = nn.Linear(n_dims, n_compared)
        self.register_buffer("background", torch.zeros(settings.n_background, 4 * n_dims))

    def fuse(self, tokens: Mapping[Modality, Tokens], end_secs: Tensor) -> Fused:
        """What the windows that end at `end_secs` [b] hold; a modality left out is absent.

        Raises:
            ScorerError: there are no tokens, or they do not fit.
        """
        fused: Fused = self.fusion(tokens, end_secs)
        return fused

    def probabilities(self, embedding: Tensor) -> Tensor:
        """Embeddings [b, d] -> how likely each event is, [b, n_labels] in 0..1."""
        return self.events.probabilities(self.events(embedding))

    def alike(self, audio: Tokens, video: Tokens, at_secs: Tensor) -> Tensor:
        """How well the sound of each example fits to the pictures of each, [b, b] in -1..1.

        The mean, over the instants `at_secs` [n], of the cosine between what is heard (rows) and
        what is seen (columns) then, each interpolated between the two tokens around the instant.
        Tokens must be present all along.
        """
        heard = _at(normalize(self.heard_at(audio.values), dim=-1), audio.at_secs, at_secs)
        seen = _at(normalize(self.seen_at(video.values), dim=-1), video.at_secs, at_secs)
        return heard.flatten(1) @ seen.flatten(1).T / len(at_secs)

    def synchrony(self, audio: Tokens, video: Tokens, offsets_secs: Tensor) -> Tensor:
        """How well what is heard so much after what is seen fits to it, [b, n_offsets] in -1..1.

        The mean, over the frames for which there is sound at every offset, of the cosine between
        the frame's vector and that of the sound at its instant plus the offset (after Chung and
        Zisserman 2016, "Out of time"); between two tokens of sound it is interpolated. 0 where
        nothing can be compared.

        Args:
            audio: [b, t, d], evenly spaced by `settings.audio.token_secs`.
            video: [b, f, d].
            offsets_secs: [n_offsets].
        """
        heard = normalize(self.heard_at(audio.blanked()), dim=-1)
        seen = normalize(self.seen_at(video.blanked()), dim=-1)
        alike = seen @ heard.transpose(1, 2)
        n_heard = alike.shape[2]
        if n_heard < 2 or alike.shape[1] == 0:  # noqa: PLR2004 - one before and one after
            return alike.new_zeros(alike.shape[0], len(offsets_secs))
        at = video.at_secs[..., None] + offsets_secs - audio.at_secs[:, :1, None]
        place = at / self.settings.audio.token_secs
        before = place.floor().long().clamp(0, n_heard - 2)
        share = (place - before).to(alike.dtype)
        inside = (place >= 0) & (place <= n_heard - 1)
        there = audio.present.unsqueeze(1).expand(alike.shape)
        inside &= there.gather(2, before) & there.gather(2, before + 1)
        fits = alike.gather(2, before) * (1 - share) + alike.gather(2, before + 1) * share
        counts = (inside.all(dim=2) & video.present)[..., None]
        summed = torch.where(counts, fits, torch.zeros((), device=fits.device)).sum(dim=1)
        out: Tensor = summed / counts.sum(dim=1).clamp(min=1)
        return out


def _at(values: Tensor, times_secs: Tensor, at_secs: Tensor) -> Tensor:
    """[b, t, n] at `times_secs` [b, t], rising -> [b, k, n] at `at_secs` [k], by straight lines."""
    wanted = at_secs.expand(len(values), -1).contiguous()
    after = torch.searchsorted(times_secs.contiguous(), wanted).clamp(1, values.shape[1] - 1)
    earlier, later = times_secs.gather(1, after - 1), times_secs.gather(1, after)
    share = ((wanted - earlier) / (later - earlier).clamp(min=1e-6)).clamp(0, 1)[..., None]
    index = after[..., None].expand(-1, -1, values.shape[2])
    return values.gather(1, index - 1) * (1 - share) + values.gather(1, index) * share
