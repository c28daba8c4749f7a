"""Folders of Whisper and Moonshine as `save_pretrained` writes them: tiny, of random weights.

Their decoders can be made to say given tokens, whatever they hear: the weights of all layers are
nought, so that what comes next depends on the place alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import JsonValue
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

import mmstream.features.audio  # noqa: F401 - before transformers imports a torchaudio that cannot

# isort: split
from transformers import (
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    MoonshineStreamingConfig,
    MoonshineStreamingForConditionalGeneration,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from mmstream.models.pretrained_loading import quiet

_Json = dict[str, JsonValue]

PIECES = ("Ġgood", "Ġmor", "ning", ",", "Ġworld", ".", "Ã", "©", "Ġcaf")
LANGUAGES = ("en", "de", "haw")
CHUNK_SECS = 2
N_TIMES = CHUNK_SECS * 50 + 1


def whisper_tokens(*, multilingual: bool) -> dict[str, int]:
    """The vocabulary: pieces, then special tokens, then timestamps, in the true order."""
    names = [*PIECES, "<|endoftext|>", "<|startoftranscript|>"]
    names += [f"<|{language}|>" for language in LANGUAGES] if multilingual else []
    names += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"]
    names += ["<|nospeech|>", "<|notimestamps|>"]
    names += [f"<|{i * 0.02:.2f}|>" for i in range(N_TIMES)]
    return {name: i for i, name in enumerate(names)}


def write_whisper(folder: Path, *, multilingual: bool = False, heads: bool = True) -> None:
    """All files of a repository such as openai/whisper-tiny.en."""
    ids = whisper_tokens(multilingual=multilingual)
    start, end = ids["<|startoftranscript|>"], ids["<|endoftext|>"]
    torch.manual_seed(0)
    config = WhisperConfig.from_dict(
        {
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 16,
            "decoder_ffn_dim": 16,
            "vocab_size": len(ids),
            "max_source_positions": 50 * CHUNK_SECS,
            "max_target_positions": 64,
            "num_mel_bins": 16,
            "pad_token_id": end,
            "bos_token_id": end,
            "eos_token_id": end,
            "decoder_start_token_id": start,
        }
    )
    with quiet():
        WhisperForConditionalGeneration(config).save_pretrained(folder)
        heard = WhisperFeatureExtractor(feature_size=16, chunk_length=CHUNK_SECS)  # type: ignore[no-untyped-call] # the library's
        heard.save_pretrained(folder)
        _write_tokenizer(folder, ids, "<|endoftext|>")
    said: _Json = {
        "decoder_start_token_id": start,
        "eos_token_id": end,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "suppress_tokens": [start, ids["<|nospeech|>"], ids["<|startofprev|>"]],
        "begin_suppress_tokens": [end],
        "is_multilingual": multilingual,
    }
    if heads:
        said["alignment_heads"] = [[0, 1], [1, 0]]
    if multilingual:
        said["lang_to_id"] = {f"<|{name}|>": ids[f"<|{name}|>"] for name in LANGUAGES}
        said["task_to_id"] = {name: ids[f"<|{name}|>"] for name in ("translate", "transcribe")}
    (folder / "generation_config.json").write_text(json.dumps(said))


def write_moonshine(folder: Path, *, streaming: bool) -> None:
    """All files of a repository such as UsefulSensors/moonshine-tiny or -streaming-tiny."""
    names = ["<unk>", "<s>", "</s>", *(piece.replace("Ġ", "▁") for piece in PIECES)]
    shape: _Json = {
        "vocab_size": len(names),
        "hidden_size": 16,
        "intermediate_size": 16,
        "max_position_embeddings": 2048,
    }
    torch.manual_seed(0)
    with quiet():
        if streaming:
            layers: _Json = {"num_hidden_layers": 2, "num_attention_heads": 2}
            part = {
                **layers,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_key_value_heads": 2,
                "sliding_windows": [[16, 4], [16, 0]],
            }
            said = {**shape, **layers, "num_key_value_heads": 2, "encoder_config": part}
            config = MoonshineStreamingConfig.from_dict(said)
            MoonshineStreamingForConditionalGeneration(config).save_pretrained(folder)
        else:
            sizes: _Json = {
                f"{part}_num_{what}": 2
                for part in ("encoder", "decoder")
                for what in ("hidden_layers", "attention_heads")
            }
            # With random weights that are tied it would but repeat the first token.
            said = {**shape, **sizes, "tie_word_embeddings": False}
            classic = MoonshineConfig.from_dict(said)
            MoonshineForConditionalGeneration(classic).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)  # type: ignore[no-untyped-call] # the library's
        _write_tokenizer(folder, {name: i for i, name in enumerate(names)}, "</s>")
        GenerationConfig(bos_token_id=1, eos_token_id=2).save_pretrained(folder)  # type: ignore[no-untyped-call] # the library's


def _write_tokenizer(folder: Path, ids: dict[str, int], end: str) -> None:
    tokenizer = Tokenizer(BPE(vocab=ids, merges=[]))
    if end == "</s>":
        tokenizer.decoder = decoders.Metaspace()
        special = ["<unk>", "<s>", "</s>"]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special = [name for name in ids if name.startswith("<|")]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end)  # type: ignore[no-untyped-call] # the library's
    whole.save_pretrained(folder)


def make_say(network: torch.nn.Module, said: Sequence[int], *, n_prompt: int, end: int) -> None:
    """From now on Whisper's `network` says these tokens and ends, whatever it hears.

    Raises:
        AssertionError: it has too few numbers for so many places.
    """
    decoder = network.get_submodule("model.decoder")
    output = network.get_parameter("model.decoder.embed_tokens.weight")
    places = network.get_parameter("model.decoder.embed_positions.weight")
    tokens = [*said, end]
    assert len(tokens) <= places.shape[1], "a number for each place"
    with torch.no_grad():
        for layer in decoder.get_submodule("layers").parameters():
            layer.zero_()
        output.zero_()
        places.zero_()
        for i, token in enumerate(tokens):
            places[n_prompt - 1 + i, i] = 100  # more than the token before it
            output[token, i] = 4
