"""Interrupted or not, a training gives the same weights; and it learns, and says when it cannot."""

import shutil
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch
import training_world as world
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from mmstream.clock import ManualClock
from mmstream.errors import ConfigError, ScorerError
from mmstream.models.mmt import Mmt
from mmstream.training import history, loop, state
from mmstream.training.batches import Batch
from mmstream.training.dataset import ExampleDataset
from mmstream.training.history import EpochRecord
from mmstream.training.loop import BEST, HISTORY, SAVE_SECS, STATE, StepRecord, train
from mmstream.training.predict import answers, load, predict
from mmstream.training.predictions import Predictions
from mmstream.training.settings import Corpus

N_STEPS = 6  # two epochs of 22 examples by 8


class Killed(Exception):  # noqa: N818 - stands for a process that is gone
    pass


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return world.corpus(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def whole(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    train(world.settings(), corpus, folder)
    return folder


def epochs(folder: Path) -> list[EpochRecord]:
    return [one.model_copy(update={"secs": 0.0}) for one in history.read(folder / HISTORY)]


def weights(folder: Path) -> bytes:
    return (folder / BEST / "model.safetensors").read_bytes()


def steps_of(told: list[StepRecord | EpochRecord]) -> list[int]:
    return [record.n_steps for record in told if isinstance(record, StepRecord)]


@property_settings(max_examples=5)
@given(
    deaths=st.lists(st.integers(1, N_STEPS - 1), min_size=1, max_size=2),
    saves=st.sets(st.integers(1, N_STEPS)),
)
def test_killed_at_any_step_it_ends_with_the_same_weights(
    corpus: Corpus,
    whole: Path,
    tmp_path_factory: pytest.TempPathFactory,
    deaths: list[int],
    saves: set[int],
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    clock = ManualClock()
    left = sorted(deaths)

    def told(record: StepRecord | EpochRecord) -> None:
        if not isinstance(record, StepRecord):
            return
        if left and record.n_steps >= left[0]:
            left.pop(0)
            raise Killed
        if record.n_steps + 1 in saves:
            clock.sleep(SAVE_SECS)

    for _ in deaths:
        with pytest.raises(Killed):
            train(world.settings(), corpus, folder, told, clock)
    train(world.settings(), corpus, folder, told, clock)
    assert weights(folder) == weights(whole)
    assert epochs(folder) == epochs(whole)


@pytest.mark.parametrize("n_steps", [2, 3, N_STEPS])
def test_ctrl_c_saves_the_step_it_was_pressed_in(
    corpus: Corpus, whole: Path, tmp_path: Path, n_steps: int
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def pressed(record: StepRecord | EpochRecord) -> None:
        if isinstance(record, StepRecord) and record.n_steps == n_steps:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(world.settings(), corpus, tmp_path, pressed)
    assert signal.getsignal(signal.SIGINT) == before
    told: list[StepRecord | EpochRecord] = []
    train(world.settings(), corpus, tmp_path, told.append)
    assert steps_of(told) == list(range(n_steps + 1, N_STEPS + 1))
    assert weights(tmp_path) == weights(whole)
    assert epochs(tmp_path) == epochs(whole)


def test_a_second_ctrl_c_strikes_at_once(corpus: Corpus, tmp_path: Path) -> None:
    seen: list[int] = []

    def pressed(record: StepRecord | EpochRecord) -> None:
        seen.append(record.n_steps)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(world.settings(), corpus, tmp_path, pressed)
    assert seen == [1]
    assert not (tmp_path / STATE).exists()


def test_the_same_seed_gives_the_same_weights_and_another_others(
    corpus: Corpus, whole: Path, tmp_path: Path
) -> None:
    torch.manual_seed(99)  # whatever was drawn before
    train(world.settings(), corpus, tmp_path / "same")
    train(world.settings(seed=1), corpus, tmp_path / "other")
    assert weights(tmp_path / "same") == weights(whole)
    assert weights(tmp_path / "other") != weights(whole)


def test_it_learns_and_keeps_its_best_epoch(corpus: Corpus, tmp_path: Path) -> None:
    optimise = {"n_epochs": 15, "n_batch": 6, "learning_rate": 2e-2, "patience": 15}
    settings = world.settings(
        optimise=optimise, balance={"type": "none"}, augment={}, loss={"unimodal": 0.5}
    )
    best = train(settings, corpus, tmp_path)
    records = history.read(tmp_path / HISTORY)
    assert records[-1].loss_train < 0.5 * records[0].loss_train
    least = min(records, key=lambda record: record.loss_val)
    trained = load(settings, best)
    said = predict(trained, corpus, "val")[world.TASK]
    assert said.cross_entropy == pytest.approx(least.loss_val, rel=1e-5)
    assert said.accuracy == least.accuracy_val[world.TASK]
    assert predict(trained, corpus, "test")[world.TASK].accuracy >= 0.9
    assert f"epoch | {least.epoch + 1} of" in (best / "card.md").read_text()
    # It is the sound that can be trusted; both learn, and the shares are shares.
    sound, sight = (records[-1].modalities[name] for name in ("audio", "video"))
    assert sound.loss < sight.loss < 1.2
    assert sound.gradient_share + sight.gradient_share == pytest.approx(1)
    assert sound.coefficient == sight.coefficient == 1


def test_it_stops_when_validation_gets_no_better(corpus: Corpus, tmp_path: Path) -> None:
    optimise = {"n_epochs": 50, "n_batch": 22, "learning_rate": 1e-12, "patience": 2}
    settings = world.settings(optimise={**optimise, "watch": "accuracy"})
    train(settings, corpus, tmp_path)
    assert [record.epoch for record in history.read(tmp_path / HISTORY)] == [0, 1, 2]


def test_what_is_finished_is_not_done_again(corpus: Corpus, whole: Path) -> None:
    told: list[StepRecord | EpochRecord] = []
    before = weights(whole)
    assert train(world.settings(), corpus, whole, told.append) == whole / BEST
    assert told == []
    assert weights(whole) == before


def test_progress(corpus: Corpus, tmp_path: Path) -> None:
    clock = ManualClock()
    told: list[StepRecord] = []

    def hear(record: StepRecord | EpochRecord) -> None:
        clock.sleep(2)
        if isinstance(record, StepRecord):
            told.append(record)

    train(world.settings(), corpus, tmp_path, hear, clock)
    assert [(one.epoch, one.n_steps, one.n_steps_most) for one in told[2:5]] == [
        (0, 3, 6),
        (1, 4, 6),
        (1, 5, 6),
    ]
    # The clock moves between steps only, so the first of an epoch takes no time.
    assert told[1].examples_per_sec == pytest.approx(16 / 2)
    assert told[1].eta_secs == pytest.approx(4 * 8 / 8)
    assert told[-1].eta_secs == 0
    assert told[-1].learning_rate < told[4].learning_rate
    assert history.read(tmp_path / HISTORY)[0].secs == pytest.approx(4)


def test_the_time_that_is_left_has_the_validations_in_it(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    told: list[StepRecord] = []

    def slow(
        model: Mmt, batches: Iterable[Batch], *, device: torch.device
    ) -> Mapping[str, Predictions]:
        clock.sleep(30)
        return answers(model, batches, device=device)

    def hear(record: StepRecord | EpochRecord) -> None:
        clock.sleep(2)
        if isinstance(record, StepRecord):
            told.append(record)

    monkeypatch.setattr(loop, "answers", slow)
    train(world.settings(), corpus, tmp_path, hear, clock)
    rest = [one.eta_secs - (N_STEPS - one.n_steps) * 8 / one.examples_per_sec for one in told]
    assert rest == pytest.approx([0, 0, 0, 30, 30, 30])


def test_sound_that_is_not_finite_is_named(tmp_path: Path) -> None:
    corpus = world.corpus(tmp_path / "shards", broken=7)
    with pytest.raises(ScorerError, match=r"sound is not finite of .* examples 7 \(train-7\)$"):
        train(world.settings(), corpus, tmp_path / "run")


def test_a_training_that_runs_away_is_stopped(corpus: Corpus, tmp_path: Path) -> None:
    optimise = {"n_epochs": 9, "n_batch": 22, "learning_rate": 1e30, "warm_up": 0}
    told: list[StepRecord | EpochRecord] = []
    with pytest.raises(
        ScorerError,
        match=r"^validation after epoch 1, learning rate 1e\+30: .* not finite for",
    ):
        train(world.settings(optimise=optimise), corpus, tmp_path, told.append)
    assert all(one.loss < 1e9 for one in told if isinstance(one, StepRecord))
    in_steps = {**optimise, "n_batch": 8}
    with pytest.raises(
        ScorerError, match=r"^epoch 1, step 2, learning rate 1e\+30: .* not finite for 8 of 8"
    ):
        train(world.settings(optimise=in_steps), corpus, tmp_path / "steps")


def test_another_training_is_not_gone_on_with(corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    for changes in ({"seed": 3}, {"loss": {"label_smoothing": 0.1}}):
        with pytest.raises(ConfigError, match="other settings or other data"):
            train(world.settings(**changes), corpus, whole)
    fewer = Corpus({**corpus.examples, "train": corpus.examples["test"]}, None)
    with pytest.raises(ConfigError, match="other settings or other data"):
        train(world.settings(), fewer, whole)
    (tmp_path / STATE).write_bytes(b"cut short")
    with pytest.raises(ConfigError, match="not the state of a training; remove"):
        train(world.settings(), corpus, tmp_path)


def test_a_checkpoint_that_is_gone_is_missed(corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / BEST / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"best: the checkpoint is gone; remove .*run to train"):
        train(world.settings(), corpus, tmp_path / "run")


def test_a_split_without_examples(corpus: Corpus, tmp_path: Path) -> None:
    empty = ExampleDataset((), corpus.examples["val"]._shards)  # noqa: SLF001
    with pytest.raises(ConfigError, match="no examples in the split 'val'"):
        train(world.settings(), Corpus({**corpus.examples, "val": empty}, None), tmp_path)


def test_a_finished_state_holds_no_weights(whole: Path) -> None:
    assert (whole / STATE).stat().st_size < 2_000
    begun = "another"
    with pytest.raises(ConfigError):
        state.load(whole / STATE, begun)
