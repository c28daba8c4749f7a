"""What is read of a folder, what is said of the takes, and what is refused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained_speech_folders import CHUNK_SECS, make_say, whisper_tokens, write_whisper
from pydantic import JsonValue, ValidationError

from mmstream.errors import ScorerError
from mmstream.media import Hypothesis, Take
from mmstream.models.pretrained_speech import Decoded
from mmstream.models.pretrained_whisper import WhisperRecogniser
from mmstream.models.speech_alignment import token_frames
from mmstream.models.speech_settings import WhisperSettings

# isort: split
from transformers import WhisperFeatureExtractor

_RATE = 16_000
_START_NS = 7_000_000_000
_SAID = ("Ġgood", "Ġmor", "ning", ",", "Ġcaf", "Ã", "©")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    write_whisper(folder / "en")
    write_whisper(folder / "many", multilingual=True, heads=False)
    return folder


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def _built(folder: Path, language: str = "en") -> WhisperRecogniser:
    return WhisperRecogniser(WhisperSettings(weights=str(folder), language=language), "cpu")


def _take(secs: float, *, seed: int = 0, rate_hz: int = _RATE) -> Take:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(secs * rate_hz))
    return Take(f"s{seed}", 3, _START_NS, rate_hz, samples.astype(np.float32), is_last=True)


def _saying(folder: Path, said: Sequence[str], *, multilingual: bool = False) -> Hypothesis:
    recogniser = _built(folder)
    ids = whisper_tokens(multilingual=multilingual)
    tokens = [ids[name] for name in said]
    n_prompt = 3 if multilingual else 1
    make_say(recogniser._network, tokens, n_prompt=n_prompt, end=ids["<|endoftext|>"])  # noqa: SLF001 - hand-set weights
    return recogniser.recognise([_take(1.5)])[0]


def _rewritten(folder: Path, to: Path, **changes: JsonValue) -> Path:
    shutil.copytree(folder, to)
    path = to / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return to


@pytest.mark.parametrize("name", ["en", "many"])
def test_word_pieces_are_joined_and_times_rise_inside_the_take(folders: Path, name: str) -> None:
    said = ["<|0.20|>", *_SAID, "<|1.00|>"]
    heard = _saying(folders / name, said, multilingual=name == "many")
    assert [word.text for word in heard.words] == ["good", "morning,", "café"]
    edges = [at for word in heard.words for at in (word.span.start_ns, word.span.end_ns)]
    assert edges == sorted(edges)
    assert heard.span.start_ns <= edges[0]
    assert edges[-1] <= heard.span.end_ns
    assert all(0 < word.confidence <= 1 for word in heard.words)
    assert (heard.utterance, heard.language, heard.is_last) == (3, "en", True)


def test_without_heads_words_share_what_lies_between_timestamps(folders: Path) -> None:
    said = ["<|0.20|>", "Ġgood", "<|0.50|>", "<|0.80|>", "Ġgood", "Ġworld", "<|1.90|>"]
    heard = _saying(folders / "many", said, multilingual=True)
    spans = [
        ((word.span.start_ns - _START_NS) / 1e9, (word.span.end_ns - _START_NS) / 1e9)
        for word in heard.words
    ]
    middle = 0.8 + 0.7 * 5 / 11  # the take ends at 1.5 s, before the last timestamp
    assert np.array(spans) == pytest.approx(np.array([(0.2, 0.5), (0.8, middle), (middle, 1.5)]))


@pytest.mark.parametrize("name", ["en", "many"])
def test_takes_together_give_what_each_gives_alone(folders: Path, name: str) -> None:
    recogniser = _built(folders / name)
    takes = [_take(secs, seed=seed) for seed, secs in enumerate([1.3, 2.0, 0.05, 0.2])]
    together = recogniser.recognise(takes)
    alone = [recogniser.recognise([take])[0] for take in takes]
    assert any(heard.words for heard in together)
    assert not together[2].words
    for one, other in zip(together, alone, strict=True):
        assert [(w.text, w.span) for w in one.words] == [(w.text, w.span) for w in other.words]
        assert [w.confidence for w in one.words] == pytest.approx(
            [w.confidence for w in other.words], abs=1e-4
        )


def test_the_network_is_given_what_the_folders_extractor_makes(folders: Path) -> None:
    recogniser, take = _built(folders / "en"), _take(1.1)
    extractor = WhisperFeatureExtractor.from_pretrained(folders / "en")
    given = extractor(take.samples, sampling_rate=_RATE, return_tensors="pt").input_features
    with torch.inference_mode():
        own = recogniser._encoded([take]).states  # noqa: SLF001 - words alone would not tell
        theirs = recogniser._network.get_submodule("model.encoder")(given).last_hidden_state  # noqa: SLF001
    assert torch.equal(own, theirs)


def test_text_that_repeats_itself_is_not_believed(folders: Path) -> None:
    said = ["<|0.00|>", *["Ġgood"] * 13, "<|1.00|>"]
    assert not _saying(folders / "en", said).words


@pytest.mark.parametrize(
    ("no_speech", "log_prob", "is_speech"),
    [(0.9, -1.5, False), (0.9, -0.5, True), (0.5, -1.5, True)],
)
def test_doubtful_words_where_nobody_seems_to_speak_are_not_believed(
    folders: Path, no_speech: float, log_prob: float, *, is_speech: bool
) -> None:
    heard = Decoded((0,), (log_prob, log_prob))
    assert _built(folders / "en")._is_speech(heard, no_speech) == is_speech  # noqa: SLF001 - random weights are never sure


def test_the_language_is_heard_if_it_is_not_told(folders: Path) -> None:
    recogniser = _built(folders / "many", "auto")
    assert recogniser.recognise([_take(1.0)])[0].language in {"en", "de", "haw"}
    assert _built(folders / "many", "de-AT").recognise([_take(1.0)])[0].language == "de-AT"


@pytest.mark.parametrize(
    ("name", "language", "said"),
    [
        ("en", "de", "knows English only: language must be en, got de"),
        ("many", "fr", "language: not known: fr; allowed: auto, de, en, haw"),
    ],
)
def test_unknown_languages_are_refused(folders: Path, name: str, language: str, said: str) -> None:
    with pytest.raises(ScorerError, match=said):
        _built(folders / name, language)


def test_what_is_no_language_is_refused() -> None:
    with pytest.raises(ValidationError, match="language"):
        WhisperSettings(weights="openai/whisper-tiny", language="a language")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"no_timestamps_token_id": None}, "no_timestamps_token_id"),
        ({"alignment_heads": [[9, 0]]}, "alignment_heads lie outside 2 layers of 2 heads"),
        ({"begin_suppress_tokens": [10_000]}, "token 10000 lies outside a vocabulary"),
    ],
)
def test_broken_generation_files_are_refused(
    folders: Path, tmp_path: Path, changes: dict[str, JsonValue], said: str
) -> None:
    with pytest.raises(ScorerError, match=said):
        _built(_rewritten(folders / "en", tmp_path / "broken", **changes))


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "generation_config.json",
        "preprocessor_config.json",
    ],
)
def test_missing_files_are_refused_by_name(folders: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(folders / "en", tmp_path / "less"))
    (folder / name).unlink()
    with pytest.raises(ScorerError, match=f"less: .*{name}"):
        _built(folder)


def test_pickled_weights_are_refused(folders: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders / "en", tmp_path / "pickled"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ScorerError, match=r"pytorch_model\.bin"):
        _built(folder)


def test_takes_that_cannot_be_heard_are_refused(folders: Path) -> None:
    recogniser = _built(folders / "en")
    with pytest.raises(ScorerError, match=r"s0: hears 2 s at once: got 2\.5 s"):
        recogniser.recognise([_take(CHUNK_SECS + 0.5)])
    with pytest.raises(ScorerError, match="s0: hears 16000 Hz only: got 8000"):
        recogniser.recognise([_take(1, rate_hz=8000)])


def test_tokens_begin_where_the_decoder_looks() -> None:
    attention = np.full((2, 4, 40), 0.01)
    for row, start in enumerate([0, 10, 15, 30]):
        attention[:, row, start : [10, 15, 30, 40][row]] = 1
    assert token_frames(attention).tolist() == pytest.approx([0, 10, 15, 30], abs=1)
