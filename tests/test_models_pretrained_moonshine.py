"""Moonshine, classic and streaming: the reference is what the library's `generate` says."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained_speech_folders import write_moonshine

from mmstream.errors import ScorerError
from mmstream.media import Take
from mmstream.models.pretrained_loading import TOKENIZERS, found_at
from mmstream.models.pretrained_moonshine import MoonshineRecogniser
from mmstream.models.pretrained_speech import Decoded, Pieces, spoken, spread
from mmstream.models.speech_settings import MoonshineSettings

# isort: split
from transformers import AutoModelForSpeechSeq2Seq, PreTrainedTokenizerFast

_RATE = 16_000
_KINDS = ("classic", "streaming")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moonshine")
    for kind in _KINDS:
        write_moonshine(folder / kind, streaming=kind == "streaming")
    return folder


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def _built(folder: Path) -> MoonshineRecogniser:
    return MoonshineRecogniser(MoonshineSettings(weights=str(folder)), "cpu")


def _take(secs: float, *, seed: int = 0, rate_hz: int = _RATE) -> Take:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(secs * rate_hz))
    return Take(f"s{seed}", 3, 5_000_000_000, rate_hz, samples.astype(np.float32))


@pytest.mark.parametrize("kind", _KINDS)
def test_takes_together_give_what_each_gives_alone(folders: Path, kind: str) -> None:
    recogniser = _built(folders / kind)
    takes = [_take(secs, seed=seed) for seed, secs in enumerate([1.3, 3.0, 0.05, 0.31])]
    together = recogniser.recognise(takes)
    alone = [recogniser.recognise([take])[0] for take in takes]
    assert any(heard.words for heard in together)
    assert not together[2].words
    for one, other in zip(together, alone, strict=True):
        assert [(w.text, w.span) for w in one.words] == [(w.text, w.span) for w in other.words]
        assert [w.confidence for w in one.words] == pytest.approx(
            [w.confidence for w in other.words], abs=1e-4
        )


@pytest.mark.parametrize("kind", _KINDS)
def test_the_words_are_those_of_the_librarys_own_decoding(folders: Path, kind: str) -> None:
    take = _take(2.0)
    heard = _built(folders / kind).recognise([take])[0]
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folders / kind, dtype=torch.float32).eval()
    samples = torch.from_numpy(take.samples.copy())[None]
    ids = model.generate(
        samples,
        attention_mask=torch.ones_like(samples, dtype=torch.long),
        max_new_tokens=17,  # 4 and 6.5 a second
        do_sample=False,
    )[0]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folders / kind)
    assert (
        " ".join(w.text for w in heard.words)
        == tokenizer.decode(ids, skip_special_tokens=True).strip()
    )
    edges = [at for w in heard.words for at in (w.span.start_ns, w.span.end_ns)]
    assert edges[0] == take.span.start_ns
    assert edges[-1] == take.span.end_ns
    assert all(a <= b for a, b in pairwise(edges))


def test_the_streaming_encoder_looks_no_farther_than_its_windows(folders: Path) -> None:
    recogniser, take = _built(folders / "streaming"), _take(3.0)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(
        folders / "streaming", dtype=torch.float32
    ).eval()
    samples = torch.from_numpy(take.samples.copy())[None]
    with torch.inference_mode():
        own = recogniser._encode(take)  # noqa: SLF001 - words of random weights would not tell
        theirs = model.model.encoder(samples, attention_mask=torch.ones_like(samples).long())
    torch.testing.assert_close(own, theirs.last_hidden_state[0])


def test_a_word_is_its_pieces_and_lasts_in_proportion(folders: Path) -> None:
    pieces = Pieces(found_at(str(folders / "classic"), *TOKENIZERS), "recogniser")
    tokens = [4, 5, 6, 3, 8]  # two words, of three pieces and of two
    words = pieces.words(tokens, range(5))
    assert [(word.text, word.first, word.end) for word in words] == [
        ("morning,", 0, 3),
        ("good.", 3, 5),
    ]
    heard = Decoded(tuple(tokens), tuple(np.log([0.5, 1, 0.75, 0.25, 0.75])))
    said = spoken(words, spread(words, 0, 1500), heard)
    assert [word.confidence for word in said] == pytest.approx([0.75, 0.5])
    assert [(word.span.start_ns, word.span.end_ns) for word in said] == [(0, 900), (900, 1500)]


def test_other_models_and_lengths_and_rates_are_refused(folders: Path, tmp_path: Path) -> None:
    recogniser = _built(folders / "classic")
    with pytest.raises(ScorerError, match="s0: hears 30 s at once: got 31"):
        recogniser.recognise([_take(31)])
    with pytest.raises(ScorerError, match="hears 16000 Hz only: got 8000"):
        recogniser.recognise([_take(1, rate_hz=8000)])
    folder = Path(shutil.copytree(folders / "classic", tmp_path / "less"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ScorerError, match=r"less: has no tokenizer\.json"):
        _built(folder)
