"""Folders of captioners as `save_pretrained` writes them: tiny, of random weights."""

from pathlib import Path

import torch
from pydantic import JsonValue
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

import mmstream.features.audio  # noqa: F401 - before transformers imports a torchaudio that cannot

# isort: split
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2ForConditionalGeneration,
    GitConfig,
    GitForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

from mmstream.models.pretrained_loading import quiet

KINDS = ("blip", "git", "florence2", "smolvlm")
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "<fake_token_around_image>")
MORE = ("<global-img>", "<end_of_utterance>", "<|im_start|>")
WORDS = ("a", "dog", "runs", "What", "does", "the", "image", "describe?", "User:", "Assistant:")
ALL = (*SPECIAL, *MORE, *WORDS)
PAD, BEGIN, END, IMAGE = 0, 1, 2, 4
_SMALL: dict[str, JsonValue] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
}
_PIECES: dict[str, JsonValue] = {
    "vocab_size": len(ALL),
    "pad_token_id": PAD,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
}
_MORE = {"patch_embedding": 20, "position_embeddings": 0.1}
"""Of BLIP: else its words follow from the words before, whatever the picture."""
_VISION: dict[str, JsonValue] = {**_SMALL, "image_size": 32, "patch_size": 8}


def write_captioner(folder: Path, kind: str) -> Path:
    """One of `KINDS`; its weights are large, so that pictures make a difference."""
    torch.manual_seed(1)
    with quiet():
        model = _model(kind)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim > 1:
                    weight.mul_(12 * _MORE.get(name.split(".")[-2], 1))
                if "crossattention" in name and weight.ndim > 1:
                    weight.mul_(30)
        model.save_pretrained(folder)
        _tokenizer().save_pretrained(folder)
        size = {"height": 32, "width": 32}
        if kind == "smolvlm":
            SmolVLMImageProcessorPil(
                size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
            ).save_pretrained(folder)
        elif kind == "blip":
            BlipImageProcessorPil(size=size).save_pretrained(folder)
        else:
            CLIPImageProcessorPil(
                size=size, crop_size=size, do_center_crop=False, image_seq_length=5
            ).save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(ALL)}, unk_token="<unk>"))  # noqa: S106 - no password
    words.pre_tokenizer = WhitespaceSplit()
    names = ("pad", "bos", "eos", "unk", "cls", "sep")
    pieces = (*SPECIAL[:4], "<s>", "</s>")
    marks = {f"{name}_token": piece for name, piece in zip(names, pieces, strict=True)}
    more = [*SPECIAL[4:], *MORE]
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call] # the library's
        tokenizer_object=words, additional_special_tokens=more, **marks
    )


def _model(kind: str) -> PreTrainedModel:
    if kind == "blip":
        text: dict[str, JsonValue] = {**_SMALL, **_PIECES, "sep_token_id": END}
        text |= {"encoder_hidden_size": 16, "max_position_embeddings": 64}
        return BlipForConditionalGeneration(
            BlipConfig.from_dict({"text_config": text, "vision_config": _VISION})
        )
    if kind == "git":
        one: dict[str, JsonValue] = {**_SMALL, **_PIECES, "max_position_embeddings": 64}
        return GitForCausalLM(GitConfig.from_dict({**one, "vision_config": _VISION}))
    if kind == "florence2":
        return Florence2ForConditionalGeneration(Florence2Config.from_dict(_florence()))
    llama: dict[str, JsonValue] = {**_SMALL, **_PIECES, "model_type": "llama"}
    return SmolVLMForConditionalGeneration(
        SmolVLMConfig.from_dict(
            {
                "text_config": {**llama, "num_key_value_heads": 2},
                "vision_config": _VISION,
                "scale_factor": 2,
                "image_token_id": IMAGE,
                "pad_token_id": PAD,
                "tie_word_embeddings": False,
            }
        )
    )


def _florence() -> dict[str, JsonValue]:
    text: dict[str, JsonValue] = {
        **_PIECES,
        "model_type": "bart",
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "max_position_embeddings": 64,
        "decoder_start_token_id": END,
    }
    vision: dict[str, JsonValue] = {
        "depths": [1, 1],
        "patch_size": [7, 3],
        "patch_stride": [4, 4],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "embed_dim": [8, 16],
        "num_heads": [2, 2],
        "num_groups": [2, 2],
        "window_size": 2,
        "projection_dim": 16,
    }
    return {"text_config": text, "vision_config": vision, "image_token_id": IMAGE}
