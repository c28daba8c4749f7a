"""Pictures -> a sentence each, by BLIP, GIT, Florence-2 or SmolVLM2 of the transformers library.

BLIP: Li et al. 2022 (arXiv 2201.12086). GIT: Wang et al. 2022 (arXiv 2205.14100). Florence-2: Xiao
et al. 2023 (arXiv 2311.06242). SmolVLM2: Marafioti et al. 2025 (arXiv 2504.05299).

Greedy, so that the same picture gives the same sentence. The library's own processors are not
used: one needs a package for nothing but videos, and their chat templates are programs.
"""

# Before transformers imports a torchaudio that cannot:
import mmstream.features.audio  # noqa: F401 # isort: skip

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from mmstream.media import Bytes
from mmstream.models.captioner_settings import CaptionerSettings
from mmstream.models.pretrained_loading import (
    PREPROCESSORS,
    TOKENIZERS,
    found_at,
    load,
    quiet,
)

KINDS: Final = ("blip", "git", "florence2", "smolvlm")
"""As `model_type` of a config.json has it."""
_ALLOWED: Final = "captioner; allowed: BLIP, GIT, Florence-2, SmolVLM2, with tokenizer.json"
_TASKS: Final = {
    "<CAPTION>": "What does the image describe?",
    "<DETAILED_CAPTION>": "Describe in detail what is shown in the image.",
    "<MORE_DETAILED_CAPTION>": "Describe with a paragraph what is shown in the image.",
}
"""What Florence-2 was trained to be asked, by task."""
_REQUEST: Final = "Describe what is happening in this picture in one short sentence."
_SENTENCE_END: Final = re.compile(r"[.!?](?=\s|$)|\n")
_PIECES_PER_WORD: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """What the network is asked about every picture."""

    pieces: tuple[int, ...]
    """In front of the picture's answer or to its encoder; none: the network's own beginning."""
    n_echoed: int
    """So many of the answer's first pieces are what it was asked, and are left out."""


class PretrainedCaptioner:
    """A network, its tokenizer and what prepares its pictures."""

    def __init__(self, settings: CaptionerSettings, device: str) -> None:
        """Load the folder or hub repository.

        Raises:
            ScorerError: it cannot be had, is not whole, or is of no captioner.
        """
        self._max_words = settings.max_words
        self._device = device
        self._source = source = found_at(settings.weights, *PREPROCESSORS, *TOKENIZERS)
        config: PreTrainedConfig = source.read(
            AutoConfig.from_pretrained, "model of the transformers library"
        )
        self._kind = config.model_type
        if self._kind not in KINDS:
            source.refuse(f"a model of type {self._kind} is no {_ALLOWED}")
        if TOKENIZERS[0] not in source.files:
            source.refuse(f"has no {TOKENIZERS[0]}, so it is no {_ALLOWED}")
        if not any(name in source.files for name in PREPROCESSORS):
            source.refuse(f"has neither {' nor '.join(PREPROCESSORS)}, so it is no {_ALLOWED}")
        self._tokenizer: PreTrainedTokenizerBase = source.read(
            AutoTokenizer.from_pretrained, _ALLOWED
        )
        # torchvision, where it is installed, would round other than Pillow.
        read = partial(AutoImageProcessor.from_pretrained, backend="pil")
        self._images: BaseImageProcessor = source.read(read, _ALLOWED)
        kinds = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        model = load(source, config, lambda whole: whole, kinds)
        nn.Module.to(model, torch.device(device))  # the library's own has lost its types
        self._model = model
        self._asked = self._made_of(settings.prompt, config)
        self._how = self._generation(config)

    @torch.inference_mode()
    def describe(self, pictures: Sequence[Bytes]) -> Sequence[str]:
        """[h, w, 3] RGB each -> a sentence each; empty where nothing came of it.

        Raises:
            ScorerError: the network cannot go on.
        """
        if not pictures:
            return ()
        try:
            with quiet():
                answers = self._answers([Image.fromarray(picture) for picture in pictures])
        except Exception as error:  # the library raises no narrower one
            what = "cannot describe a picture"
            raise self._source.refusal(what, error) from error
        return tuple(sentence(self._words(one), max_words=self._max_words) for one in answers)

    def _answers(self, pictures: Sequence[Image.Image]) -> Tensor:
        """[n, t] pieces."""
        nested = [[one] for one in pictures] if self._kind == "smolvlm" else list(pictures)
        # One tile: cost is bounded, and it does not depend on the shape of the picture.
        more = {"do_image_splitting": False, "do_resize": False} if self._kind == "smolvlm" else {}
        prepare = cast("Callable[..., Mapping[str, Tensor]]", self._images)
        prepared = prepare(nested, return_tensors="pt", **more)
        inputs: dict[str, Tensor] = {"pixel_values": prepared["pixel_values"].to(self._device)}
        if "pixel_attention_mask" in prepared and self._kind == "smolvlm":
            inputs["pixel_attention_mask"] = prepared["pixel_attention_mask"].to(self._device)
        if self._asked.pieces:
            asked = torch.tensor(self._asked.pieces, device=self._device)
            inputs["input_ids"] = asked.repeat(len(pictures), 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        generate = cast("Callable[..., Tensor]", self._model.generate)
        return generate(**inputs, generation_config=self._how)

    def _words(self, answer: Tensor) -> str:
        pieces = answer[self._asked.n_echoed :].tolist()
        said = self._tokenizer.decode(pieces, skip_special_tokens=True)
        return said if isinstance(said, str) else " ".join(said)

    def _made_of(self, prompt: str | None, config: PreTrainedConfig) -> _Asked:
        match self._kind:
            case "blip":
                pieces = self._pieces(prompt) if prompt else []
                # The network puts its own beginning in the first place and leaves the last out.
                asked = [config.text_config.bos_token_id, *pieces, 0] if pieces else []
                return _Asked(tuple(asked), 0)
            case "git":
                begin = self._tokenizer.cls_token_id
                begin = config.bos_token_id if begin is None else begin
                return _Asked((begin, *(self._pieces(prompt) if prompt else ())), 0)
            case "florence2":
                task = _TASKS.get(prompt or "<CAPTION>", prompt or "")
                text = [config.text_config.bos_token_id, *self._pieces(task)]
                n_places = getattr(self._images, "image_seq_length", 0)
                places = [config.image_token_id] * n_places
                return _Asked((*places, *text, config.text_config.eos_token_id), 0)
            case _:
                return self._chat(prompt or _REQUEST, config)

    def _chat(self, request: str, config: PreTrainedConfig) -> _Asked:
        """A turn of SmolVLM2's, as its processor and its template write one tile and a text."""
        vision = config.vision_config
        n_places = (vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2
        tile = "<fake_token_around_image><global-img>" + "<image>" * n_places
        turn = f"User:{tile}<fake_token_around_image>{request}<end_of_utterance>\nAssistant:"
        pieces = self._pieces(f"<|im_start|>{turn}")
        if pieces.count(config.image_token_id) != n_places:
            self._source.refuse("its tokenizer has no <image> that its config.json knows")
        return _Asked(tuple(pieces), len(pieces))

    def _pieces(self, text: str) -> list[int]:
        pieces = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return cast("list[int]", pieces)

    def _generation(self, config: PreTrainedConfig) -> GenerationConfig:
        """Greedy; where a turn ends SmolVLM2 says so by a piece that its configuration has not."""
        text = getattr(config, "text_config", None) or config
        own = self._model.generation_config
        ends = own.eos_token_id if own.eos_token_id is not None else text.eos_token_id
        ends = list(ends) if isinstance(ends, list) else [ends]
        if self._kind == "smolvlm":
            ends += self._pieces("<end_of_utterance>")
        pad = next(
            one
            for one in (self._tokenizer.pad_token_id, text.pad_token_id, ends[0])
            if one is not None
        )
        begin = getattr(text, "decoder_start_token_id", None)
        how = GenerationConfig(  # type: ignore[no-untyped-call] # the library's
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._max_words * _PIECES_PER_WORD + 2,
            bos_token_id=text.bos_token_id,
            decoder_start_token_id=begin if self._kind == "florence2" else None,
        )
        if self._kind != "blip":  # it gives its own
            how.eos_token_id, how.pad_token_id = ends, pad
        return how


def sentence(said: str, *, max_words: int) -> str:
    """The first sentence of `said`: a capital letter, at most `max_words`, a full stop.

    Empty where there is no letter or digit in it.
    """
    text = said.strip()
    while text:
        end = _SENTENCE_END.search(text)
        first, mark = (text[: end.start()], end.group()) if end else (text, ".")
        words = first.split()
        if any(one.isalnum() for one in first):
            is_whole = len(words) <= max_words
            kept = " ".join(words[:max_words]).rstrip(" ,;:-")
            return kept[:1].upper() + kept[1:] + (mark.strip() or "." if is_whole else ".")
        text = text[end.end() :].strip() if end else ""
    return ""
