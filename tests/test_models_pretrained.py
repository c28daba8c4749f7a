"""The reference is what the transformers library's own classes make of the same input."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
from pretrained_folders import IMAGES, SOUNDS, write_all, write_sound
from pydantic import JsonValue
from torch import Tensor, nn

from mmstream import config
from mmstream.errors import ConfigError, ScorerError
from mmstream.models.checkpoint import Identity, read, save
from mmstream.models.fusion import ConcatSettings
from mmstream.models.heads import ClassifierSettings
from mmstream.models.mmt import Inputs, Mmt, MmtSettings
from mmstream.models.pretrained import (
    PretrainedAudio,
    PretrainedText,
    PretrainedVideo,
    ResNetSettings,
    SamplesFront,
)
from mmstream.models.pretrained_audio import PretrainedAudioEncoder
from mmstream.models.pretrained_loading import quiet
from mmstream.models.pretrained_text import PretrainedPieces, PretrainedTextEncoder
from mmstream.models.pretrained_video import PretrainedVideoEncoder, ResNetEncoder
from mmstream.models.text import WordIds

# isort: split
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as library_logging

_RATE = 16_000
_TEXTS = ["the dog barks", "", "the dog is the dog", "dogs"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folders")
    write_all(folder)
    return folder


def _copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def _rewritten(path: Path, **changes: JsonValue) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _audio(folder: Path, *, train: bool = False) -> PretrainedAudioEncoder:
    torch.manual_seed(0)
    return PretrainedAudioEncoder(
        PretrainedAudio(weights=str(folder), n_dims=8, train=train)
    ).eval()


def _video(folder: Path, *, train: bool = False) -> PretrainedVideoEncoder:
    torch.manual_seed(0)
    return PretrainedVideoEncoder(
        PretrainedVideo(weights=str(folder), n_dims=8, train=train)
    ).eval()


def _text(folder: Path, **more: JsonValue) -> PretrainedTextEncoder:
    torch.manual_seed(0)
    return PretrainedTextEncoder(
        PretrainedText.model_validate(
            {"weights": str(folder), "n_dims": 8, "n_longest": 16, **more}
        )
    ).eval()


def _words(folder: Path, texts: list[str]) -> WordIds:
    return PretrainedPieces(PretrainedText(weights=str(folder))).encode(texts, n_longest=16)


def _sound(n_samples: int) -> Tensor:
    return torch.randn(n_samples, generator=torch.Generator().manual_seed(n_samples)) * 0.1


def _batch(sounds: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Frames and present, with NaN behind the shorter."""
    n_most = max(map(len, sounds))
    frames = torch.full((len(sounds), n_most), torch.nan)
    for row, sound in zip(frames, sounds, strict=True):
        row[: len(sound)] = sound
    return SamplesFront().build()(frames), ~frames.isnan()


@torch.no_grad()
def _by_the_library(folder: Path, sound: Tensor) -> Tensor:
    """[t, features]."""
    with quiet():
        extractor = AutoFeatureExtractor.from_pretrained(folder)  # type: ignore[no-untyped-call] # the library's
        model = AutoModel.from_pretrained(folder).eval()
    inputs = extractor(sound.numpy(), sampling_rate=_RATE, return_tensors="pt")
    if model.config.model_type == "whisper":
        states: Tensor = model.get_encoder()(inputs["input_features"]).last_hidden_state[0]
        return states
    states = model(**inputs).last_hidden_state[0]
    if model.config.model_type != "audio-spectrogram-transformer":
        return states
    return torch.stack([states[2 + at :: 12].mean(dim=0) for at in range(12)])  # 2 bands of 12


@pytest.mark.parametrize("name", SOUNDS)
@torch.no_grad()
def test_sound_is_encoded_as_the_library_does_whatever_is_beside_it(
    folders: Path, name: str
) -> None:
    encoder = _audio(folders / name)
    sounds = [_sound(n) for n in (12_345, 20_000, 8_000)]
    tokens = encoder(*_batch(sounds))
    assert tokens.values.isfinite().all()
    for row, sound in enumerate(sounds):
        n = int(tokens.present[row].sum())
        assert tokens.present[row, :n].all()
        assert n == pytest.approx(len(sound) * (10 if name == "ast" else 50) / _RATE, abs=1)
        expected = encoder.projection(_by_the_library(folders / name, sound))[:n]
        torch.testing.assert_close(tokens.values[row, :n], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("at", [4_000, 9_111, 16_789])
@torch.no_grad()
def test_a_click_is_in_the_tokens_around_its_time(tmp_path: Path, name: str, at: int) -> None:
    with quiet():
        write_sound(tmp_path, name, n_layers=0)
    encoder = _audio(tmp_path / name)
    sound = _sound(24_000)
    click = sound.clone()
    click[at] += 1
    tokens = encoder(*_batch([sound, click]))
    moved = (tokens.values[0] - tokens.values[1]).abs().amax(dim=1)
    times = tokens.at_secs[0]
    heard = times[moved > 1e-3 * moved.max()]
    hop_secs = float(times[1] - times[0])
    assert 1 <= len(heard) <= 5
    assert float(heard.mean()) == pytest.approx(at / _RATE, abs=0.51 * hop_secs)
    torch.testing.assert_close(times.diff(), torch.full_like(times[1:], hop_secs))


@pytest.mark.parametrize(
    ("name", "first_secs", "hop_secs"),
    [("ast", 0.0875, 0.1), ("wav2vec2", 0.0125, 0.02), ("whisper", 0.0, 0.02)],
)
@torch.no_grad()
def test_long_sound_is_encoded_in_passes_that_follow_evenly(
    folders: Path, name: str, first_secs: float, hop_secs: float
) -> None:
    encoder, sound = _audio(folders / name), _sound(70_000)
    tokens = encoder(*_batch([sound, sound[:3_000]]))
    n = int(tokens.present[0].sum())
    assert n == tokens.present.shape[1] == pytest.approx(70_000 / _RATE / hop_secs, abs=1)
    expected = first_secs + hop_secs * torch.arange(n)
    torch.testing.assert_close(tokens.at_secs[0], expected, atol=1e-5, rtol=0)
    if name != "wav2vec2":
        n_pass, n_samples = {"ast": (12, 20_480), "whisper": (100, 32_000)}[name]
        begins = round(n_pass * hop_secs * _RATE)
        second = encoder(*_batch([sound[begins : begins + n_samples]]))
        assert second.values.shape[1] == n_pass
        torch.testing.assert_close(tokens.values[:1, n_pass : 2 * n_pass], second.values)


@pytest.mark.parametrize("name", SOUNDS)
@torch.no_grad()
def test_lost_sound_has_no_tokens_and_whatever_stands_there_changes_nothing(
    folders: Path, name: str
) -> None:
    encoder = _audio(folders / name)
    frames, present = _batch([_sound(24_000), _sound(23_000)])
    present[0, 8_000:16_000] = False
    tokens = encoder(frames, present)
    there, times = tokens.present[0], tokens.at_secs[0]
    near = 0.5 * float(times[1] - times[0]) + 1e-3
    assert not there[(times > 0.5 - near) & (times < 1 + near)].any()
    assert there[(times > near) & (times < 0.5 - 2 * near)].all()
    assert there[(times > 1 + 2 * near) & (times < 1.4)].all()
    frames[0, 8_000:16_000] = torch.nan
    torch.testing.assert_close(encoder(frames, present).values, tokens.values)
    nothing = encoder(frames, torch.zeros_like(present))
    assert not nothing.present.any()
    assert not nothing.values.any()
    assert encoder(frames[:, :0], present[:, :0]).values.shape == (2, 0, 8)


@torch.no_grad()
def _pooled_by_the_library(folder: Path, images: list[np.ndarray]) -> Tensor:
    """[n, features]."""
    with quiet():
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")  # type: ignore[no-untyped-call] # the library's
        model = AutoModel.from_pretrained(folder).eval()
    inputs = processor(images=images, return_tensors="pt")
    knows_texts = hasattr(model, "get_image_features")
    outputs = model.get_image_features(**inputs) if knows_texts else model(**inputs)
    pooled: Tensor = outputs.pooler_output.flatten(1)
    return pooled


@pytest.mark.parametrize("name", IMAGES)
@torch.no_grad()
def test_images_are_encoded_as_the_library_does_and_only_those_there(
    folders: Path, name: str
) -> None:
    encoder = _video(folders / name)
    images = torch.randint(0, 256, (2, 3, 3, 40, 56), dtype=torch.uint8)
    present = torch.tensor([[True, False, True], [False, True, False]])
    at_secs = torch.rand(2, 3)
    tokens = encoder(images, present, at_secs)
    seen = [image.permute(1, 2, 0).numpy() for image in images[present]]
    expected = encoder.projection(_pooled_by_the_library(folders / name, seen))
    torch.testing.assert_close(tokens.values[present], expected, atol=1e-5, rtol=1e-5)
    assert not tokens.values[~present].any()
    assert torch.equal(tokens.at_secs, at_secs)
    as_floats = encoder(images / 255, present, at_secs)
    torch.testing.assert_close(as_floats.values, tokens.values, atol=1e-5, rtol=1e-5)
    grey = encoder(images[:, :, :1], present, at_secs)
    same = encoder(images[:, :, :1].expand(-1, -1, 3, -1, -1), present, at_secs)
    torch.testing.assert_close(grey.values, same.values)
    assert not encoder(images, torch.zeros_like(present), at_secs).values.any()


@torch.no_grad()
def test_texts_are_encoded_as_the_library_does_whatever_is_beside_them(folders: Path) -> None:
    folder = folders / "bert"
    encoder, words = _text(folder), _words(folder, _TEXTS)
    tokens = encoder(words)
    with quiet():
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    for row, text in enumerate(_TEXTS):
        n = int(tokens.present[row].sum())
        assert (n > 0) == bool(text)
        if text:
            inputs = tokenizer(text, return_tensors="pt")
            assert words.ids[row, :n].tolist() == inputs.input_ids[0].tolist()
            expected = encoder.projection(model.eval()(**inputs).last_hidden_state[0])
            torch.testing.assert_close(tokens.values[row, :n], expected, atol=1e-5, rtol=1e-5)
        assert not tokens.values[row, n:].any()
    assert tokens.at_secs.isnan().all()


@torch.no_grad()
def test_word_embeddings_know_nothing_of_each_other(folders: Path) -> None:
    encoder = _text(folders / "bert", words_only=True)
    words = _words(folders / "bert", ["the dog is the dog"])
    tokens = encoder(words).values[0]
    torch.testing.assert_close(tokens[1], tokens[4])
    whole = safetensors.torch.load_file(folders / "bert" / "model.safetensors")
    embedded = whole["bert.embeddings.word_embeddings.weight"][words.ids[0]]
    torch.testing.assert_close(tokens, encoder.projection(embedded))
    assert (_text(folders / "bert")(words).values[0, 1] - tokens[4]).abs().max() > 1e-3
    assert len(list(encoder.network.parameters())) == 1


def test_texts_that_do_not_fit_are_named(folders: Path) -> None:
    encoder = _text(folders / "bert")
    assert _words(folders / "bert", ["the dog " * 20]).ids.shape == (1, 16)
    long = torch.ones(1, 17, dtype=torch.int64)
    with pytest.raises(ScorerError, match="17 pieces: at most 16"):
        encoder(WordIds(long, long.bool()))
    with pytest.raises(ScorerError, match="outside of the vocabulary of 11 words"):
        encoder(WordIds(long[:, :2] * 11, long[:, :2].bool()))
    with pytest.raises(ScorerError, match="n_longest is at most 32: got 33"):
        _text(folders / "bert", n_longest=33)


def _slopes(network: nn.Module) -> bool:
    return any(weights.grad is not None for weights in network.parameters())


@pytest.mark.parametrize("name", ["resnet", "whisper"])
def test_only_a_trained_network_learns_and_trains(folders: Path, name: str) -> None:
    for train in (False, True):
        encoder: PretrainedAudioEncoder | PretrainedVideoEncoder
        if name == "whisper":
            encoder = _audio(folders / name, train=train)
            encoder.train()
            values = encoder(*_batch([_sound(20_000)])).values
        else:
            encoder = _video(folders / name, train=train)
            encoder.train()
            images = torch.randint(0, 256, (1, 2, 3, 32, 32), dtype=torch.uint8)
            values = encoder(images, torch.ones(1, 2) > 0, torch.zeros(1, 2)).values
        values.square().sum().backward()
        assert _slopes(encoder.network) == train
        assert _slopes(encoder.projection)
        assert encoder.network.training == train
        norms = [part for part in encoder.modules() if isinstance(part, nn.BatchNorm2d)]
        assert not any(norm.training for norm in norms)
        assert bool(norms) == (name == "resnet")


def test_nothing_is_said_and_the_library_speaks_again_afterwards(
    folders: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    library_logging.add_handler(caplog.handler)
    try:
        _video(folders / "siglip2")
        _audio(folders / "wav2vec2")
        _text(folders / "bert")
        assert capfd.readouterr() == ("", "")
        assert not caplog.records
        AutoModel.from_pretrained(folders / "bert")
        assert "Loading weights" in capfd.readouterr().err
        assert "LOAD REPORT" in caplog.text
    finally:
        library_logging.remove_handler(caplog.handler)


def _refused(kind: str, folder: Path | str) -> str:
    """The one line that a user sees."""
    builders: Mapping[str, Callable[[Path], nn.Module]]
    builders = {"audio": _audio, "video": _video, "text": _text}
    with pytest.raises(ScorerError) as caught:
        builders[kind](Path(folder))
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(folder))
    assert len(line) < 400
    return line


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("audio", "resnet", "no encoder of sound; allowed: AST, HuBERT, Wav2Vec2, WavLM, Whisper"),
        ("audio", "bert", "no encoder of sound; allowed: AST"),
        ("video", "ast", "no encoder of images; allowed: ResNet, ConvNeXt V2, SigLIP 2"),
        ("video", "bert", "no encoder of images; allowed: ResNet"),
        ("text", "resnet", "no encoder of texts; allowed: BERT and such, with its tokenizer.json"),
        ("audio", "", "has no config.json"),
        ("video", "nowhere", "no such folder; allowed: a folder as save_pretrained writes it, or"),
    ],
)
def test_the_wrong_folder_is_named_with_what_is_allowed(
    folders: Path, kind: str, name: str, says: str
) -> None:
    assert says in _refused(kind, folders / name)


def test_an_extractor_for_another_network_is_refused(folders: Path, tmp_path: Path) -> None:
    for name, key in (("ast", "num_mel_bins"), ("whisper", "feature_size")):
        folder = _copied(folders / name, tmp_path / name)
        _rewritten(folder / "preprocessor_config.json", **{key: 24})
        assert "makes frames of another shape than it takes" in _refused("audio", folder)
    folder = _copied(folders / "wav2vec2", tmp_path / "wav2vec2")
    _rewritten(folder / "preprocessor_config.json", sampling_rate=8_000)
    assert "takes 8000 Hz: rate_hz must be that, got 16000" in _refused("audio", folder)
    shutil.copy(folders / "ast" / "preprocessor_config.json", folder)
    assert "wav2vec2 with a ASTFeatureExtractor is no encoder" in _refused("audio", folder)


def test_a_preprocessor_may_be_within_a_processor(folders: Path, tmp_path: Path) -> None:
    folder = _copied(folders / "siglip2", tmp_path / "siglip2")
    alone = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    nested = {"image_processor": alone, "processor_class": "Siglip2Processor"}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    images = torch.randint(0, 256, (1, 1, 3, 40, 40), dtype=torch.uint8)
    there, at_secs = torch.ones(1, 1) > 0, torch.zeros(1, 1)
    values = _video(folder)(images, there, at_secs).values
    assert torch.equal(values, _video(folders / "siglip2")(images, there, at_secs).values)
    _rewritten(folder / "processor_config.json", image_processor={**alone, "image_mean": [0, 0, 0]})
    assert (_video(folder)(images, there, at_secs).values - values).abs().max() > 1e-3


def test_weights_that_are_not_whole_are_refused(folders: Path, tmp_path: Path) -> None:
    folder = _copied(folders / "bert", tmp_path / "bert")
    path = folder / "model.safetensors"
    whole = safetensors.torch.load_file(path)
    name = "bert.encoder.layer.0.output.dense.bias"
    safetensors.torch.save_file({key: w for key, w in whole.items() if key != name}, path)
    says = "lacks weights that config.json asks for: encoder.layer.0.output.dense.bias"
    assert says in _refused("text", folder)
    safetensors.torch.save_file({**whole, name: torch.zeros(5)}, path)
    assert says in _refused("text", folder)
    path.write_bytes(path.read_bytes()[:-4])
    assert "model.safetensors is not a whole safetensors file" in _refused("text", folder)
    path.unlink()
    assert "has no model.safetensors, and weights are taken from safetensors only" in _refused(
        "text", folder
    )
    (folder / "config.json").write_text("{")
    assert "config.json: cannot be read as JSON" in _refused("text", folder)
    (folder / "config.json").write_text('{"model_type": "unheard_of"}')
    assert "no model of the transformers library" in _refused("text", folder)


def test_pickled_weights_are_refused_unread(folders: Path, tmp_path: Path) -> None:
    folder = _copied(folders / "resnet", tmp_path / "resnet")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin may run code when it is read and is refused" in _refused(
        "video", folder
    )
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    torch.save({"classifier": nn.Linear(2, 2)}, folder / "pytorch_model.bin")
    _rewritten(folder / "config.json", transformers_weights="pytorch_model.bin")
    _video(folder)  # the safetensors beside it count


def test_code_of_the_folder_or_the_hub_never_runs_nor_is_asked_for(
    folders: Path, tmp_path: Path
) -> None:
    folder = _copied(folders / "siglip2", tmp_path / "siglip2")
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    auto_map: dict[str, JsonValue] = dict.fromkeys(
        ("AutoConfig", "AutoModel", "AutoImageProcessor"), "own.Own"
    )
    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    kernel: dict[str, JsonValue] = {"_attn_implementation": "somebody/kernel"}
    for name in ("config.json", "preprocessor_config.json"):
        _rewritten(folder / name, auto_map=auto_map)
    _rewritten(folder / "config.json", vision_config={**vision, **kernel}, **kernel)
    _video(folder)
    _rewritten(folder / "preprocessor_config.json", image_processor_type="Own")
    assert "no encoder of images" in _refused("video", folder)
    _rewritten(folder / "config.json", model_type="own")
    assert "no model of the transformers library" in _refused("video", folder)
    assert not ran.exists()


@torch.no_grad()
def test_weights_in_several_files_are_put_together(folders: Path, tmp_path: Path) -> None:
    with quiet():
        AutoModel.from_pretrained(folders / "convnextv2").save_pretrained(
            tmp_path, max_shard_size="5KB"
        )
    shutil.copy(folders / "convnextv2" / "preprocessor_config.json", tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    images = torch.randint(0, 256, (1, 1, 3, 32, 32), dtype=torch.uint8)
    one, other = (
        _video(folder)(images, torch.ones(1, 1) > 0, torch.zeros(1, 1)).values
        for folder in (tmp_path, folders / "convnextv2")
    )
    assert torch.equal(one, other)
    min(tmp_path.glob("model-*.safetensors")).unlink()
    assert "has no model-00001-of-" in _refused("video", tmp_path)


def test_a_hub_id_is_found_in_the_cache_and_nowhere_else_when_offline(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    says = _refused("video", "somebody/resnet")
    assert says.startswith("somebody/resnet: no such folder, and none from the hub: ")
    assert "outgoing traffic has been disabled" in says
    repository, commit = tmp_path / "models--somebody--resnet", "0" * 40
    _copied(folders / "resnet", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    cached, local = _video(Path("somebody/resnet")), _video(folders / "resnet")
    for one, other in zip(cached.parameters(), local.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_hub_that_cannot_be_reached_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "none from the hub" in _refused("video", "somebody/resnet")


def _whole(folders: Path) -> MmtSettings:
    return MmtSettings(
        audio=PretrainedAudio(weights=str(folders / "ast"), n_dims=8),
        video=PretrainedVideo(weights=str(folders / "siglip2"), n_dims=8),
        text=PretrainedText(weights=str(folders / "bert"), n_dims=8, n_longest=16),
        fusion=ConcatSettings(modalities=("audio", "video", "text"), n_dims=8),
        heads={"pet": ClassifierSettings(labels=("dog", "cat"), n_dims=8)},
    )


@torch.no_grad()
def test_a_checkpoint_needs_none_of_the_folders_that_it_was_made_of(
    folders: Path, tmp_path: Path
) -> None:
    gone = _copied(folders, tmp_path / "gone")
    model = Mmt(_whole(gone)).eval()
    frames, frames_present = _batch([_sound(20_000), _sound(9_000)])
    inputs = Inputs(
        frames=frames,
        frames_present=frames_present,
        images=torch.randint(0, 256, (2, 1, 3, 32, 32), dtype=torch.uint8),
        images_present=torch.ones(2, 1) > 0,
        images_at_secs=torch.zeros(2, 1),
        words=_words(gone / "bert", ["the dog", "dogs"]),
    )
    expected = model(inputs).logits["pet"]
    identity = Identity(task="pet", rate_hz=_RATE, trained=True)
    save(tmp_path / "checkpoint", model, model.settings, identity, "")
    shutil.rmtree(gone)
    checkpoint = read(tmp_path / "checkpoint", MmtSettings, task="pet", rate_hz=_RATE)
    other = Mmt(checkpoint.settings).eval()
    checkpoint.fill(other)
    assert torch.equal(other(inputs).logits["pet"], expected)
    words = checkpoint.settings.text
    assert isinstance(words, PretrainedText)
    assert inputs.words is not None
    again = PretrainedPieces(words).encode(["the dog", "dogs"], n_longest=16)
    assert torch.equal(again.ids, inputs.words.ids)


_YAML = """\
audio: {weights: a/b, type: pretrained, train: true}
video: {type: resnet, n_blocks: [1, 1, 1, 1]}
text: {n_words: 50}
fusion: {type: concat, modalities: [audio, video, text]}
heads: {pet: {labels: [dog, cat]}}
"""


def test_type_says_which_encoder_and_ours_need_none(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(_YAML)
    settings = config.load(path, MmtSettings)
    assert settings.audio == PretrainedAudio(weights="a/b", train=True)
    assert settings.video == ResNetSettings(n_blocks=(1, 1, 1, 1))
    assert settings.text is not None
    assert settings.text.type == "own"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"train: true": "trains: true"},
            "model.yaml:1:41: audio.trains: unknown key; did you mean 'train'?",
        ),
        ({"pretrained": "pretraned"}, "model.yaml:1:29: audio.type: must be 'own' or 'pretrained'"),
        ({"weights: a/b, ": ""}, "audio.weights: missing, but required"),
    ],
)
def test_settings_that_are_wrong_are_located(
    tmp_path: Path, change: Mapping[str, str], says: str
) -> None:
    path, text = tmp_path / "model.yaml", _YAML
    for old, new in change.items():
        text = text.replace(old, new, 1)
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path, MmtSettings)
    assert says in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_resnet_by_configuration_is_the_known_one() -> None:
    encoder = ResNetEncoder(ResNetSettings())
    assert sum(w.numel() for w in encoder.network.parameters()) == 11_176_512  # ResNet-18's
    deep = ResNetSettings(block="bottleneck", widths=(256, 512, 1024, 2048), n_blocks=(3, 4, 6, 3))
    with torch.device("meta"):
        n_weights = sum(w.numel() for w in ResNetEncoder(deep).network.parameters())
    assert n_weights == 23_508_032  # ResNet-50's


@torch.no_grad()
def test_a_resnet_encodes_each_frame_on_its_own_and_only_those_there() -> None:
    settings = ResNetSettings(n_channels=1, n_dims=8, widths=(4, 8), n_blocks=(1, 1))
    encoder = ResNetEncoder(settings)
    images = torch.randint(0, 256, (2, 3, 1, 32, 32), dtype=torch.uint8)
    present = torch.tensor([[True, False, True], [True, True, False]])
    at_secs = torch.zeros(2, 3)
    encoder(images, present, at_secs)  # in training: its batch norms learn
    whole = encoder.eval()(images, present, at_secs).values
    assert not whole[~present].any()
    alone = encoder(images[1:, 1:2], present[1:, 1:2], at_secs[1:, 1:2]).values
    torch.testing.assert_close(alone[0, 0], whole[1, 1])
    torch.testing.assert_close(encoder(images / 255, present, at_secs).values, whole)
    with pytest.raises(ScorerError, match=r"\[b, t, 1, h, w\]: got \[2, 3, 3, 32, 32\]"):
        encoder(images.expand(-1, -1, 3, -1, -1), present, at_secs)


def test_shapes_that_do_not_fit_are_named(folders: Path) -> None:
    with pytest.raises(ScorerError, match=r"frames \[b, n, 1\] and present \[b, n\]: got \[1, 5\]"):
        _audio(folders / "ast")(torch.zeros(1, 5), torch.ones(1, 5) > 0)
    with pytest.raises(ScorerError, match=r"\[b, t, 1 or 3, h, w\]: got \[1, 1, 2, 8, 8\]"):
        _video(folders / "resnet")(
            torch.zeros(1, 1, 2, 8, 8), torch.ones(1, 1) > 0, torch.zeros(1, 1)
        )
