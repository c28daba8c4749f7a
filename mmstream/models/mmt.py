"""The three-modality Transformer: encoders of sound, pictures and words, a fusion, and its heads.

    frames  -> audio --+             +-> classifier of each task
    images  -> video --+-> fusion ---+
    words   -> text  --+             +-> answer to a question, which looks at the fused tokens

A model of one or two modalities is one with fewer encoders; any modality may be missing from any
example, and is then as if it had never been given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Self

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.media import Modality
from mmstream.models.audio import AudioEncoder, AudioSettings
from mmstream.models.fusion import AnyFusionSettings, Fused, build_fusion
from mmstream.models.heads import Classifier, ClassifierSettings
from mmstream.models.pretrained import (
    PretrainedAudio,
    PretrainedText,
    PretrainedVideo,
    ResNetSettings,
)
from mmstream.models.question import QuestionHead, QuestionSettings
from mmstream.models.text import TextEncoder, TextSettings, WordIds
from mmstream.models.tokens import Tokens
from mmstream.models.video import VideoEncoder, VideoSettings

if TYPE_CHECKING:
    from mmstream.models.pretrained_audio import PretrainedAudioEncoder
    from mmstream.models.pretrained_text import PretrainedTextEncoder
    from mmstream.models.pretrained_video import PretrainedVideoEncoder, ResNetEncoder

ANSWER: Final = "answer"
"""The key of the question's logits; no task has this name."""
_NOBODY: Final[frozenset[Modality]] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """A batch of b examples. None: none of them has it.

    Raises:
        ScorerError: parts of one modality are missing, or the numbers of examples differ.
    """

    frames: Tensor | None = None
    """[b, t, f] floats, what the sound encoder's front end gives."""
    frames_present: Tensor | None = None
    """[b, t] bool."""
    images: Tensor | None = None
    """[b, t, c, h, w] u8, or floats in 0..1."""
    images_present: Tensor | None = None
    """[b, t] bool."""
    images_at_secs: Tensor | None = None
    """[b, t] f32: when each was captured, after the start of frame 0 of the sound."""
    words: WordIds | None = None
    """What is said or written: the modality `text`."""
    question: WordIds | None = None
    """What is asked about the others."""

    def __post_init__(self) -> None:
        sound = (self.frames, self.frames_present)
        sight = (self.images, self.images_present, self.images_at_secs)
        if any(len({part is None for part in parts}) > 1 for parts in (sound, sight)):
            msg = "frames come with frames_present; images with images_present and images_at_secs"
            raise ScorerError(msg)
        texts = [text.ids for text in (self.words, self.question) if text is not None]
        there = [part for part in (*sound, *sight) if part is not None]
        sizes = {len(part) for part in (*there, *texts)}
        if len(sizes) != 1:
            msg = f"inputs need one number of examples: got {sorted(sizes) or 'nothing'}"
            raise ScorerError(msg)

    @property
    def n_batch(self) -> int:
        """Examples."""
        texts = [text.ids for text in (self.words, self.question) if text is not None]
        return len(next(part for part in (self.frames, self.images, *texts) if part is not None))

    def to(self, device: torch.device) -> "Inputs":
        """The same on another device."""
        frames, frames_present, images, images_present, images_at_secs = (
            None if part is None else part.to(device)
            for part in (
                self.frames,
                self.frames_present,
                self.images,
                self.images_present,
                self.images_at_secs,
            )
        )
        return Inputs(
            frames=frames,
            frames_present=frames_present,
            images=images,
            images_present=images_present,
            images_at_secs=images_at_secs,
            words=_on(self.words, device),
            question=_on(self.question, device),
        )


def _own_unless_said(settings: object) -> object:
    """`type` may be left out of the settings of our own encoders."""
    if isinstance(settings, Mapping) and "type" not in settings:
        return {**settings, "type": "own"}
    return settings


_BY_TYPE: Final = (Field(discriminator="type"), BeforeValidator(_own_unless_said))
AnyAudioSettings = Annotated[AudioSettings | PretrainedAudio, *_BY_TYPE]
AnyVideoSettings = Annotated[VideoSettings | ResNetSettings | PretrainedVideo, *_BY_TYPE]
AnyTextSettings = Annotated[TextSettings | PretrainedText, *_BY_TYPE]


class MmtSettings(Settings):
    """A model of one to three modalities."""

    audio: AnyAudioSettings | None = None
    """The encoder of sound; None: it takes no sound."""
    video: AnyVideoSettings | None = None
    """The encoder of pictures; None: it takes none."""
    text: AnyTextSettings | None = None
    """The encoder of words; None: it takes none."""
    fusion: AnyFusionSettings
    """How they are brought together; its modalities are those that have an encoder."""
    heads: Mapping[str, ClassifierSettings] = Field(default_factory=dict)
    """What is told of every example, by task."""
    question: QuestionSettings | None = None
    """Questions about what is seen, heard and read; None: it takes none."""

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        given = {name for name in ("audio", "video", "text") if getattr(self, name) is not None}
        if given != set(self.fusion.modalities):
            msg = (
                "fusion.modalities are those with an encoder: "
                f"got {', '.join(self.fusion.modalities)} and encoders of "
                f"{', '.join(sorted(given)) or 'nothing'}"
            )
            raise ValueError(msg)
        if ANSWER in self.heads or not (self.heads or self.question):
            msg = f"heads: at least one, or a question; none is called {ANSWER!r}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        sizes = {"fusion": self.fusion.n_dims}
        sizes |= {f"heads.{task}": head.n_dims for task, head in self.heads.items()}
        encoders = {"audio": self.audio, "video": self.video, "text": self.text}
        sizes |= {name: part.n_dims for name, part in encoders.items() if part is not None}
        if self.question is not None:
            sizes["question.answers"] = self.question.answers.n_dims
        if len(set(sizes.values())) > 1:
            got = ", ".join(f"{name} {n}" for name, n in sizes.items())
            msg = f"n_dims must be the same everywhere: got {got}"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What a model gives."""

    logits: Mapping[str, Tensor]
    """[b, n_labels] by task; with a question those of its answers by `ANSWER`."""
    fused: Fused
    tokens: Mapping[Modality, Tokens]
    """Of each modality that the model has; with nothing present where it was hidden or lacked."""


class Mmt(nn.Module):
    """Inputs -> Outputs."""

    def __init__(self, settings: MmtSettings) -> None:
        """Random weights, but for pretrained encoders.

        Save `self.settings`, not `settings`: what describes a pretrained encoder is in them.

        Raises:
            ScorerError: a pretrained encoder cannot be had.
        """
        super().__init__()
        self.audio = None if settings.audio is None else _sound_encoder(settings.audio)
        self.video = None if settings.video is None else _picture_encoder(settings.video)
        self.text = None if settings.text is None else _word_encoder(settings.text)
        encoders = {"audio": self.audio, "video": self.video, "text": self.text}
        own = {name: part.settings for name, part in encoders.items() if part is not None}
        self.settings = settings.model_copy(update=own)
        self.fusion = build_fusion(settings.fusion)
        self.heads = nn.ModuleList(Classifier(head) for head in settings.heads.values())
        self.question = None if settings.question is None else QuestionHead(settings.question)

    def forward(self, inputs: Inputs, *, hidden: frozenset[Modality] = _NOBODY) -> Outputs:
        """Encode, then decide; the modalities in `hidden` are as if they were not in the inputs.

        Raises:
            ScorerError: the inputs have a modality or a question that the model does not take, or
                another shape.
        """
        return self.decide(self.encode(inputs, hidden=hidden), inputs.question)

    def encode(
        self, inputs: Inputs, *, hidden: frozenset[Modality] = _NOBODY
    ) -> dict[Modality, Tokens]:
        """The tokens of each modality that the model has.

        Raises:
            ScorerError: the inputs have a modality that the model does not take, or another shape.
        """
        self._check_taken(inputs, hidden)
        nothing = Tokens.absent(
            n_batch=inputs.n_batch,
            n_dims=self.settings.fusion.n_dims,
            device=self.fusion.modality.device,
        )
        tokens: dict[Modality, Tokens] = dict.fromkeys(self.settings.fusion.modalities, nothing)
        frames, there = inputs.frames, inputs.frames_present
        if self.audio and frames is not None and there is not None and "audio" not in hidden:
            tokens["audio"] = self.audio(frames, there)
        images, there, at_secs = inputs.images, inputs.images_present, inputs.images_at_secs
        if self.video and images is not None and "video" not in hidden:
            tokens["video"] = self.video(images, there, at_secs)
        if self.text and inputs.words is not None and "text" not in hidden:
            tokens["text"] = self.text(inputs.words)
        return tokens

    def decide(self, tokens: Mapping[Modality, Tokens], question: WordIds | None = None) -> Outputs:
        """What some or all of the tokens that `encode` gave say; the others are as if absent.

        Raises:
            ScorerError: there are no tokens, they do not fit, or the model takes no question.
        """
        fused: Fused = self.fusion(tokens)
        heads = zip(self.settings.heads, self.heads, strict=True)
        logits: dict[str, Tensor] = {task: head(fused.embedding) for task, head in heads}
        if question is not None:
            if self.question is None:
                msg = "the model takes no question: it was built without `question`"
                raise ScorerError(msg)
            logits[ANSWER] = self.question(question, fused)
        return Outputs(logits, fused, tokens)

    def _check_taken(self, inputs: Inputs, hidden: frozenset[Modality]) -> None:
        given: dict[Modality, bool] = {
            "audio": inputs.frames is not None,
            "video": inputs.images is not None,
            "text": inputs.words is not None,
        }
        taken = self.settings.fusion.modalities
        others = [name for name, there in given.items() if there and name not in {*taken, *hidden}]
        if others:
            msg = f"a model of {', '.join(taken)} got {', '.join(others)}"
            raise ScorerError(msg)


def rebuilt(settings: MmtSettings) -> Mmt:
    """The model that a checkpoint describes, before its weights are filled in.

    Raises:
        ScorerError: it only names a pretrained encoder, which would have to be looked for on this
            machine or on the hub.
    """
    for modality in settings.fusion.modalities:
        part = getattr(settings, modality)
        if part.type == "pretrained" and part.files is None:
            msg = f"{modality}: the checkpoint names {part.weights!r} and does not describe it"
            raise ScorerError(msg)
    return Mmt(settings)


# The library of pretrained encoders takes seconds to import, and most models have none.


def _sound_encoder(
    settings: AudioSettings | PretrainedAudio,
) -> "AudioEncoder | PretrainedAudioEncoder":
    if isinstance(settings, AudioSettings):
        return AudioEncoder(settings)
    from mmstream.models.pretrained_audio import PretrainedAudioEncoder  # noqa: PLC0415 - slow

    return PretrainedAudioEncoder(settings)


def _picture_encoder(
    settings: VideoSettings | ResNetSettings | PretrainedVideo,
) -> "VideoEncoder | ResNetEncoder | PretrainedVideoEncoder":
    if isinstance(settings, VideoSettings):
        return VideoEncoder(settings)
    from mmstream.models import pretrained_video  # noqa: PLC0415 - slow

    if isinstance(settings, ResNetSettings):
        return pretrained_video.ResNetEncoder(settings)
    return pretrained_video.PretrainedVideoEncoder(settings)


def _word_encoder(settings: TextSettings | PretrainedText) -> "TextEncoder | PretrainedTextEncoder":
    if isinstance(settings, TextSettings):
        return TextEncoder(settings)
    from mmstream.models.pretrained_text import PretrainedTextEncoder  # noqa: PLC0415 - slow

    return PretrainedTextEncoder(settings)


def _on(part: WordIds | None, device: torch.device) -> WordIds | None:
    return part and WordIds(part.ids.to(device), part.present.to(device))
