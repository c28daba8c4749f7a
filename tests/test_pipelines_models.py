"""What `models list` and `models info` say of whole, random, damaged and pickled models."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from mmstream.cli import app
from mmstream.errors import ConfigError, ScorerError
from mmstream.models.audio import AudioSettings, LogMelFront
from mmstream.models.avp import Avp, AvpSettings
from mmstream.models.avp_spec import AvpSpec
from mmstream.models.checkpoint import Identity, save
from mmstream.models.fusion import ConcatSettings
from mmstream.models.heads import ClassifierSettings
from mmstream.models.mmt import Mmt, MmtSettings
from mmstream.models.recurrent import GruSettings
from mmstream.models.video import VideoSettings
from mmstream.pipelines import evaluate_model, models

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


def saved_avp(folder: Path, *, trained: bool = True) -> Avp:
    """A tiny one."""
    settings = AvpSettings(
        audio=AudioSettings(
            front_end=LogMelFront(n_mels=8), n_dims=8, widths=(4,), body=GruSettings(n_layers=1)
        ),
        video=VideoSettings(n_dims=8, widths=(4,)),
        fusion=ConcatSettings(n_dims=8),
        events=ClassifierSettings(labels=("dog", "rain"), n_dims=8, kind="any"),
        told=("dog",),
    )
    model = Avp(settings)
    identity = Identity(task="avp", rate_hz=16_000, trained=trained)
    save(folder, model, settings, identity, "# avp\n\nprecision 0.9\n", half=True)
    return model


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Avp:
    """What stands for the model in the wheel."""
    monkeypatch.setattr("mmstream.models.avp_spec._SHIPPED", tmp_path / "wheel" / "avp_small")
    monkeypatch.chdir(tmp_path)
    return saved_avp(tmp_path / "wheel" / "avp_small")


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


def test_info_says_what_avp_small_is_by_its_name(shipped: Avp) -> None:
    shown = CliRunner().invoke(app, ["models", "info", "avp-small"])
    assert shown.exit_code == 0
    folder, n = AvpSpec().folder, sum(weight.numel() for weight in shipped.parameters())
    facts = dict(line.split(":", 1) for line in shown.output.split("\n\n")[0].splitlines())
    assert {key: text.strip() for key, text in facts.items()} == {
        "folder": str(folder),
        "id": models.read(folder).checkpoint.id,
        "task": "avp",
        "sound": "16000 Hz",
        "trained": "yes",
        "modalities": "audio, video",
        "parameters": f"{n:,}",
        "size": "0.0 MB",
    }
    assert "  told:\n  - dog\n" in shown.output
    assert "precision 0.9" in shown.output


def test_a_folder_called_as_the_model_in_the_wheel_is_that_folder(
    shipped: Avp,  # noqa: ARG001 - it is there, too
    tmp_path: Path,
) -> None:
    saved(tmp_path / "avp-small")
    assert models.read(Path("avp-small")).checkpoint.identity.task == "pet"


@pytest.mark.usefixtures("shipped")
def test_list_has_a_line_for_each_model_and_for_each_that_is_damaged(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("a", "b", "c"):
        saved(runs / name / "best", trained=name != "b")
    saved_avp(runs / "d", trained=False)
    cut = weights(runs / "c" / "best")
    cut.pop("heads.0.network.2.bias")
    safetensors.torch.save_file(cut, runs / "c" / "best" / "model.safetensors")
    header, small, a, b, d, damaged = models.listed(runs).splitlines()
    assert header.split() == ["model", "task", "modalities", "parameters", "MB", "id"]
    assert small.split()[:3] == ["avp-small", "avp", "audio+video"]
    assert a.split()[:3] == [str(runs / "a" / "best"), "pet", "audio"]
    assert "pet (random weights)" in b
    assert d.split()[:4] == [str(runs / "d"), "avp", "(random", "weights)"]
    assert damaged.endswith("weights missing: heads.0.network.2.bias")


@pytest.mark.usefixtures("shipped")
def test_where_there_are_no_models_it_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (empty, models.TRAINED):
        header, small, said = models.listed(folder).splitlines()
        assert (header.split()[0], small.split()[0]) == ("model", "avp-small")
        assert said == f"{folder}: no models"
    with pytest.raises(ConfigError, match="no such folder; `mmstream train` makes models in runs/"):
        models.listed(tmp_path / "none")


def test_a_wheel_without_its_model_is_no_end_of_the_list(
    shipped: Avp,  # noqa: ARG001 - its folder
    tmp_path: Path,
) -> None:
    (AvpSpec().folder / "model.safetensors").unlink()
    (tmp_path / "runs").mkdir()
    damaged, said = models.listed(tmp_path / "runs").splitlines()
    assert damaged.endswith(
        "avp_small/model.safetensors: cannot be read: No such file or directory"
    )
    assert said.endswith("no models")


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize("name", ["avp-small", "mine"])
def test_an_avp_model_is_not_asked_about_a_manifest(tmp_path: Path, name: str) -> None:
    saved_avp(tmp_path / "mine" / "best")
    with pytest.raises(ConfigError, match=r"is an AVP model, .* `mmstream evaluate TRUTH\.tsv`"):
        evaluate_model.run(Path(name), tmp_path / "any.csv", None)


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
