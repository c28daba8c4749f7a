from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from mmstream.errors import ScorerError
from mmstream.media import Modality
from mmstream.models.audio import AudioSettings, LogMelFront
from mmstream.models.checkpoint import Identity, read, save
from mmstream.models.fusion import ConcatSettings, DeepSettings, WeightedSettings
from mmstream.models.heads import ClassifierSettings
from mmstream.models.mmt import ANSWER, Inputs, Mmt, MmtSettings
from mmstream.models.question import QuestionSettings
from mmstream.models.recurrent import ChunkSettings
from mmstream.models.text import TextSettings, WordIds
from mmstream.models.video import VideoSettings

_ALL: tuple[Modality, ...] = ("audio", "video", "text")
_SUBSETS = [frozenset(c) for c in chain.from_iterable(combinations(_ALL, n) for n in range(4))]
_N = 3  # examples in a batch
_TEXT = TextSettings(n_words=20, n_dims=8, n_layers=1, n_heads=2)
_FUSIONS: Mapping[str, ConcatSettings | WeightedSettings | DeepSettings] = {
    "concat": ConcatSettings(modalities=_ALL, n_dims=8, drop_modality=0.4),
    "weighted": WeightedSettings(modalities=_ALL, n_dims=8, drop_modality=0.4),
    "deep": DeepSettings(modalities=_ALL, n_dims=8, n_layers=2, n_heads=2, drop_modality=0.4),
    "bottleneck": DeepSettings(
        modalities=_ALL, n_dims=8, n_layers=2, n_heads=2, n_bottleneck=2, drop_modality=0.4
    ),
}
_kinds = pytest.mark.parametrize("kind", sorted(_FUSIONS))


def _settings(kind: str) -> MmtSettings:
    body = ChunkSettings(n_layers=1, n_heads=2, n_chunk=2, n_context=2)
    return MmtSettings(
        audio=AudioSettings(front_end=LogMelFront(n_mels=8), n_dims=8, widths=(4, 4), body=body),
        video=VideoSettings(n_dims=8, widths=(4,), n_grid=2),
        text=_TEXT,
        fusion=_FUSIONS[kind],
        heads={
            "digit": ClassifierSettings(labels=("one", "two", "three"), n_dims=8),
            "loud": ClassifierSettings(labels=("loud", "near"), n_dims=8, kind="any"),
        },
        question=QuestionSettings(
            text=_TEXT, answers=ClassifierSettings(labels=("yes", "no"), n_dims=8), n_heads=2
        ),
    )


def _model(kind: str) -> Mmt:
    torch.manual_seed(0)
    model = Mmt(_settings(kind)).eval()
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.3)  # what begins at 0 or near it must count too
    return model


def _words(n_each: list[int], *, seed: int) -> WordIds:
    generator = torch.Generator().manual_seed(seed)
    present = torch.arange(max(n_each)) < torch.tensor(n_each)[:, None]
    return WordIds(torch.randint(1, 20, present.shape, generator=generator) * present, present)


def _inputs() -> Inputs:
    """Three examples, of which the second has shorter sound, and another number of pictures."""
    generator = torch.Generator().manual_seed(7)
    frames_present = torch.arange(24) < torch.tensor([24, 12, 20])[:, None]
    images_present = torch.arange(3) < torch.tensor([2, 3, 1])[:, None]
    return Inputs(
        frames=torch.randn(_N, 24, 8, generator=generator),
        frames_present=frames_present,
        images=torch.randint(0, 256, (_N, 3, 1, 8, 8), dtype=torch.uint8, generator=generator),
        images_present=images_present,
        images_at_secs=torch.arange(3).expand(_N, -1) / 25,
        words=_words([4, 2, 3], seed=1),
        question=_words([3, 4, 1], seed=2),
    )


def _without(inputs: Inputs, names: frozenset[Modality]) -> Inputs:
    if "audio" in names:
        inputs = replace(inputs, frames=None, frames_present=None)
    if "video" in names:
        inputs = replace(inputs, images=None, images_present=None, images_at_secs=None)
    return replace(inputs, words=None) if "text" in names else inputs


def _lacking(inputs: Inputs, rows: Tensor, names: frozenset[Modality]) -> Inputs:
    """The same, but the examples of `rows` have none of `names`, and rubbish where they were."""
    there, images, words = inputs.frames_present, inputs.images_present, inputs.words
    assert inputs.frames is not None
    assert there is not None
    assert images is not None
    assert words is not None
    if "audio" in names:
        frames = inputs.frames.masked_fill(rows[:, None, None], torch.nan)
        inputs = replace(inputs, frames=frames, frames_present=there & ~rows[:, None])
    if "video" in names:
        inputs = replace(inputs, images_present=images & ~rows[:, None])
    if "text" in names:
        inputs = replace(inputs, words=WordIds(words.ids, words.present & ~rows[:, None]))
    return inputs


def _one(inputs: Inputs, row: int) -> Inputs:
    """One example alone."""
    i = slice(row, row + 1)
    words, question = inputs.words, inputs.question
    return Inputs(
        frames=None if inputs.frames is None else inputs.frames[i],
        frames_present=None if inputs.frames_present is None else inputs.frames_present[i],
        images=None if inputs.images is None else inputs.images[i],
        images_present=None if inputs.images_present is None else inputs.images_present[i],
        images_at_secs=None if inputs.images_at_secs is None else inputs.images_at_secs[i],
        words=words and WordIds(words.ids[i], words.present[i]),
        question=question and WordIds(question.ids[i], question.present[i]),
    )


@_kinds
@pytest.mark.parametrize("hidden", _SUBSETS, ids=lambda s: "+".join(sorted(s)) or "none")
@torch.no_grad()
def test_hidden_is_exactly_never_given(kind: str, hidden: frozenset[Modality]) -> None:
    model, inputs = _model(kind), _inputs()
    one, other = model(inputs, hidden=hidden), model(_without(inputs, hidden))
    assert set(one.logits) == {"digit", "loud", ANSWER}
    for task, logits in one.logits.items():
        assert logits.isfinite().all()
        assert torch.equal(logits, other.logits[task])
    whole = model(inputs)
    assert (hidden == frozenset()) == torch.equal(one.logits["digit"], whole.logits["digit"])
    for name in hidden:
        assert not one.tokens[name].present.any()


@_kinds
@given(lacks=st.lists(st.sampled_from(_SUBSETS), min_size=_N, max_size=_N))
@settings(max_examples=12)
@torch.no_grad()
def test_any_may_lack_any_and_those_beside_it_change_nothing(
    kind: str, lacks: list[frozenset[Modality]]
) -> None:
    model, whole = _model(kind), _inputs()
    inputs = whole
    for row, names in enumerate(lacks):
        inputs = _lacking(inputs, torch.arange(_N) == row, names)
    batch = model(inputs)
    for row, names in enumerate(lacks):
        alone = model(_without(_one(whole, row), names))
        for task, logits in batch.logits.items():
            assert logits.isfinite().all()
            torch.testing.assert_close(
                logits[row : row + 1], alone.logits[task], atol=1e-5, rtol=1e-4
            )


@torch.no_grad()
def test_gates_are_those_of_what_is_there() -> None:
    outputs = _model("weighted")(
        _lacking(_inputs(), torch.tensor([True, False, False]), frozenset({"audio"}))
    )
    gates = outputs.fused.gates
    assert gates is not None
    assert (gates > 0).tolist() == [[False, True, True], [True] * 3, [True] * 3]
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(_N))


@_kinds
def test_each_head_teaches_each_encoder(kind: str) -> None:
    model, inputs = _model(kind), _inputs()
    outputs = model(inputs)
    for task, logits in outputs.logits.items():
        model.zero_grad()
        logits.square().sum().backward(retain_graph=True)
        encoders = {"audio": model.audio, "video": model.video, "text": model.text}
        for name, encoder in encoders.items():
            assert encoder is not None
            slopes = [w.grad for w in encoder.parameters()]
            assert all(slope is not None and slope.abs().max() > 0 for slope in slopes), (
                task,
                name,
            )


@_kinds
@torch.no_grad()
def test_tokens_once_encoded_can_be_decided_on_in_parts(kind: str) -> None:
    model, inputs = _model(kind), _inputs()
    tokens = model.encode(inputs)
    both = model.decide(tokens, inputs.question)
    assert torch.equal(both.logits[ANSWER], model(inputs).logits[ANSWER])
    alone = model.decide({"audio": tokens["audio"]})
    others = frozenset[Modality]({"video", "text"})
    assert torch.equal(alone.logits["digit"], model(inputs, hidden=others).logits["digit"])
    assert ANSWER not in alone.logits


@_kinds
@torch.no_grad()
def test_the_answer_depends_on_the_question_and_on_what_is_seen_and_heard(kind: str) -> None:
    model, inputs = _model(kind), _inputs()
    answer = model(inputs).logits[ANSWER]
    other = model(replace(inputs, question=_words([3, 4, 1], seed=3)))
    assert (other.logits[ANSWER] - answer).abs().max() > 1e-5
    torch.testing.assert_close(other.logits["digit"], model(inputs).logits["digit"])
    for name in _ALL:
        hidden = model(inputs, hidden=frozenset({name}))
        assert (hidden.logits[ANSWER] - answer).abs().max() > 1e-5


@_kinds
@torch.no_grad()
def test_a_question_looks_at_tokens_and_not_only_at_their_summary(kind: str) -> None:
    model, inputs = _model(kind), _inputs()
    assert model.question is not None
    assert inputs.question is not None
    fused = model(inputs).fused
    answer = model.question(inputs.question, fused)
    there = fused.context_present
    rubbish = replace(fused, context=fused.context.masked_fill(~there[..., None], 1e6))
    torch.testing.assert_close(model.question(inputs.question, rubbish), answer)
    for at in range(fused.context.shape[1]):
        changed = fused.context.clone()
        changed[:, at] = changed[:, at].roll(1, 1)
        moved = (model.question(inputs.question, replace(fused, context=changed)) - answer).abs()
        assert (moved.amax(dim=1) > 0).tolist() == there[:, at].tolist()


def test_training_hides_modalities_and_evaluation_does_not() -> None:
    model, inputs = _model("weighted").train(), _inputs()
    torch.manual_seed(0)
    gates = torch.stack([model(inputs).fused.gates for _ in range(20)])
    assert (gates == 0).any(dim=0).all()
    assert (gates.sum(dim=2) - 1).abs().max() < 1e-5
    assert (model.eval()(inputs).fused.gates > 0).all()


@_kinds
@torch.no_grad()
def test_a_checkpoint_gives_the_same_model(kind: str, tmp_path: Path) -> None:
    model, inputs = _model(kind), _inputs()
    identity = Identity(task="digit", rate_hz=16_000, trained=True)
    saved = save(tmp_path, model, model.settings, identity, "# Digits\n")
    checkpoint = read(tmp_path, MmtSettings, task="digit", rate_hz=16_000)
    assert checkpoint.id == saved
    assert checkpoint.settings == model.settings
    other = Mmt(checkpoint.settings).eval()
    checkpoint.fill(other)
    one, two = model(inputs), other(inputs)
    assert list(two.logits) == ["digit", "loud", ANSWER]
    for task, logits in one.logits.items():
        assert torch.equal(two.logits[task], logits)


@pytest.mark.parametrize("name", _ALL)
@torch.no_grad()
def test_one_modality_alone_is_a_model(name: Modality) -> None:
    whole = _settings("concat")
    given = {
        "audio": whole.audio if name == "audio" else None,
        "video": whole.video if name == "video" else None,
        "text": whole.text if name == "text" else None,
    }
    alone = MmtSettings.model_validate(
        {
            **given,
            "fusion": ConcatSettings(modalities=(name,), n_dims=8),
            "heads": {"digit": whole.heads["digit"]},
        }
    )
    model, others = Mmt(alone).eval(), frozenset(_ALL) - {name}
    inputs = replace(_without(_inputs(), others), question=None)
    assert model(inputs).logits["digit"].isfinite().all()
    assert list(model(inputs).tokens) == [name]
    with pytest.raises(ScorerError, match=f"a model of {name} got "):
        model(_inputs())
    with pytest.raises(ScorerError, match="takes no question"):
        model(replace(inputs, question=_inputs().question))


@torch.no_grad()
def test_sound_too_short_for_a_token_is_as_none() -> None:
    model, inputs = _model("deep"), _inputs()
    assert inputs.frames is not None
    assert inputs.frames_present is not None
    for n_frames in (0, 3):
        short = replace(
            inputs,
            frames=inputs.frames[:, :n_frames],
            frames_present=inputs.frames_present[:, :n_frames],
        )
        none = model(_without(inputs, frozenset({"audio"})))
        torch.testing.assert_close(model(short).logits["digit"], none.logits["digit"])


def test_a_batch_moves_whole() -> None:
    moved = _inputs().to(torch.device("meta"))
    assert moved.n_batch == _N
    for part in (moved.frames, moved.frames_present, moved.images, moved.images_present):
        assert part is not None
        assert part.is_meta
    assert moved.words is not None
    assert moved.words.ids.is_meta
    assert Inputs(words=_inputs().words).to(torch.device("meta")).question is None


def test_inputs_that_do_not_belong_together_are_refused() -> None:
    inputs = _inputs()
    with pytest.raises(ScorerError, match="frames come with frames_present"):
        Inputs(frames=inputs.frames)
    with pytest.raises(ScorerError, match="images with images_present and images_at_secs"):
        replace(inputs, images_at_secs=None)
    with pytest.raises(ScorerError, match=r"one number of examples: got \[2, 3\]"):
        replace(inputs, words=_words([1, 1], seed=0))
    with pytest.raises(ScorerError, match="one number of examples: got nothing"):
        Inputs()


def test_settings_that_do_not_fit_are_refused() -> None:
    whole = _settings("concat").model_dump()
    with pytest.raises(ValidationError, match="got audio, video, text and encoders of audio, text"):
        MmtSettings.model_validate({**whole, "video": None})
    with pytest.raises(ValidationError, match="n_dims must be the same everywhere: got fusion 8"):
        MmtSettings.model_validate({**whole, "text": {"n_words": 20, "n_dims": 16}})
    with pytest.raises(ValidationError, match="heads: at least one, or a question"):
        MmtSettings.model_validate({**whole, "heads": {}, "question": None})
    with pytest.raises(ValidationError, match="none is called 'answer'"):
        MmtSettings.model_validate({**whole, "heads": {ANSWER: whole["heads"]["digit"]}})
    with pytest.raises(ValidationError, match=r"text\.n_dims and answers\.n_dims must be the same"):
        QuestionSettings(text=_TEXT, answers=ClassifierSettings(labels=("yes", "no"), n_dims=4))
    with pytest.raises(ValidationError, match="multiple of n_heads: got 8 and 3"):
        QuestionSettings(
            text=_TEXT, answers=ClassifierSettings(labels=("yes", "no"), n_dims=8), n_heads=3
        )
