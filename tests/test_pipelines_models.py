"""What `models list` and `models info` say of whole, random, damaged and pickled models."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from mmstream.cli import app
from mmstream.errors import ConfigError, ScorerError
from mmstream.models.audio import AudioSettings
from mmstream.models.checkpoint import Identity, save
from mmstream.models.fusion import ConcatSettings
from mmstream.models.heads import ClassifierSettings
from mmstream.models.mmt import Mmt, MmtSettings
from mmstream.models.recurrent import GruSettings
from mmstream.pipelines import models

_SETTINGS = MmtSettings(
    audio=AudioSettings(n_dims=8, widths=(4,), body=GruSettings(n_layers=1)),
    fusion=ConcatSettings(modalities=("audio",), n_dims=8),
    heads={"pet": ClassifierSettings(labels=("cat", "dog"), n_dims=8)},
)


def saved(folder: Path, *, trained: bool = True) -> Mmt:
    model = Mmt(_SETTINGS)
    identity = Identity(task="pet", rate_hz=16_000, trained=trained)
    save(folder, model, _SETTINGS, identity, "# pet\n\naccuracy 0.9\n")
    return model


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def test_info_says_what_a_model_is(tmp_path: Path) -> None:
    model = saved(tmp_path / "deep" / "best")
    shown = CliRunner().invoke(app, ["models", "info", str(tmp_path / "deep")])
    assert shown.exit_code == 0
    found = models.read(tmp_path / "deep")
    facts = dict(line.split(":", 1) for line in shown.output.split("\n\n")[0].splitlines())
    assert {key: text.strip() for key, text in facts.items()} == {
        "folder": str(tmp_path / "deep" / "best"),
        "id": found.checkpoint.id,
        "task": "pet",
        "sound": "16000 Hz",
        "trained": "yes",
        "modalities": "audio",
        "parameters": f"{sum(weight.numel() for weight in model.parameters()):,}",
        "size": f"{(tmp_path / 'deep' / 'best' / 'model.safetensors').stat().st_size / 1e6:.1f} MB",
    }
    assert "  heads:\n    pet:" in shown.output
    assert "accuracy 0.9" in shown.output


def test_a_model_that_only_names_a_pretrained_one_is_not_looked_for(tmp_path: Path) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    named = tmp_path / "of_others"
    config["settings"]["audio"] = {"type": "pretrained", "weights": str(named), "n_dims": 8}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ScorerError, match=f"audio: the checkpoint names '{named}' and does not"):
        models.read(tmp_path)


def test_list_has_a_line_for_each_model_and_for_each_that_is_damaged(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        saved(tmp_path / name / "best", trained=name != "b")
    cut = weights(tmp_path / "c" / "best")
    cut.pop("heads.0.network.2.bias")
    safetensors.torch.save_file(cut, tmp_path / "c" / "best" / "model.safetensors")
    header, a, b, damaged = models.listed(tmp_path).splitlines()
    assert header.split() == ["model", "task", "modalities", "parameters", "MB", "id"]
    assert a.split()[:3] == [str(tmp_path / "a" / "best"), "pet", "audio"]
    assert "pet (random weights)" in b
    assert damaged.endswith("weights missing: heads.0.network.2.bias")


def test_where_there_are_no_models_it_is_said(tmp_path: Path) -> None:
    assert models.listed(tmp_path) == f"{tmp_path}: no models"
    with pytest.raises(ConfigError, match="no such folder; `mmstream train` makes models in runs/"):
        models.listed(tmp_path / "runs")


def damaged(folder: Path, kind: str) -> None:
    """A model with something wrong with it."""
    saved(folder)
    file, config = folder / "model.safetensors", folder / "config.json"
    match kind:
        case "partial":
            file.write_bytes(file.read_bytes()[:-8])
        case "other":
            safetensors.torch.save_file({"w": torch.zeros(2)}, file)
        case "shape":
            shapes = {name: one[:1].clone() for name, one in weights(folder).items()}
            safetensors.torch.save_file(shapes, file)
        case "nan":
            broken = weights(folder)
            broken["heads.0.network.2.bias"][0] = torch.nan
            safetensors.torch.save_file(broken, file)
        case "pickle":
            file.unlink()
            (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
        case "no_config":
            config.unlink()
        case "no_json":
            config.write_text("{", "utf-8")
        case "no_model":
            content = json.loads(config.read_text("utf-8"))
            content["settings"] = {"labels": ["a"]}
            config.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("partial", "not a whole safetensors file"),
        ("other", "unexpected: w"),
        ("shape", "of another shape"),
        ("nan", "not finite: heads.0.network.2.bias"),
        ("pickle", r"pytorch_model\.bin may run code when it is read and is refused"),
        ("no_config", r"config\.json: cannot be read: No such file"),
        ("no_json", r"config\.json: not of a MmtSettings model"),
        ("no_model", r"config\.json: not of a MmtSettings model"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, kind: str, why: str) -> None:
    damaged(tmp_path, kind)
    with pytest.raises(ScorerError, match=why) as refused:
        models.described(tmp_path)
    assert "\n" not in str(refused.value)
