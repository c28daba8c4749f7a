import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mmstream.errors import ScorerError
from mmstream.models.checkpoint import Checkpoint, Identity, read, save
from mmstream.models.heads import Classifier, ClassifierSettings

_SETTINGS = ClassifierSettings(labels=("dog", "rain"), n_dims=4)


def _saved(folder: Path, *, trained: bool = True) -> Classifier:
    model = Classifier(_SETTINGS)
    identity = Identity(task="pets", rate_hz=16_000, trained=trained)
    save(folder, model, _SETTINGS, identity, "# Pets\n")
    return model


def _read(folder: Path) -> Checkpoint[ClassifierSettings]:
    return read(folder, ClassifierSettings, task="pets", rate_hz=16_000)


def _rewritten(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    model = _saved(tmp_path)
    checkpoint = _read(tmp_path)
    other = Classifier(checkpoint.settings)
    checkpoint.fill(other)
    x = torch.randn(3, 4)
    assert torch.equal(other.eval()(x), model.eval()(x))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "card.md",
        "config.json",
        "model.safetensors",
    ]


def test_the_id_follows_the_content_not_the_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _saved(tmp_path / "a")
    torch.manual_seed(0)
    _saved(tmp_path / "b")
    _saved(tmp_path / "c")
    one, same, other = (_read(tmp_path / name).id for name in "abc")
    assert one == same != other
    assert len(one) == 16


def test_the_same_weights_for_another_task_have_another_id(tmp_path: Path) -> None:
    model = Classifier(_SETTINGS)
    pets, zoo = (Identity(task=task, rate_hz=None, trained=True) for task in ("pets", "zoo"))
    one = save(tmp_path, model, _SETTINGS, pets, "")
    other = save(tmp_path, model, _SETTINGS, zoo, "measured since")
    assert one != other
    assert one == save(tmp_path, model, _SETTINGS, pets, "measured since")
    assert one == read(tmp_path, ClassifierSettings, task="pets", rate_hz=None).id


def test_weights_that_do_not_fit_are_named_all_at_once(tmp_path: Path) -> None:
    model = _saved(tmp_path)
    weights = {name: w.clone() for name, w in model.state_dict().items()}
    del weights["network.0.weight"]
    weights["network.0.bias"][1] = torch.nan
    _rewritten(tmp_path, {**weights, "network.2.weight": torch.zeros(3, 4), "more": torch.ones(1)})
    before = {name: w.clone() for name, w in model.state_dict().items()}
    with pytest.raises(ScorerError) as caught:
        _read(tmp_path).fill(model)
    assert str(caught.value) == (
        f"{tmp_path}/model.safetensors: weights missing: network.0.weight; unexpected: more; "
        "of another shape: network.2.weight [3, 4], not [2, 4]; not finite: network.0.bias"
    )
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def test_weights_of_another_type_are_named(tmp_path: Path) -> None:
    model = _saved(tmp_path)
    weights = model.state_dict()
    for other in (torch.float64, torch.int8, torch.float8_e4m3fn):
        name = "network.0.bias"
        _rewritten(tmp_path, {**weights, name: torch.zeros(4).to(other)})
        with pytest.raises(ScorerError, match=f"of another type: {name} {other}, not torch.float3"):
            _read(tmp_path).fill(model)
    _rewritten(tmp_path, {**weights, "more": torch.zeros(4).to(torch.float8_e4m3fn)})
    with pytest.raises(ScorerError, match=r"unexpected: more$"):
        _read(tmp_path).fill(model)


def test_what_is_saved_by_halves_comes_back_as_float32(tmp_path: Path) -> None:
    model, buffers = Classifier(_SETTINGS), torch.arange(3)
    model.register_buffer("n_seen", buffers)
    model.register_buffer("is_seen", buffers > 1)
    identity = Identity(task="pets", rate_hz=16_000, trained=True)
    whole = save(tmp_path / "whole", model, _SETTINGS, identity, "")
    half = save(tmp_path / "half", model, _SETTINGS, identity, "", half=True)
    checkpoint = _read(tmp_path / "half")
    assert half == checkpoint.id != whole
    assert {str(w.dtype) for w in checkpoint.weights.values()} == {
        *("torch.float16", "torch.int64", "torch.bool")
    }
    other = Classifier(_SETTINGS)
    other.register_buffer("n_seen", torch.zeros_like(buffers))
    other.register_buffer("is_seen", buffers > 3)
    checkpoint.fill(other)
    for name, weight in other.state_dict().items():
        was = model.state_dict()[name]
        assert weight.dtype == was.dtype
        assert torch.equal(weight, was.half().float() if was.is_floating_point() else was)


def test_bfloat16_is_taken_as_float32(tmp_path: Path) -> None:
    model = _saved(tmp_path)
    weights = {name: w.bfloat16() for name, w in model.state_dict().items()}
    _rewritten(tmp_path, weights)
    _read(tmp_path).fill(model)
    assert all(torch.equal(w, weights[name].float()) for name, w in model.state_dict().items())


def test_half_is_no_whole_number_and_must_be_finite(tmp_path: Path) -> None:
    model = _saved(tmp_path)
    model.register_buffer("n_seen", torch.arange(3))
    weights = {**model.state_dict(), "n_seen": torch.zeros(3).half()}
    _rewritten(tmp_path, weights)
    with pytest.raises(ScorerError, match=r"type: n_seen torch\.float16, not torch\.int64$"):
        _read(tmp_path).fill(model)
    name = "network.0.bias"
    nan = torch.full((4,), torch.nan).half()
    _rewritten(tmp_path, {**model.state_dict(), name: nan})
    with pytest.raises(ScorerError, match=f"weights not finite: {name}$"):
        _read(tmp_path).fill(model)


def test_what_float16_cannot_hold_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    model = Classifier(_SETTINGS)
    with torch.no_grad():
        model.state_dict()["network.0.bias"][2] = 1e5
    identity = Identity(task="pets", rate_hz=16_000, trained=True)
    folder = tmp_path / "large"
    with pytest.raises(ScorerError) as caught:
        save(folder, model, _SETTINGS, identity, "", half=True)
    assert str(caught.value) == (
        f"{folder}: weights too large for float16 (65504 at most): network.0.bias"
    )
    assert not folder.exists()
    save(folder, model, _SETTINGS, identity, "")


def test_weights_of_a_type_that_torch_lacks_are_refused(tmp_path: Path) -> None:
    _saved(tmp_path)
    header = b'{"w":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}'
    content = struct.pack("<Q", len(header)) + header + bytes(2)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ScorerError, match="weights of the type 'F4' are not read"):
        _read(tmp_path)


def test_another_task_or_rate_is_refused(tmp_path: Path) -> None:
    _saved(tmp_path)
    with pytest.raises(ScorerError, match="for the task 'pets', not for 'digits'"):
        read(tmp_path, ClassifierSettings, task="digits", rate_hz=16_000)
    with pytest.raises(ScorerError, match="for 16000 Hz, not for 8000 Hz"):
        read(tmp_path, ClassifierSettings, task="pets", rate_hz=8_000)
    with pytest.raises(ScorerError, match="for 16000 Hz, not for no sound"):
        read(tmp_path, ClassifierSettings, task="pets", rate_hz=None)


def test_random_weights_are_refused_unless_allowed(tmp_path: Path) -> None:
    model = _saved(tmp_path, trained=False)
    with pytest.raises(ScorerError, match="weights are random"):
        _read(tmp_path)
    read(tmp_path, ClassifierSettings, task="pets", rate_hz=16_000, untrained="allow").fill(model)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl", "MODEL.PT"])
def test_pickle_is_refused_unread(tmp_path: Path, name: str) -> None:
    _saved(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    with pytest.raises(ScorerError, match=f"{name} may run code"):
        _read(tmp_path)
    with pytest.raises(ScorerError, match=f"{name} may run code"):
        _read(tmp_path / name)


def test_a_pickle_by_another_name_is_no_safetensors(tmp_path: Path) -> None:
    model = _saved(tmp_path)
    torch.save(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ScorerError, match="not a whole safetensors file"):
        _read(tmp_path)


def test_a_cut_file_and_missing_files_are_named(tmp_path: Path) -> None:
    _saved(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ScorerError, match="not a whole safetensors file"):
        _read(tmp_path)
    weights.unlink()
    with pytest.raises(ScorerError, match=r"model\.safetensors: cannot be read: No such file"):
        _read(tmp_path)
    with pytest.raises(ScorerError, match=r"config\.json: cannot be read"):
        _read(tmp_path / "nowhere")


def test_a_place_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("something else")
    for folder in (file, file / "below"):
        with pytest.raises(ScorerError, match=f"^{folder}: the model cannot be saved there: "):
            _saved(folder)
    with pytest.raises(ScorerError, match="cannot be read: File name too long"):
        _read(tmp_path / ("a" * 300))


def test_sizes_that_no_memory_holds_are_refused_before_it_is_filled(tmp_path: Path) -> None:
    _saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["settings"]["n_dims"] = 10**12
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ScorerError, match="n_dims: Input should be less than or equal to 8192"):
        _read(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ScorerError, match="ClassifierSettings model: Input should be an object"):
        _read(tmp_path)


def test_a_configuration_of_another_model_is_located(tmp_path: Path) -> None:
    _saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["settings"]["n_dmis"] = 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ScorerError, match="ClassifierSettings model: n_dmis: Extra inputs"):
        _read(tmp_path)
