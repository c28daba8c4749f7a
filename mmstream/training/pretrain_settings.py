"""What a pre-training is told: which recordings, which model, what it learns and for how long."""

from typing import Literal, Self

from pydantic import Field, model_validator

from mmstream.config import Settings
from mmstream.media import DEFAULT_RATE_HZ
from mmstream.models.avp import AvpSettings
from mmstream.training.manifest import ManifestSettings
from mmstream.training.pretraining import ObjectiveSettings
from mmstream.training.recordings import PictureSettings
from mmstream.training.scenes import TASK, SceneSettings
from mmstream.training.schedule import FitSettings
from mmstream.training.settings import ManifestData
from mmstream.yaml_tree import nearest


class PretrainSettings(Settings):
    """All of a pre-training."""

    data: ManifestData
    """Recordings; the task `sound` says what is heard in them."""
    unseen: ManifestSettings | None = None
    """More pairs to test on, of people who are not in `data`."""
    left_out: tuple[str, ...] = ()
    """Classes whose recordings are not trained on, so that they can be taught later."""
    model: AvpSettings
    scenes: SceneSettings = SceneSettings()
    objectives: ObjectiveSettings = ObjectiveSettings()
    optimise: FitSettings = FitSettings()
    """An epoch is a pass over the pairs, and `n_batch` are the pairs of a step."""
    judge_epochs: int = Field(default=5, ge=1)
    """From one judgement on the validation split to the next."""
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if self.scenes.secs < self.model.window_secs:
            msg = f"scenes.secs: at least model.window_secs, {self.model.window_secs}"
            raise ValueError(msg)
        margin, n_match = self.objectives.n_frames(self.model)
        fps = self.model.seen.fps
        if round(self.scenes.secs * fps) < 2 * margin + n_match:
            least = (2 * margin + n_match) / fps
            msg = f"scenes.secs: at least {least:g}, match_secs with shift_secs before and after it"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        known = self.data.tasks.get(TASK, ())
        if not known:
            msg = f"data.tasks.{TASK}: says what is heard in the recordings; it is missing"
            raise ValueError(msg)
        for name in self.left_out:
            if name not in known:
                hint = nearest(name, known) or ";"
                msg = f"left_out: no such {TASK} {name!r}{hint} allowed: {', '.join(known)}"
                raise ValueError(msg)
        if self.model.fusion.modalities != ("audio", "video"):
            msg = "model.fusion.modalities: [audio, video], in this order"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_kept(self) -> Self:
        kept, seen = self.data.keep, self.model.seen
        rate_hz = self.model.audio.front_end.rate_hz
        if kept.sound is None or kept.sound.log_mel is not None or rate_hz != DEFAULT_RATE_HZ:
            msg = f"data.keep.sound: {{}}, samples; and front_end.rate_hz: {DEFAULT_RATE_HZ}"
            raise ValueError(msg)
        if kept.pictures != PictureSettings(**dict(seen)):
            what = f"{{width: {seen.width}, height: {seen.height}, fps: {seen.fps}}}"
            msg = f"data.keep.pictures: must be as model.seen, {what}, luma of the whole picture"
            raise ValueError(msg)
        return self
