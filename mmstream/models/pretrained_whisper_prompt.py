"""What Whisper's decoder is told first and may say, as its generation_config.json has it."""

# Before transformers imports a torchaudio that cannot:
import mmstream.features.audio  # noqa: F401 # isort: skip

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BaseModel, Field, ValidationError
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperConfig,
    WhisperTimeStampLogitsProcessor,
)

from mmstream.models.pretrained_loading import GENERATION, Source
from mmstream.models.pretrained_speech import Rules
from mmstream.models.speech_settings import AUTO

_LATEST_FIRST: Final = 50
"""The first timestamp is at most 1 s, as in the paper's repository."""

_Token = Annotated[int, Field(ge=0)]


class _Generation(BaseModel):
    """The keys of generation_config.json that matter; others are passed over."""

    decoder_start_token_id: _Token
    eos_token_id: _Token
    no_timestamps_token_id: Annotated[int, Field(ge=1)]
    suppress_tokens: tuple[int, ...] | None = None
    begin_suppress_tokens: tuple[_Token, ...] | None = None
    lang_to_id: dict[str, _Token] = Field(default_factory=dict)
    task_to_id: dict[str, _Token] = Field(default_factory=dict)
    alignment_heads: tuple[tuple[_Token, _Token], ...] | None = None


class Prompts:
    """The decoder's first tokens in each language, and rules for the others."""

    def __init__(self, source: Source, config: WhisperConfig, language: str) -> None:
        """Read them; `language` is BCP 47 or `auto`.

        Raises:
            ScorerError: the file lacks or breaks them, or the weights know no such language.
        """
        if GENERATION not in source.files:
            source.refuse(f"has no {GENERATION}, which says what the decoder is told")
        try:
            self._said = _Generation.model_validate(source.files[GENERATION])
        except ValidationError as error:
            wrong = error.errors()[0]
            place = ".".join(map(str, wrong["loc"]))
            source.refuse(f"{GENERATION}: {place}: {wrong['msg']}")
        self.start, self.end = self._said.decoder_start_token_id, self._said.eos_token_id
        self.no_times = self._said.no_timestamps_token_id
        self.no_speech, self.first_time = self.no_times - 1, self.no_times + 1
        self.heads = self._said.alignment_heads or ()
        self.language = language.lower().split("-")[0]
        self._check_inside(source, config)
        self._check_language(source, language)

    @property
    def known(self) -> Sequence[str]:
        """Languages of multilingual weights; of others none is told."""
        return sorted(token.strip("<|>") for token in self._said.lang_to_id)

    def of(self, language: str) -> Sequence[int]:
        """What the decoder is told before all else."""
        if not self.known:
            return [self.start]
        said = self._said
        return [self.start, said.lang_to_id[f"<|{language}|>"], said.task_to_id["transcribe"]]

    def likeliest(self, logits: Tensor) -> Sequence[str]:
        """[b, v] after the first token -> a language each."""
        ids = [self._said.lang_to_id[f"<|{language}|>"] for language in self.known]
        return [self.known[i] for i in logits[:, ids].argmax(dim=-1).tolist()]

    def rules(self, n_prompt: int) -> Rules:
        """What may come after a prompt of so many tokens (section 4.5; the paper's repository)."""
        said = self._said
        keys = GenerationConfig(  # type: ignore[no-untyped-call] # it has no types
            eos_token_id=self.end,
            no_timestamps_token_id=self.no_times,
            max_initial_timestamp_index=_LATEST_FIRST,
        )
        processors = LogitsProcessorList()
        if said.begin_suppress_tokens:
            begin = SuppressTokensAtBeginLogitsProcessor(
                list(said.begin_suppress_tokens), begin_index=n_prompt
            )
            processors.append(begin)
        never = [token for token in said.suppress_tokens or () if token >= 0]
        if never:
            processors.append(SuppressTokensLogitsProcessor(never))
        processors.append(WhisperTimeStampLogitsProcessor(keys, begin_index=n_prompt))

        def apply(tokens: Tensor, logits: Tensor) -> Tensor:
            for processor in processors:
                logits = processor(tokens, logits)
            return logits

        return apply

    def _check_inside(self, source: Source, config: WhisperConfig) -> None:
        said = self._said
        tokens = [
            self.start,
            self.end,
            self.first_time,
            *(said.suppress_tokens or ()),
            *(said.begin_suppress_tokens or ()),
            *said.lang_to_id.values(),
            *said.task_to_id.values(),
        ]
        if max(tokens) >= config.vocab_size:
            has = f"a vocabulary of {config.vocab_size}"
            source.refuse(f"{GENERATION}: token {max(tokens)} lies outside {has}")
        n_layers, n_heads = config.decoder_layers, config.decoder_attention_heads
        if any(layer >= n_layers or head >= n_heads for layer, head in self.heads):
            has = f"{n_layers} layers of {n_heads} heads"
            source.refuse(f"{GENERATION}: alignment_heads lie outside {has}")
        if said.lang_to_id and "transcribe" not in said.task_to_id:
            source.refuse(f"{GENERATION}: task_to_id: lacks transcribe")

    def _check_language(self, source: Source, language: str) -> None:
        if not self.known and self.language != "en":
            source.refuse(f"knows English only: language must be en, got {language}")
        if self.known and self.language not in (*self.known, AUTO):
            allowed = ", ".join([AUTO, *self.known])
            source.refuse(f"language: not known: {language}; allowed: {allowed}")
