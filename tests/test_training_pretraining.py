"""The objectives: what they are of nothing, of the right and the wrong, and that they fall."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pretrain_world as world
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from mmstream.models.tokens import Tokens
from mmstream.training import pretraining
from mmstream.training.dataset import ExampleDataset
from mmstream.training.manifest import Split
from mmstream.training.matching import encoded, instants, match, offsets
from mmstream.training.pretrain import Told, pretrain
from mmstream.training.pretraining import Losses, ObjectiveSettings, Pretrainer
from mmstream.training.scenes import SPEECH, SceneMaker, Scenes

END_SECS = 1.0
_CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[Split, ExampleDataset]:
    return world.corpus(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def made(corpus: dict[Split, ExampleDataset]) -> Scenes:
    of = world.settings()
    maker = SceneMaker(of.scenes, of.model, corpus["train"], n_pairs=3, seed=0)
    return maker.scenes(0, end_secs=END_SECS)


def model(**changes: object) -> Pretrainer:
    torch.manual_seed(0)
    of = world.settings()
    return Pretrainer(of.model, of.objectives.model_copy(update=changes)).eval()


def losses(of: Pretrainer, scenes: Scenes, seed: int = 0) -> Losses:
    torch.manual_seed(seed)
    with torch.no_grad():
        found: Losses = of(scenes, end_secs=END_SECS)
    return found


def test_all_weights_learn(made: Scenes) -> None:
    of = model().train()
    of(made, end_secs=END_SECS).total(ObjectiveSettings()).backward()
    idle = {name for name, one in of.named_parameters() if one.grad is None or not one.grad.any()}
    assert idle == set()


def test_the_total_is_weighted() -> None:
    each = Losses(*(torch.tensor(float(n)) for n in (1, 2, 4, 8)))
    of = ObjectiveSettings(contrast=1, synchrony=10, reconstruct=100, events=1000)
    assert each.total(of) == 1 + 20 + 400 + 8000


@settings(max_examples=20)
@given(
    n_rows=st.integers(1, 5),
    n_tokens=st.integers(1, 40),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_whole_spans_are_hidden_as_many_as_asked(
    n_rows: int, n_tokens: int, share: float, seed: int
) -> None:
    torch.manual_seed(seed)
    hidden = pretraining._spans(n_rows, n_tokens, share, _CPU)  # noqa: SLF001 - what is hidden
    assert hidden.shape == (n_rows, n_tokens)
    span = pretraining._SPAN  # noqa: SLF001
    starts = hidden[:, ::span]
    n_spans = math.ceil(n_tokens / span)
    assert starts.sum(dim=1).tolist() == [max(1, round(share * n_spans))] * n_rows
    assert torch.equal(hidden, starts.repeat_interleave(span, dim=1)[:, :n_tokens])


def test_what_nobody_can_tell_does_not_count() -> None:
    nan = math.nan
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    truth = torch.tensor([[1.0, nan], [nan, 0.0]])
    loss = pretraining._events(logits, truth)  # noqa: SLF001 - of one objective
    known = binary_cross_entropy_with_logits(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(loss, 2 * known)  # the mean, of so many labels
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [[True, False], [False, True]]
    nothing = pretraining._events(logits, torch.full((2, 2), nan))  # noqa: SLF001
    assert nothing == 0


def test_events_are_of_what_is_said_to_be_heard(made: Scenes) -> None:
    of = model()
    unknown = replace(made, truth=torch.full_like(made.truth, math.nan))
    assert losses(of, unknown).events == 0
    wrong = replace(made, truth=1 - made.truth)
    before = losses(of, made)
    assert losses(of, wrong).events != before.events
    assert losses(of, wrong).contrast == before.contrast


def test_reconstruction_sees_nothing_of_what_is_hidden(made: Scenes) -> None:
    """What is hidden may be anything: only what is asked for differs."""
    of, seen = model(), []
    say = of.avp.fuse

    def fuse(tokens: dict[str, Tokens], ends: Tensor) -> object:
        seen.append([tokens[name].values for name in ("audio", "video")])
        return say(tokens, ends)  # type: ignore[arg-type]  # of a modality each

    torch.manual_seed(1)
    n_frames = made.frames.shape[1] // 2
    hidden = [
        pretraining._spans(2, n_frames, 0.5, _CPU),  # noqa: SLF001 - as they are drawn there
        pretraining._spans(3, made.images.shape[1], 0.5, _CPU),  # noqa: SLF001
    ]
    frames, images = made.frames.clone(), made.images.clone()
    frames[:2, : 2 * n_frames][hidden[0].repeat_interleave(2, dim=1)] += 5
    images[torch.tensor([0, 1, 3])] = torch.where(
        hidden[1][..., None, None, None], 255 - images[[0, 1, 3]], images[[0, 1, 3]]
    )
    of.avp.fuse = fuse  # type: ignore[method-assign, assignment]
    wrong = []
    for one in (made, replace(made, frames=frames, images=images)):
        torch.manual_seed(1)
        with torch.no_grad():
            wrong.append(of._reconstruct(one, 3))  # noqa: SLF001 - one objective
    torch.testing.assert_close(seen[0], seen[1])
    assert wrong[1] != wrong[0]


def test_contrast_is_least_where_each_has_its_own(made: Scenes) -> None:
    """By hand: the cross-entropy of the scaled cosines, both ways."""
    of = model()
    sound, sight = of._encoded(made)  # noqa: SLF001 - one objective
    heard, seen = (
        Tokens(one.values[:3], one.present[:3], one.at_secs[:3]) for one in (sound, sight)
    )
    alike = of.avp.alike(heard, seen, instants(seen)).detach().numpy().astype(float)
    scaled = np.exp(alike * 10)
    rows = [np.log(scaled[n, n] / scaled[n].sum()) for n in range(3)]
    columns = [np.log(scaled[n, n] / scaled[:, n].sum()) for n in range(3)]
    assert losses(of, made).contrast == pytest.approx(-np.mean(rows + columns), rel=1e-4)


def test_gists_are_of_sound_of_sight_and_of_pairs(made: Scenes) -> None:
    of = model()
    with torch.no_grad():
        found = of.gists(made, end_secs=END_SECS)
    assert found.shape == (5 + 4 + 3, 4 * 8)
    heard, seen = found.reshape(-1, 2, 16).norm(dim=2).T
    torch.testing.assert_close(heard, torch.tensor([1.0] * 5 + [0] * 4 + [1] * 3))
    torch.testing.assert_close(seen, torch.tensor([0.0] * 5 + [1] * 7))
    torch.testing.assert_close(found[9:, :16], found[:3, :16])
    torch.testing.assert_close(found[9:, 16:], found[5:8, 16:])
    blind = replace(made, images=255 - made.images)
    with torch.no_grad():
        other = of.gists(blind, end_secs=END_SECS)
    same = [bool(torch.equal(a, b)) for a, b in zip(found, other, strict=True)]
    assert same == [True] * 5 + [False] * 7


def test_a_gist_knows_nothing_of_what_is_after_its_window(made: Scenes) -> None:
    of = model()
    later = made.frames.clone()
    later[:, round(END_SECS / 0.02) + 10 :] += 3
    with torch.no_grad():
        found, other = (
            of.gists(one, end_secs=END_SECS) for one in (made, replace(made, frames=later))
        )
        beyond = of.gists(replace(made, frames=later), end_secs=END_SECS + 0.5)
    torch.testing.assert_close(found, other)
    assert not torch.equal(found, beyond)


@pytest.fixture(scope="module")
def learned(
    corpus: dict[Split, ExampleDataset], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Pretrainer, list[dict[str, float]]]:
    """A tiny net that has learned in a world where sight says how loud it is."""
    of = world.settings(
        scenes={"secs": 1.7, "n_sounds": 2, "n_silents": 1, "other": 0, "mixed": 0},
        objectives={"synchrony": 4, "match_secs": 0.7, "n_hidden": 2},
        optimise={"n_epochs": 18, "n_batch": 5, "learning_rate": 2e-2, "warm_up": 0.1},
        judge_epochs=6,
    )
    told: list[dict[str, float]] = []
    kept: list[Pretrainer] = []
    make = Pretrainer.__init__

    def hear(record: object) -> None:
        if hasattr(record, "losses"):
            told.append(dict(record.losses))

    with pytest.MonkeyPatch.context() as patched:

        def init(self: Pretrainer, *parts: object) -> None:
            make(self, *parts)  # type: ignore[arg-type]  # as they are
            kept.append(self)

        patched.setattr(Pretrainer, "__init__", init)
        hears: Told = hear
        pretrain(of, corpus, tmp_path_factory.mktemp("learned"), hears)
    return kept[0], told


def test_all_losses_fall(learned: tuple[Pretrainer, list[dict[str, float]]]) -> None:
    first, last = learned[1][0], learned[1][-1]
    assert last["synchrony"] < 0.8 * first["synchrony"]
    assert last["contrast"] < 0.8 * first["contrast"]
    assert last["reconstruct"] < 0.9 * first["reconstruct"]
    assert last["events"] < 0.9 * first["events"]


def test_shifts_of_strangers_are_found(
    learned: tuple[Pretrainer, list[dict[str, float]]],
    corpus: dict[Split, ExampleDataset],
    tmp_path: Path,
) -> None:
    """Also where the sound itself is late, by what is no whole number of its chunks."""
    avp = learned[0].avp.eval()
    assert match(avp, corpus["test"]).offset >= 0.8
    rng = np.random.default_rng(9)
    for late in (-7, 3):
        named = {f"{n}": (world.pair(rng, late_frames=late), SPEECH) for n in range(12)}
        data = world.examples(tmp_path / f"{late}", "test", named)
        with torch.no_grad():
            found = offsets(avp, *encoded(avp, [data[n] for n in range(12)]))
        assert ((found - late).abs() <= 1).sum() >= 8  # by guessing, 2
