"""Folders and checkpoints that somebody else made: what is in them is refused, or does no harm."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch
from pretrained_folders import write_all, write_text
from pydantic import JsonValue, ValidationError

from mmstream.errors import ScorerError
from mmstream.models.pretrained import (
    PretrainedAudio,
    PretrainedText,
    PretrainedVideo,
    ResNetSettings,
)
from mmstream.models.pretrained_audio import PretrainedAudioEncoder
from mmstream.models.pretrained_loading import quiet
from mmstream.models.pretrained_text import PretrainedPieces, PretrainedTextEncoder
from mmstream.models.pretrained_video import PretrainedVideoEncoder, ResNetEncoder

# isort: split
from transformers import (
    AlbertConfig,
    AlbertModel,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

_SMALL: dict[str, JsonValue] = {
    "vocab_size": 11,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 16,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folders")
    write_all(folder)
    return folder


def _copied(folder: Path, to: Path, **config: JsonValue) -> Path:
    shutil.copytree(folder, to)
    content = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**content, **config}))
    return to


def _video(weights: Path | str, files: dict[str, JsonValue] | None = None) -> None:
    PretrainedVideoEncoder(PretrainedVideo(weights=str(weights), n_dims=8, files=files))


def _text(
    weights: Path | str, files: dict[str, JsonValue] | None = None, *, words_only: bool = False
) -> PretrainedTextEncoder:
    return PretrainedTextEncoder(
        PretrainedText(
            weights=str(weights), n_dims=8, n_longest=16, files=files, words_only=words_only
        )
    )


def _files(folder: Path, *more: str) -> dict[str, JsonValue]:
    """As a checkpoint has them."""
    return {name: json.loads((folder / name).read_text()) for name in ("config.json", *more)}


def _config(files: dict[str, JsonValue]) -> dict[str, JsonValue]:
    config = files["config.json"]
    assert isinstance(config, dict)
    return config


def _refused(build: Callable[[], object]) -> str:
    """The one line that a user sees."""
    with pytest.raises(ScorerError) as caught:
        build()
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 400
    return line


def test_a_checkpoint_writes_no_file_anywhere(folders: Path, tmp_path: Path) -> None:
    files = _files(folders / "resnet", "preprocessor_config.json")
    _video("x", {**files, str(tmp_path / "profile"): "rm", "../more.json": 1, "a/b.json": 1})
    assert not list(tmp_path.iterdir())


def test_code_that_a_checkpoint_names_is_neither_run_nor_asked_for(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = _files(folders / "bert", "tokenizer.json", "tokenizer_config.json")
    config = _config(files)
    _text("x", {**files, "config.json": {**config, "_attn_implementation": "somebody/kernel"}})
    auto_map: JsonValue = {"AutoConfig": "somebody/evil--own.Own"}
    own: JsonValue = {**config, "model_type": "own", "auto_map": auto_map}
    assert "model type `own`" in _refused(lambda: _text("x", {**files, "config.json": own}))
    assert "custom code" not in capsys.readouterr().out


def test_a_checkpoint_that_describes_no_network_is_refused(folders: Path) -> None:
    files = _files(folders / "resnet", "preprocessor_config.json")
    huge: JsonValue = {**_config(files), "hidden_sizes": [10**12, 16]}
    says = _refused(lambda: _video("x", {**files, "config.json": huge}))
    assert says.startswith("x: weights do not fit the configuration: ")
    assert "has no config.json" in _refused(lambda: _video("x", {}))


@pytest.mark.parametrize("model_type", ["upernet", "dpt"])
def test_a_folder_that_names_another_repository_has_nobody_asked(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    asked: list[object] = []

    def ask(where: object, *_args: object, **_more: object) -> None:
        asked.append(where)
        raise OSError

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", ask)
    monkeypatch.setattr(socket, "create_connection", ask)
    names: dict[str, JsonValue] = {"backbone": "somebody/x", "use_pretrained_backbone": True}
    more: dict[str, JsonValue] = {"is_hybrid": True} if model_type == "dpt" else {}
    folder = _copied(
        folders / "resnet", tmp_path / "resnet", model_type=model_type, **names, **more
    )
    assert _refused(lambda: _video(folder)).startswith(str(folder))
    assert asked == []


def test_a_part_for_images_that_is_none_is_not_taken_for_one(folders: Path, tmp_path: Path) -> None:
    parts: dict[str, JsonValue] = {"null": None, "dict": {"hidden_size": 3}}
    for name, part in parts.items():
        _text(_copied(folders / "bert", tmp_path / name, vision_config=part))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"crop_pct": 0}, "no encoder of images; allowed: ResNet"),
        ({"size": {"shortest_edge": 10**12}}, "no encoder of images; allowed: ResNet"),
        ({"image_std": [0, 0, 0]}, "of a black image"),
    ],
)
def test_a_preprocessor_that_makes_no_pixels_is_refused(
    folders: Path, change: dict[str, JsonValue], says: str
) -> None:
    files = _files(folders / "resnet", "preprocessor_config.json")
    processor = files["preprocessor_config.json"]
    assert isinstance(processor, dict)
    changed: JsonValue = {**processor, **change}
    given = {**files, "preprocessor_config.json": changed}
    assert says in _refused(lambda: _video("x", given))


def test_a_network_whose_tokens_stand_still_is_refused(folders: Path, tmp_path: Path) -> None:
    folder = _copied(folders / "ast", tmp_path / "ast", time_stride=0)
    settings = PretrainedAudio(weights=str(folder))
    assert "no encoder of sound; allowed: AST" in _refused(lambda: PretrainedAudioEncoder(settings))


def test_weights_that_are_not_finite_are_refused(folders: Path, tmp_path: Path) -> None:
    folder = _copied(folders / "bert", tmp_path / "bert")
    path, name = folder / "model.safetensors", "bert.encoder.layer.0.output.dense.bias"
    whole = safetensors.torch.load_file(path)
    whole[name][0] = torch.nan
    safetensors.torch.save_file(whole, path)
    says = "model.safetensors has weights that are not finite: encoder.layer.0.output.dense.bias"
    assert says in _refused(lambda: _text(folder))
    _text(folder, words_only=True)  # without that layer


def test_weights_that_are_quantised_are_refused(folders: Path, tmp_path: Path) -> None:
    folder = _copied(folders / "bert", tmp_path / "bert")
    path, name = folder / "model.safetensors", "bert.encoder.layer.0.output.dense.weight"
    whole = safetensors.torch.load_file(path)
    for kind in (torch.int8, torch.float8_e4m3fn):
        safetensors.torch.save_file({**whole, name: whole[name].to(kind)}, path)
        says = f"weights must be floats of 16 to 64 bits, not packed: {name}"
        assert says in _refused(lambda: _text(folder))


def test_an_index_that_was_left_behind_is_not_followed(folders: Path, tmp_path: Path) -> None:
    folder = _copied(folders / "resnet", tmp_path / "resnet")
    index = {"weight_map": {"embedder": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _video(folder)


def test_what_the_library_says_is_not_cut_off_before_its_reason(
    folders: Path, tmp_path: Path
) -> None:
    folder = _copied(folders / "bert", tmp_path / "bert", hidden_size="many")
    assert "'hidden_size' expected int, got str" in _refused(lambda: _text(folder))


@pytest.mark.parametrize("weights", ["~nobody-at-all/bert", "a" * 5000])
def test_a_name_that_no_folder_can_have_is_refused(weights: str) -> None:
    with pytest.raises(ScorerError, match="no such folder"):
        _video(f"{weights}/x/y")


def _written(folder: Path, model: PreTrainedModel) -> Path:
    """With BERT's tokenizer."""
    write_text(folder)
    with quiet():
        model.save_pretrained(folder)
    return folder


def test_networks_that_read_in_another_way_are_refused_at_once(tmp_path: Path) -> None:
    t5 = T5Config(vocab_size=11, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    folder = _written(tmp_path / "t5", T5Model(t5))
    assert "no encoder of texts; allowed: BERT and such" in _refused(lambda: _text(folder))
    # It counts places from 2 on, so that there are two fewer than it says.
    roberta = _written(tmp_path / "roberta", RobertaModel(RobertaConfig.from_dict(_SMALL)))
    assert "n_longest is too many" in _refused(lambda: _text(roberta))


@torch.no_grad()
def test_word_embeddings_may_be_smaller_than_the_network(tmp_path: Path) -> None:
    albert = AlbertConfig.from_dict({**_SMALL, "embedding_size": 8})
    encoder = _text(_written(tmp_path / "albert", AlbertModel(albert)), words_only=True)
    pieces = PretrainedPieces(PretrainedText(weights=str(tmp_path / "albert")))
    assert encoder(pieces.encode(["the dog"], n_longest=16)).values.shape == (1, 4, 8)


def test_texts_without_a_word_and_texts_of_no_length(folders: Path) -> None:
    pieces = PretrainedPieces(PretrainedText(weights=str(folders / "bert")))
    assert pieces.encode([" \n", "dog"], n_longest=16).present.any(dim=1).tolist() == [False, True]
    assert pieces.encode(["the dog barks"], n_longest=3).ids.tolist() == [[2, 5, 3]]
    with pytest.raises(ValidationError, match="greater than or equal to 3"):
        PretrainedText(weights="x", n_longest=2)  # would be [CLS] and [SEP] alone


@pytest.mark.parametrize("name", ["ast", "whisper"])
def test_sound_is_encoded_in_16_bits_too(folders: Path, name: str) -> None:
    torch.manual_seed(0)
    settings = PretrainedAudio(weights=str(folders / name), n_dims=8, train=True)
    encoder = PretrainedAudioEncoder(settings).eval()
    sound = torch.randn(1, 20_000, 1) * 0.1
    there = torch.ones(1, 20_000, dtype=torch.bool)
    whole = encoder(sound, there).values
    with torch.autocast("cpu", torch.bfloat16):
        values = encoder(sound, there).values
    torch.testing.assert_close(values.float(), whole, atol=0.1, rtol=0.1)


def test_a_network_that_does_not_learn_evaluates_from_the_start(tmp_path: Path) -> None:
    # Of 32 pixels the last of four stages sees one, from which no batch norm could learn.
    small = ResNetConfig(embedding_size=4, hidden_sizes=[4] * 4, depths=[1] * 4, layer_type="basic")
    with quiet():
        ResNetModel(small).save_pretrained(tmp_path)
    size: JsonValue = {"height": 32, "width": 32}
    processor: JsonValue = {"image_processor_type": "ViTImageProcessor", "size": size}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    files = _files(tmp_path, "preprocessor_config.json")
    for given in (None, files):
        settings = PretrainedVideo(weights=str(tmp_path), n_dims=8, files=given)
        assert not PretrainedVideoEncoder(settings).network.training


def test_each_stage_of_a_resnet_has_a_width_and_a_number_of_blocks() -> None:
    with pytest.raises(ValidationError, match="the same stages: got 2 and 4"):
        ResNetSettings(widths=(64, 128))


def test_a_resnet_learns_from_one_small_frame_and_from_floats_of_any_width() -> None:
    torch.manual_seed(0)
    settings = ResNetSettings(n_channels=1, n_dims=8, widths=(4,) * 4, n_blocks=(1,) * 4)
    encoder = ResNetEncoder(settings)
    image, there, at_secs = torch.rand(1, 1, 1, 28, 28), torch.ones(1, 1) > 0, torch.zeros(1, 1)
    values = encoder(image, there, at_secs).values
    values.square().sum().backward()
    assert all(weights.grad is not None for weights in encoder.parameters())
    torch.testing.assert_close(encoder.eval()(image, there, at_secs).values, values)
    encoder(image.double(), there, at_secs)
    encoder.train()(image.expand(1, 2, 1, 28, 28), there.expand(1, 2), at_secs.expand(1, 2))
    assert all(module.training for module in encoder.modules())
