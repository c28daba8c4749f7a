"""What a training begins with: settings and data, and encoders that were trained before.

The encoders of AVP (`mmstream.models.avp`) learned without labels what sound and sight are like;
a model whose encoders are built alike may begin with their weights instead of random ones.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue
from torch import nn

from mmstream.errors import ConfigError, ScorerError
from mmstream.media import DEFAULT_RATE_HZ, Modality
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, AvpSettings
from mmstream.models.avp_spec import AVP_SMALL, AvpSpec
from mmstream.models.checkpoint import Checkpoint
from mmstream.training.settings import Corpus, TrainSettings
from mmstream.training.shards import hashed


def starting_point(settings: TrainSettings) -> Checkpoint[AvpSettings] | None:
    """The checkpoint whose encoders the model begins with; None: they begin with random weights.

    Raises:
        ConfigError: it cannot be read, or its encoders are built otherwise than the model's; the
            text names the first key that differs.
    """
    if settings.start_from is None:
        return None
    is_shipped = settings.start_from == AVP_SMALL
    folder = AvpSpec().folder if is_shipped else Path(settings.start_from)
    rate_hz = settings.rate_hz or DEFAULT_RATE_HZ
    try:
        found = checkpoint.read(folder, AvpSettings, task=TASK, rate_hz=rate_hz)
    except ScorerError as error:
        msg = f"start_from: {error}"
        raise ConfigError(msg) from None
    model = settings.model
    for name, mine, theirs in (
        ("audio", model.audio, found.settings.audio),
        ("video", model.video, found.settings.video),
    ):
        different = mine and _difference(
            mine.model_dump(mode="json"), theirs.model_dump(mode="json"), f"model.{name}"
        )
        if different:
            msg = f"start_from: {folder}: its encoders are built otherwise: {different}"
            raise ConfigError(msg)
    return found


def fill(found: Checkpoint[AvpSettings], encoders: Mapping[Modality, nn.Module]) -> None:
    """Put its encoders' weights, and what sound is standardised by, into those of sound and sight.

    Raises:
        ScorerError: its weights are not those of such encoders.
    """
    for modality, encoder in encoders.items():
        prefix = f"{modality}."
        weights = {
            name.removeprefix(prefix): weight
            for name, weight in found.weights.items()
            if name.startswith(prefix)
        }
        replace(found, weights=weights).fill(encoder)


def begun(settings: TrainSettings, corpus: Corpus) -> str:
    """A digest of what the weights follow from, wherever the files are.

    Raises:
        ConfigError: a split that is needed is empty, or the checkpoint that it begins with cannot
            be had.
    """
    others = {"start_from": True, "frozen": True, "share": True}  # told by what follows of them
    told = [
        settings.model_dump_json(
            exclude={"device": True, "data": True, "noise": {"recordings": True}, **others}
        )
    ]
    for name, splits in (("data", corpus.examples), ("noise", corpus.noise or {})):
        for split in ("train", "val"):
            items = splits[split].items if split in splits else ()
            if not items and name == "data":
                msg = f"data: no examples in the split {split!r}"
                raise ConfigError(msg)
            told += [f"{item.key} {item.annotation}" for item in items]
    found = starting_point(settings)
    if found is not None:
        told.append(f"{found.id} {settings.frozen}")
    return hashed(*told)


def _difference(mine: JsonValue, theirs: JsonValue, keys: str) -> str | None:
    """The first: `key.path: mine here, theirs there`; None: there is none."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        parts = (
            _difference(mine.get(name), theirs.get(name), f"{keys}.{name}")
            for name in {**mine, **theirs}
        )
        return next((part for part in parts if part is not None), None)
    return None if mine == theirs else f"{keys}: {mine} here, {theirs} there"
