"""Four kinds in the library's own format, by the path that a user's folder takes."""

import json
from pathlib import Path
from typing import cast

import huggingface_hub
import numpy as np
import pytest
import torch
from captioner_folders import ALL, KINDS, write_captioner
from pretrained_folders import write_text
from torch import Tensor, nn

from mmstream.errors import ScorerError
from mmstream.media import Bytes
from mmstream.models.captioner_settings import CaptionerSettings
from mmstream.models.pretrained_captioner import PretrainedCaptioner, sentence


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioners")
    for kind in KINDS:
        write_captioner(folder / kind, kind)
    return folder


def _built(folder: Path, *, prompt: str | None = None, max_words: int = 6) -> PretrainedCaptioner:
    settings = CaptionerSettings(weights=str(folder), prompt=prompt, max_words=max_words)
    return cast("PretrainedCaptioner", settings.build("cpu"))


def _pictures(n: int) -> list[Bytes]:
    random = np.random.default_rng(0)
    flat = [np.full((40, 60, 3), 255 * i // n, np.uint8) for i in range(n - 2)]
    return [*flat, *random.integers(0, 256, (2, 30, 70, 3), np.uint8)]


def _refused(folder: Path | str) -> str:
    with pytest.raises(ScorerError) as caught:
        CaptionerSettings(weights=str(folder)).build("cpu")
    line = str(caught.value)
    assert line.startswith(str(folder))
    assert "\n" not in line
    return line


class _Forced:
    """Makes the last layer give these words, one after the other, and then the end."""

    def __init__(self, words: str) -> None:
        self._pieces = [ALL.index(word) for word in (*words.split(), "</s>")]

    def __call__(self, _layer: nn.Module, _given: object, logits: Tensor) -> Tensor:
        bias = torch.zeros(logits.shape[-1])
        bias[self._pieces.pop(0)] = 1e6
        return logits + bias


def _force(captioner: PretrainedCaptioner, words: str) -> None:
    layers = [
        layer
        for layer in captioner._model.modules()  # noqa: SLF001 - the words are forced at its end
        if isinstance(layer, nn.Linear) and layer.out_features == len(ALL)
    ]
    assert len(layers) == 1
    layers[0].register_forward_hook(_Forced(words))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_says_what_each_picture_alone_does(folders: Path, kind: str) -> None:
    captioner = _built(folders / kind)
    pictures = _pictures(5)
    together = captioner.describe(pictures)
    assert len(set(together)) > 1
    assert list(together) == [captioner.describe([one])[0] for one in pictures]
    assert captioner.describe([]) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_become_a_sentence(folders: Path, kind: str) -> None:
    captioner = _built(folders / kind)
    _force(captioner, "a dog runs <image>")
    assert captioner.describe(_pictures(2)) == ("A dog runs.",) * 2


@pytest.mark.parametrize(
    ("kind", "said"),
    [("blip", "The image runs."), ("git", "The image runs."), ("smolvlm", "Runs.")],
)
def test_a_prompt_begins_the_sentence_or_asks_for_it(folders: Path, kind: str, said: str) -> None:
    captioner = _built(folders / kind, prompt="the image")
    _force(captioner, "runs")
    assert captioner.describe(_pictures(2)[:1]) == (said,)


def test_what_is_asked_of_florence_and_smolvlm_is_what_their_processors_write(
    folders: Path,
) -> None:
    asked = _built(folders / "florence2")._asked  # noqa: SLF001 - not seen otherwise
    assert " ".join(ALL[i] for i in asked.pieces) == (
        "<image> " * 5 + "<s> What does the image describe? </s>"
    )
    turn = _built(folders / "smolvlm", prompt="What runs")._asked  # noqa: SLF001 - the same
    assert " ".join(ALL[i] for i in turn.pieces) == (
        "<|im_start|> User: <fake_token_around_image> <global-img> "
        + "<image> " * 4
        + "<fake_token_around_image> What runs <end_of_utterance> Assistant:"
    )


def test_a_sentence_has_no_more_words_than_allowed(folders: Path) -> None:
    captioner = _built(folders / "git", max_words=2)
    _force(captioner, "a dog runs the image")
    assert captioner.describe(_pictures(2)[:1]) == ("A dog.",)


@pytest.mark.parametrize(
    ("said", "cleaned"),
    [
        ("", ""),
        (" \n", ""),
        (" . ! ", ""),
        ("two cats", "Two cats."),
        ("  a  man\twalks .  A dog. ", "A man walks."),
        ("is it night? yes", "Is it night?"),
        ("it costs 3.50 now", "It costs 3.50 now."),
        ("... a cat", "A cat."),
        ("a b c d, e f", "A b c d."),
    ],
)
def test_one_sentence_is_kept(said: str, cleaned: str) -> None:
    assert sentence(said, max_words=4) == cleaned


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_captioner(tmp_path / "git", "git")
    (folder / name).unlink()
    assert name in _refused(folder)


def test_no_preprocessor_is_refused(tmp_path: Path) -> None:
    folder = write_captioner(tmp_path / "git", "git")
    (folder / "preprocessor_config.json").unlink()
    assert "neither preprocessor_config.json nor processor_config.json" in _refused(folder)


def test_a_folder_as_the_library_writes_it_since_version_5_is_read(
    folders: Path, tmp_path: Path
) -> None:
    folder = write_captioner(tmp_path / "blip", "blip")
    images = json.loads((folder / "preprocessor_config.json").read_text())
    whole = {"image_processor": images, "processor_class": "BlipProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(whole))
    (folder / "preprocessor_config.json").unlink()
    pictures = _pictures(5)
    assert _built(folder).describe(pictures) == _built(folders / "blip").describe(pictures)


def test_microsofts_own_files_of_florence_are_refused(tmp_path: Path) -> None:
    folder = write_captioner(tmp_path / "florence2", "florence2")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_florence2.Florence2Config"}
    config["text_config"]["model_type"] = "florence2_language"  # known to their code alone
    (folder / "config.json").write_text(json.dumps(config))
    assert "no model of the transformers library" in _refused(folder)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = write_captioner(tmp_path / "git", "git")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "safetensors" in _refused(folder)


def test_what_is_no_captioner_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "bert")
    assert "bert is no captioner; allowed: BLIP, GIT, Florence-2" in _refused(tmp_path / "bert")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = write_captioner(tmp_path / "git", "git")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    assert "lacks weights" in _refused(folder)


def test_a_hub_id_out_of_reach_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "no such folder, and none from the hub" in _refused("nobody/no-captioner-of-theirs")


def test_its_name_is_the_last_part_of_its_weights() -> None:
    assert CaptionerSettings(weights="Salesforce/blip-base").name == "blip-base"
    assert CaptionerSettings(weights="/srv/models/git/").name == "git"
