"""Moonshine (Jeffries et al. 2024, arXiv:2410.15608), classic and streaming: takes to words.

It says nothing of time: words are spread over the take in proportion to their letters. Each take
is encoded on its own, since the classic one's norm is over all of the time, padding included; all
are decoded together.
"""

# Before transformers imports a torchaudio that cannot:
import mmstream.features.audio  # noqa: F401 # isort: skip

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    MoonshineConfig,
    MoonshineStreamingConfig,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
)

from mmstream.media import Hypothesis, Take
from mmstream.models.pretrained_loading import (
    PREPROCESSORS,
    TOKENIZERS,
    Source,
    found_at,
    load,
    read_config,
)
from mmstream.models.pretrained_speech import (
    RATE_HZ,
    Encoded,
    Pieces,
    check_takes,
    extractor_of,
    greedy,
    hypothesis,
    placed,
    recognised,
    spoken,
    spread,
)
from mmstream.models.speech_settings import MoonshineSettings

_WHAT: Final = (
    "recogniser of speech; allowed: Moonshine and Moonshine streaming, with tokenizer.json and "
    "preprocessor_config.json"
)
_TOKENS_PER_SEC: Final = 6.5
_TOKENS_PER_SEC_ELSE: Final = 13.0
"""More than that is said twice: the models' own cards, of English and of other languages."""
_N_TOKENS_LEAST: Final = 4
_FRAME: Final = 80
"""Samples: of those of the streaming one's, only whole frames are heard."""


class MoonshineRecogniser:
    """Samples -> words (`Recogniser`)."""

    def __init__(self, settings: MoonshineSettings, device: str) -> None:
        """Load the weights.

        Raises:
            ScorerError: they cannot be had, or are of another model.
        """
        source = found_at(settings.weights, *PREPROCESSORS, *TOKENIZERS)
        config = read_config(source)
        if not isinstance(config, MoonshineConfig | MoonshineStreamingConfig):
            source.refuse(f"{config.model_type} is no {_WHAT}")
        self._settings = settings
        extractor = extractor_of(source, _WHAT)
        if not isinstance(extractor, Wav2Vec2FeatureExtractor):
            source.refuse(f"no {_WHAT}")
        self._extractor = extractor
        self._pieces = Pieces(source, _WHAT)
        self._streaming = isinstance(config, MoonshineStreamingConfig)
        ends = config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
        self._start = _start_of(source, config)
        self._n_longest = config.max_position_embeddings - 1
        self._network: PreTrainedModel = placed(
            load(source, config, lambda model: model, MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING), device
        )

    def recognise(self, takes: Sequence[Take]) -> Sequence[Hypothesis]:
        """One per take, in order; see `Recogniser`.

        Raises:
            ScorerError: a take is longer than 30 s or of another rate than 16 kHz; no memory.
        """
        check_takes(self._settings.name, takes)
        language = self._settings.language
        return recognised(self._settings.name, takes, language, self._recognise)

    def forget(self, source: str) -> None:
        """Nothing is kept of a source."""

    def close(self) -> None:
        """Let go of the network."""
        del self._network

    def _recognise(self, takes: Sequence[Take]) -> Sequence[Hypothesis]:
        encoded = self._encoded(takes)
        prompt = torch.full((len(takes), 1), self._start, device=encoded.states.device)
        rows, _ = greedy(
            self._network,
            encoded,
            prompt,
            n_most=[self._n_most(take) for take in takes],
            ends=self._ends,
            rules=_anything,
        )
        results: list[Hypothesis] = []
        for take, heard in zip(takes, rows, strict=True):
            words = self._pieces.words(heard.tokens, range(len(heard.tokens)))
            spans = spread(words, take.span.start_ns, take.span.end_ns)
            results.append(hypothesis(take, spoken(words, spans, heard), self._settings.language))
        return results

    def _encoded(self, takes: Sequence[Take]) -> Encoded:
        states = [self._encode(take) for take in takes]
        lengths = torch.tensor([len(rows) for rows in states], device=states[0].device)
        padded = nn.utils.rnn.pad_sequence(states, batch_first=True)
        present = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
        return Encoded(padded, present)

    def _encode(self, take: Take) -> Tensor:
        """The states [t, d] of one take."""
        n = take.samples.size // _FRAME * _FRAME if self._streaming else take.samples.size
        given = self._extractor(take.samples[:n], sampling_rate=RATE_HZ, return_tensors="pt")
        samples = given.input_values.to(self._network.device, self._network.dtype)
        # Without a mask the streaming one's layers would look at all of the time.
        mask = torch.ones_like(samples, dtype=torch.long) if self._streaming else None
        states: Tensor = self._network.model.encoder(samples, attention_mask=mask).last_hidden_state
        return states[0]

    def _n_most(self, take: Take) -> int:
        english = self._settings.language.lower().split("-")[0] == "en"
        rate = _TOKENS_PER_SEC if english else _TOKENS_PER_SEC_ELSE
        n = _N_TOKENS_LEAST + math.ceil(rate * take.samples.size / RATE_HZ)
        return min(n, self._n_longest)


def _start_of(source: Source, config: MoonshineConfig | MoonshineStreamingConfig) -> int:
    start = config.decoder_start_token_id
    start = config.bos_token_id if start is None else start
    if start is None or not 0 <= start < config.vocab_size:
        source.refuse(f"decoder_start_token_id lies in 0..{config.vocab_size - 1}: got {start}")
    return start


def _anything(tokens: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG001 - a `Rules`
    return logits
