"""Whisper (Radford et al. 2022, arXiv:2212.04356): takes to words, with their times.

Times are those at which the decoder looked at the sound, where the folder's generation_config.json
names the heads to watch (`alignment_heads`); else words are spread between the timestamps that the
decoder wrote, in proportion to their letters. Decoding is greedy and knows nothing of the takes
before. Of section 4.5's guards these are here: a take that seems to hold no speech, of which the
decoder is unsure, has no words; nor has one whose text repeats itself so much that zlib makes it
2.4 times smaller.
"""

# Before transformers imports a torchaudio that cannot:
import mmstream.features.audio  # noqa: F401 # isort: skip

import math
import zlib
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    PreTrainedModel,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from mmstream.media import Hypothesis, Span, Take
from mmstream.models.pretrained_loading import (
    GENERATION,
    PREPROCESSORS,
    TOKENIZERS,
    found_at,
    load,
    read_config,
)
from mmstream.models.pretrained_speech import (
    RATE_HZ,
    Decoded,
    Encoded,
    Pieces,
    Word,
    check_takes,
    extractor_of,
    greedy,
    hypothesis,
    placed,
    recognised,
    secs_to_ns,
    spoken,
    spread,
    step,
)
from mmstream.models.pretrained_whisper_prompt import Prompts
from mmstream.models.speech_alignment import token_frames
from mmstream.models.speech_settings import AUTO, WhisperSettings

_WHAT: Final = (
    "recogniser of speech; allowed: Whisper, with tokenizer.json, preprocessor_config.json and "
    "generation_config.json"
)
_SECS_PER_FRAME: Final = 0.02
"""Of the encoder's output, and between timestamps."""
_NO_SPEECH: Final = 0.6
_UNSURE: Final = -1.0
_REPEATED: Final = 2.4
"""Thresholds of section 4.5: a probability, a mean log probability, a compression ratio."""
_TOKENS_PER_SEC: Final = 12
_N_TOKENS_LEAST: Final = 8


class WhisperRecogniser:
    """Samples -> words (`Recogniser`)."""

    def __init__(self, settings: WhisperSettings, device: str) -> None:
        """Load the weights.

        Raises:
            ScorerError: they cannot be had, are of another model, or do not know the language.
        """
        source = found_at(settings.weights, *PREPROCESSORS, *TOKENIZERS, GENERATION)
        config = read_config(source)
        if not isinstance(config, WhisperConfig):
            source.refuse(f"{config.model_type} is no {_WHAT}")
        extractor = extractor_of(source, _WHAT)
        if not isinstance(extractor, WhisperFeatureExtractor):
            source.refuse(f"no {_WHAT}")
        self._settings, self._extractor = settings, extractor
        self._pieces = Pieces(source, _WHAT)
        self._prompts = Prompts(source, config, settings.language)
        self._n_longest = config.max_target_positions // 2
        self._network: PreTrainedModel = placed(
            load(source, config, lambda model: model, MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING), device
        )

    def recognise(self, takes: Sequence[Take]) -> Sequence[Hypothesis]:
        """One per take, in order; see `Recogniser`.

        Raises:
            ScorerError: a take is longer than 30 s or of another rate than 16 kHz; no memory.
        """
        name, language = self._settings.name, self._settings.language
        check_takes(name, takes, longest_secs=self._extractor.n_samples / RATE_HZ)
        silent = "und" if language == AUTO else language
        return recognised(name, takes, silent, self._recognise)

    def forget(self, source: str) -> None:
        """Nothing is kept of a source."""

    def close(self) -> None:
        """Let go of the network."""
        del self._network

    def _recognise(self, takes: Sequence[Take]) -> Sequence[Hypothesis]:
        encoded = self._encoded(takes)
        languages = self._languages(encoded)
        prompt = torch.tensor(
            [self._prompts.of(language) for language in languages], device=encoded.states.device
        )
        rows, first = greedy(
            self._network,
            encoded,
            prompt,
            n_most=[self._n_most(take) for take in takes],
            ends=frozenset({self._prompts.end}),
            rules=self._prompts.rules(prompt.shape[1]),
        )
        unheard = first.softmax(dim=-1)[:, self._prompts.no_speech].tolist()
        heard = [
            row if self._is_speech(row, no_speech) else Decoded((), ())
            for row, no_speech in zip(rows, unheard, strict=True)
        ]
        words = [self._words(row) for row in heard]
        spans = self._spans(takes, encoded, prompt, heard, words)
        given = (
            languages if self._settings.language == AUTO else [self._settings.language] * len(takes)
        )
        return [
            hypothesis(take, spoken(said, at, row), language)
            for take, said, at, row, language in zip(takes, words, spans, heard, given, strict=True)
        ]

    def _encoded(self, takes: Sequence[Take]) -> Encoded:
        given = self._extractor(
            [take.samples for take in takes], sampling_rate=RATE_HZ, return_tensors="pt"
        )
        features = given.input_features.to(self._network.device, self._network.dtype)
        return Encoded(self._network.model.encoder(features).last_hidden_state)

    def _languages(self, encoded: Encoded) -> Sequence[str]:
        """What is spoken in each take: told, or the likeliest after the prompt's first token."""
        n = len(encoded.states)
        if self._settings.language != AUTO:
            return [self._prompts.language] * n
        start = torch.full((n, 1), self._prompts.start, device=encoded.states.device)
        logits, _ = step(self._network, encoded, start)
        return self._prompts.likeliest(logits[:, 0])

    def _n_most(self, take: Take) -> int:
        n = _N_TOKENS_LEAST + math.ceil(_TOKENS_PER_SEC * take.samples.size / RATE_HZ)
        return min(n, self._n_longest)

    def _is_speech(self, heard: Decoded, no_speech: float) -> bool:
        mean = sum(heard.log_probs) / len(heard.log_probs)
        if no_speech > _NO_SPEECH and mean < _UNSURE:
            return False
        text = self._pieces.text([t for t in heard.tokens if t < self._prompts.end]).encode()
        return len(text) <= _REPEATED * len(zlib.compress(text))

    def _words(self, heard: Decoded) -> Sequence[Word]:
        # Special tokens and timestamps come after all others.
        at = [i for i, token in enumerate(heard.tokens) if token < self._prompts.end]
        return self._pieces.words([heard.tokens[i] for i in at], at)

    def _spans(
        self,
        takes: Sequence[Take],
        encoded: Encoded,
        prompt: Tensor,
        heard: Sequence[Decoded],
        words: Sequence[Sequence[Word]],
    ) -> Sequence[Sequence[Span]]:
        if not self._prompts.heads:
            return [self._by_timestamps(*row) for row in zip(takes, heard, words, strict=True)]
        attention = self._attention(encoded, prompt, heard)
        spans: list[Sequence[Span]] = []
        for take, row, said, looked in zip(takes, heard, words, attention, strict=True):
            spans.append(self._by_attention(take, row, said, looked))
        return spans

    def _by_timestamps(self, take: Take, heard: Decoded, words: Sequence[Word]) -> Sequence[Span]:
        """Words between two timestamps share what is between them."""
        spans: list[Span] = []
        start_ns, begun = take.span.start_ns, 0
        for i, token in enumerate([*heard.tokens, self._prompts.first_time + 10**9]):
            if token < self._prompts.first_time:
                continue
            secs = (token - self._prompts.first_time) * _SECS_PER_FRAME
            at_ns = min(take.span.end_ns, take.span.start_ns + secs_to_ns(secs))
            inside = [word for word in words if begun <= word.first < i]
            if inside:
                spans += spread(inside, start_ns, max(start_ns, at_ns))
            start_ns, begun = max(start_ns, at_ns), i
        return spans

    def _by_attention(
        self, take: Take, heard: Decoded, words: Sequence[Word], attention: Tensor
    ) -> Sequence[Span]:
        """From where the decoder looked for its first token to where it did for the next word's."""
        if not words:
            return []
        at = [i for i, token in enumerate(heard.tokens) if token < self._prompts.end]
        n_frames = min(attention.shape[2], math.ceil(take.samples.size / RATE_HZ / _SECS_PER_FRAME))
        rows = attention[:, : len(at) + 1, :n_frames]
        frames = token_frames(rows.double().cpu().numpy())
        instants = [
            min(take.span.end_ns, take.span.start_ns + secs_to_ns(frame * _SECS_PER_FRAME))
            for frame in frames.tolist()
        ]
        place = {i: k for k, i in enumerate(at)}
        return [
            Span(instants[place[word.first]], instants[place[word.end - 1] + 1]) for word in words
        ]

    def _attention(self, encoded: Encoded, prompt: Tensor, heard: Sequence[Decoded]) -> Tensor:
        """[b, heads, n + 1, t]: of what predicts each token of text, and what follows the last.

        The text is read once more without timestamps, as in the paper's repository.
        """
        ends = self._prompts.end
        texts = [[t for t in row.tokens if t < ends] for row in heard]
        n = max(map(len, texts))
        fill = [[self._prompts.no_times, *text, *[ends] * (n - len(text))] for text in texts]
        tokens = torch.cat([prompt, torch.tensor(fill, device=prompt.device)], dim=1)
        usual = self._network.config._attn_implementation  # noqa: SLF001 - the library has no other
        self._network.set_attn_implementation("eager")  # the others give no weights
        try:
            looked = self._network.model.decoder(
                input_ids=tokens, encoder_hidden_states=encoded.states, output_attentions=True
            ).cross_attentions
        finally:
            self._network.set_attn_implementation(usual)
        chosen = [looked[layer][:, head] for layer, head in self._prompts.heads]
        return torch.stack(chosen, dim=1)[:, :, prompt.shape[1] :]
