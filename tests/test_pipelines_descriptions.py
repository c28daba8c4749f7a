"""A captioner's sentences, from its folder and a recording to the lines of a replay."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from captioner_folders import write_captioner
from media_factory import Video, write_media
from torch import Tensor

from mmstream.clock import SystemClock
from mmstream.detectors.masks import blackened
from mmstream.errors import ScorerError
from mmstream.media import Bytes, VideoFrame
from mmstream.models.captioner_settings import CaptionerSettings
from mmstream.models.pretrained_captioner import PretrainedCaptioner
from mmstream.pipelines import replay
from mmstream.pipelines.configuration import Configuration
from mmstream.sources.media import MediaFile, MediaSettings

_LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
_EMITTED = ("boot_id", "ts_emit", "latency_ms", "late")


def _scene(seed: int) -> Bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 5, 3), np.uint8)
    return np.kron(coarse, np.ones((32, 32, 1), np.uint8))


def _clip(folder: Path) -> MediaSettings:
    """Four scenes of 2 s; then only what is masked changes."""
    scenes = [_scene(seed) for seed in (0, 1, 4, 7)]  # whose sentences differ
    last = scenes[-1].copy()
    last[:, :80] = 255 - last[:, :80]
    pictures = [one for scene in (*scenes, last) for one in [scene] * 20]
    path = write_media(folder / "clip.mp4", Video(pictures, fps=10))
    return MediaSettings(url=str(path), pace="max")


def _recipe(media: MediaSettings, weights: Path) -> Configuration:
    off = dict.fromkeys(("presence", "person", "face", "loud", "speech", "alarm"), False)
    off |= dict.fromkeys(("condition", "person_speaking", "impact", "avp"), False)
    captioner = {"weights": str(weights), "max_words": 6}
    descriptions = {"captioner": captioner, "every_secs": 60, "width": 80}
    return Configuration.model_validate(
        {
            "node": "node",
            "sources": {"clip": media},
            "detectors": {**off, "motion": {"masks": {"clip": [_LEFT]}}},
            "captions": {"speech": False, "sounds": False, "descriptions": descriptions},
        }
    )


def _replayed(recipe: Configuration, media: MediaSettings, lines: Path) -> list[str]:
    """The lines, without what is of the emission."""
    assert not asyncio.run(replay.run(recipe, media, str(lines), SystemClock()))
    told = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    return [json.dumps({k: one[k] for k in one if k not in _EMITTED}) for one in told]


def test_each_scene_has_its_sentence_at_its_instant_and_what_is_masked_has_none(
    tmp_path: Path,
) -> None:
    media, weights = _clip(tmp_path), write_captioner(tmp_path / "git", "git")
    recipe = _recipe(media, weights)
    lines = _replayed(recipe, media, tmp_path / "one.jsonl")
    assert _replayed(recipe, media, tmp_path / "two.jsonl") == lines
    finals = [one for one in map(json.loads, lines) if one["topic"].endswith("/caption/final")]
    assert {one["kind"] for one in finals} == {"scene"}
    told = {one["t_start"]: one["text"] for one in finals}
    assert list(told) == [0, 2.5, 4.5, 6.5]  # half a second after each cut
    with MediaFile("clip", media, SystemClock()).read() as items:
        frames = {one.start_ns / 1e9: one.image for one in items if isinstance(one, VideoFrame)}
    captioner = CaptionerSettings(weights=str(weights), max_words=6).build("cpu")
    seen = [frames[at] for at in told]
    masked = captioner.describe([blackened(one, 80, (_LEFT,)) for one in seen])
    assert list(told.values()) == list(masked)
    assert len(set(masked)) > 2
    assert masked != captioner.describe([blackened(one, 80, ()) for one in seen])


def test_a_captioner_that_fails_ends_a_replay_with_a_line_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media, weights = _clip(tmp_path), write_captioner(tmp_path / "git", "git")

    def fail(_captioner: PretrainedCaptioner, _pictures: object) -> Tensor:
        msg = "out of memory"
        raise RuntimeError(msg)

    monkeypatch.setattr(PretrainedCaptioner, "_answers", fail)
    with pytest.raises(ScorerError, match=r"git: cannot describe a picture: out of memory$"):
        _replayed(_recipe(media, weights), media, tmp_path / "one.jsonl")
