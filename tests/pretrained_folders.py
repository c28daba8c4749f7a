"""Folders as the transformers library's `save_pretrained` writes them: tiny, of random weights."""

from pathlib import Path
from typing import TypeVar

import torch
from pydantic import JsonValue

import mmstream.features.audio  # noqa: F401 - before transformers imports a torchaudio that cannot

# isort: split
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    ConvNextImageProcessorPil,
    ConvNextV2Config,
    ConvNextV2Model,
    HubertConfig,
    HubertModel,
    PreTrainedConfig,
    ResNetConfig,
    ResNetForImageClassification,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from mmstream.models.pretrained_loading import quiet

IMAGES = ("resnet", "convnextv2", "siglip", "siglip2")
SOUNDS = ("ast", "wav2vec2", "hubert", "wavlm", "whisper")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "barks", "is", "##s", "##ly")
_TRANSFORMER: dict[str, JsonValue] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
}

C = TypeVar("C", bound=PreTrainedConfig)


def _of(kind: type[C], **values: JsonValue) -> C:
    return kind.from_dict(values)


def write_all(folder: Path) -> None:
    """One folder for each of `IMAGES` and `SOUNDS`, and `bert`."""
    torch.manual_seed(0)
    with quiet():
        write_images(folder)
        for name in SOUNDS:
            write_sound(folder, name)
        write_text(folder / "bert")


def write_images(folder: Path) -> None:
    """A classifier, a network alone, and two that know texts as well."""
    small: dict[str, JsonValue] = {"hidden_sizes": [8, 16], "depths": [1, 1]}
    resnet = _of(ResNetConfig, embedding_size=8, layer_type="basic", **small)
    ResNetForImageClassification(resnet).save_pretrained(folder / "resnet")
    ConvNextV2Model(_of(ConvNextV2Config, num_stages=2, **small)).save_pretrained(
        folder / "convnextv2"
    )
    for name in ("resnet", "convnextv2"):
        ConvNextImageProcessorPil(size={"shortest_edge": 32}).save_pretrained(folder / name)
    vision: dict[str, JsonValue] = {**_TRANSFORMER, "patch_size": 8}
    texts: dict[str, JsonValue] = {
        **_TRANSFORMER,
        "vocab_size": 30,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    fixed = _of(SiglipConfig, text_config=texts, vision_config={**vision, "image_size": 32})
    SiglipModel(fixed).save_pretrained(folder / "siglip")
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / "siglip")
    free = _of(Siglip2Config, text_config=texts, vision_config={**vision, "num_patches": 16})
    Siglip2Model(free).save_pretrained(folder / "siglip2")
    Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(folder / "siglip2")


def write_sound(folder: Path, name: str, *, n_layers: int = 2) -> None:
    """One of `SOUNDS`; without layers each token knows only the samples that it is made of."""
    small = {**_TRANSFORMER, "num_hidden_layers": n_layers}
    if name == "ast":
        bands: dict[str, JsonValue] = {"num_mel_bins": 32, "max_length": 128}
        ASTForAudioClassification(_of(ASTConfig, **small, **bands)).save_pretrained(folder / name)
        ast = ASTFeatureExtractor(**bands)  # type: ignore[no-untyped-call] # the library's
        ast.save_pretrained(folder / name)
    elif name == "whisper":
        whisper = _of(
            WhisperConfig,
            d_model=16,
            encoder_layers=n_layers,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            vocab_size=60,
            max_source_positions=100,
            num_mel_bins=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        WhisperForConditionalGeneration(whisper).save_pretrained(folder / name)
        heard = WhisperFeatureExtractor(feature_size=16, chunk_length=2)  # type: ignore[no-untyped-call] # the library's
        heard.save_pretrained(folder / name)
    else:
        kin: dict[str, JsonValue] = {
            **small,
            "conv_dim": [8] * 7,
            "num_conv_pos_embeddings": 8 if n_layers else 1,
            "num_conv_pos_embedding_groups": 2,
            # Group norms are over all of the time.
            "feat_extract_norm": "group" if n_layers else "layer",
        }
        if name == "wav2vec2":
            Wav2Vec2ForCTC(_of(Wav2Vec2Config, vocab_size=30, **kin)).save_pretrained(folder / name)
        elif name == "hubert":
            HubertModel(_of(HubertConfig, **kin)).save_pretrained(folder / name)
        else:
            WavLMModel(_of(WavLMConfig, **kin)).save_pretrained(folder / name)
        normal = n_layers > 0  # over all of the time, too
        extractor = Wav2Vec2FeatureExtractor(do_normalize=normal)  # type: ignore[no-untyped-call] # the library's
        extractor.save_pretrained(folder / name)


def write_text(folder: Path) -> None:
    """One that was trained to guess masked words, and so has no pooler."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    bert = _of(BertConfig, vocab_size=len(WORDS), max_position_embeddings=32, **_TRANSFORMER)
    BertForMaskedLM(bert).save_pretrained(folder)
