"""What Whisper and Moonshine share: greedy decoding of a batch, and words out of word pieces."""

# Before transformers imports a torchaudio that cannot:
import mmstream.features.audio  # noqa: F401 # isort: skip

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, PreTrainedModel, SequenceFeatureExtractor
from transformers import PreTrainedTokenizerFast as Tokenizer

from mmstream.errors import ScorerError
from mmstream.media import Hypothesis, Span, SpokenWord, Take
from mmstream.models.pretrained_loading import TOKENIZERS, Source, quiet

RATE_HZ: Final = 16_000
LONGEST_SECS: Final = 30
SHORTEST_SECS: Final = 0.1
"""In less there are no words."""

_NS_PER_SEC: Final = 1_000_000_000
_WORD_MARKS: Final = ("Ġ", "▁")
"""A word piece that begins with one follows a blank: byte-level BPE, and SentencePiece."""

Rules = Callable[[Tensor, Tensor], Tensor]
"""(tokens [b, n] with the prompt, logits [b, v]) -> logits [b, v], -inf for what may not come."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the decoder said of one take, without prompt and end."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    """Of the tokens, and of the end if it came, natural."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoder makes of takes."""

    states: Tensor
    """[b, t, d]"""
    present: Tensor | None = None
    """[b, t] bool; None: all."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word and which tokens it was made of."""

    text: str
    first: int
    end: int
    """One after the last."""


class Pieces:
    """The folder's own vocabulary."""

    def __init__(self, source: Source, what: str) -> None:
        """Read it.

        Raises:
            ScorerError: there is none; the text says that the source is no `what`.
        """
        if TOKENIZERS[0] not in source.files:
            source.refuse(f"has no {TOKENIZERS[0]}, so it is no {what}")
        self._tokenizer: Tokenizer = source.read(Tokenizer.from_pretrained, what)

    def words(self, tokens: Sequence[int], at: Sequence[int]) -> Sequence[Word]:
        """The words that `tokens` spell; `at` tells where each stands in what was decoded.

        A word begins where a blank does: languages without blanks have few and long ones.
        """
        written = self._tokenizer.convert_ids_to_tokens(list(tokens))
        begins = [
            i for i, piece in enumerate(written) if i == 0 or str(piece).startswith(_WORD_MARKS)
        ]
        words: list[Word] = []
        for first, end in pairwise([*begins, len(written)]):
            text = self.text(tokens[first:end])
            if text:
                words.append(Word(text, at[first], at[end - 1] + 1))
        return words

    def text(self, tokens: Sequence[int]) -> str:
        """What they spell, without blanks around it."""
        text = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return str(text).strip()


def extractor_of(source: Source, what: str) -> SequenceFeatureExtractor:
    """What the folder says that the network is given.

    Raises:
        ScorerError: it says nothing, or another rate.
    """
    extractor = source.read(AutoFeatureExtractor.from_pretrained, what)
    if not isinstance(extractor, SequenceFeatureExtractor):
        source.refuse(f"no {what}")
    if extractor.sampling_rate != RATE_HZ:
        source.refuse(f"takes {extractor.sampling_rate} Hz; allowed: {RATE_HZ}")
    return extractor


def placed(network: PreTrainedModel, device: str) -> PreTrainedModel:
    """The network where it computes: with 16 bits on a GPU, for reading only."""
    dtype = torch.float16 if torch.device(device).type == "cuda" else torch.float32
    network.requires_grad_(requires_grad=False)
    nn.Module.to(network, device=torch.device(device), dtype=dtype)
    return network


def check_takes(name: str, takes: Sequence[Take], *, longest_secs: float = LONGEST_SECS) -> None:
    """Refuse what the network cannot hear.

    Raises:
        ScorerError: another rate, or a take that is too long.
    """
    for take in takes:
        if take.rate_hz != RATE_HZ:
            msg = f"{name}: {take.source}: hears {RATE_HZ} Hz only: got {take.rate_hz}"
            raise ScorerError(msg)
        if take.samples.size > longest_secs * RATE_HZ:
            secs = take.samples.size / RATE_HZ
            msg = f"{name}: {take.source}: hears {longest_secs:g} s at once: got {secs:.1f} s"
            raise ScorerError(msg)


def audible(take: Take) -> bool:
    """Whether there is enough of it for a word."""
    return take.samples.size >= SHORTEST_SECS * RATE_HZ


def step(
    network: PreTrainedModel, encoded: Encoded, tokens: Tensor, cache: object = None
) -> tuple[Tensor, object]:
    """Logits [b, n, v] in 32 bits after each of `tokens` [b, n], and the cache that goes on."""
    masked = {} if encoded.present is None else {"encoder_attention_mask": encoded.present}
    output = network.get_submodule("model.decoder")(
        input_ids=tokens,
        encoder_hidden_states=encoded.states,
        past_key_values=cache,
        use_cache=True,
        **masked,
    )
    logits: Tensor = network.get_submodule("proj_out")(output.last_hidden_state)
    return logits.float(), output.past_key_values


def greedy(
    network: PreTrainedModel,
    encoded: Encoded,
    prompt: Tensor,
    *,
    n_most: Sequence[int],
    ends: frozenset[int],
    rules: Rules,
) -> tuple[Sequence[Decoded], Tensor]:
    """The likeliest token after the other, for all takes at once.

    Args:
        network: What decodes.
        encoded: What it heard.
        prompt: [b, p] tokens that it is given.
        n_most: Tokens that each take may have; then it ends, whatever it says.
        ends: Tokens that end a take.
        rules: What may come.

    Returns:
        What came of each take; and the logits [b, v] after the prompt's first token.
    """
    tokens, fed, cache = prompt, prompt, None
    open_rows = set(range(len(prompt)))
    said: list[list[int]] = [[] for _ in prompt]
    log_probs: list[list[float]] = [[] for _ in prompt]
    first: Tensor | None = None
    while open_rows:
        logits, cache = step(network, encoded, fed, cache)
        first = logits[:, 0] if first is None else first
        best = rules(tokens, logits[:, -1]).log_softmax(dim=-1).max(dim=-1)
        for row in tuple(open_rows):
            token = int(best.indices[row])
            log_probs[row].append(float(best.values[row]))
            if token not in ends:
                said[row].append(token)
            if token in ends or len(said[row]) >= n_most[row]:
                open_rows.remove(row)
        fed = best.indices[:, None]  # of those that ended, too: nobody looks at it
        tokens = torch.cat([tokens, fed], dim=1)
    assert first is not None  # noqa: S101 - there is a take
    rows = zip(said, log_probs, strict=True)
    return [Decoded(tuple(tokens), tuple(logs)) for tokens, logs in rows], first


def spread(words: Sequence[Word], start_ns: int, end_ns: int) -> Sequence[Span]:
    """A span for each word between two instants, in proportion to its letters and one blank."""
    if not words:
        return []
    shares = np.cumsum([0, *(len(word.text) + 1 for word in words)])
    edges = [start_ns + round((end_ns - start_ns) * share / shares[-1]) for share in shares]
    return [Span(a, b) for a, b in pairwise(edges)]


def spoken(words: Sequence[Word], spans: Sequence[Span], heard: Decoded) -> tuple[SpokenWord, ...]:
    """The words with their spans; the confidence is the mean probability of their tokens."""
    return tuple(
        SpokenWord(
            word.text,
            span,
            float(np.clip(np.exp(heard.log_probs[word.first : word.end]).mean(), 0, 1)),
        )
        for word, span in zip(words, spans, strict=True)
    )


def hypothesis(take: Take, words: tuple[SpokenWord, ...], language: str) -> Hypothesis:
    """What is said in a take."""
    return Hypothesis(take.source, take.utterance, take.span, words, language, is_last=take.is_last)


def secs_to_ns(secs: float) -> int:
    """Rounded."""
    return round(secs * _NS_PER_SEC)


def recognised(
    name: str,
    takes: Sequence[Take],
    language: str,
    recognise: Callable[[Sequence[Take]], Sequence[Hypothesis]],
) -> Sequence[Hypothesis]:
    """What `recognise` makes of takes with sound enough for words; the others have none.

    Raises:
        ScorerError: the network failed: no memory, for one.
    """
    told = [take for take in takes if audible(take)]
    try:
        with torch.inference_mode(), quiet():
            results = iter(recognise(told) if told else ())
    except RuntimeError as error:
        msg = f"{name}: {str(error).splitlines()[0]}"
        raise ScorerError(msg) from error
    return [next(results) if audible(take) else hypothesis(take, (), language) for take in takes]
