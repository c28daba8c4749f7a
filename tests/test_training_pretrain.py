"""Interrupted or not, a pre-training gives the same weights; what is wrong is said, and where."""

import json
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import pretrain_world as world
import pytest
import torch
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mmstream.clock import ManualClock
from mmstream.errors import ConfigError, ScorerError
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, Avp, AvpSettings
from mmstream.training.dataset import ExampleDataset
from mmstream.training.loop import StepRecord
from mmstream.training.manifest import Split
from mmstream.training.pretrain import (
    BEST,
    HISTORY,
    SAVE_SECS,
    STATE,
    PretrainRecord,
    position,
    pretrain,
)
from mmstream.training.pretrain_settings import PretrainSettings

N_STEPS = 6  # two epochs of ten pairs by three

Corpus = Mapping[Split, ExampleDataset]


class Killed(Exception):  # noqa: N818 - stands for a process that is gone
    pass


def cheap(**changes: object) -> PretrainSettings:
    """As in `world`, with fewer sounds to make up."""
    scenes = {"secs": 1.2, "n_sounds": 1, "n_silents": 1, "shift_pixels": 1, "mixed": 0.3}
    return world.settings(scenes=scenes, **changes)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return world.corpus(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def whole(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    pretrain(cheap(), corpus, folder)
    return folder


def weights(folder: Path) -> bytes:
    return (folder / BEST / "model.safetensors").read_bytes()


def history(folder: Path) -> list[PretrainRecord]:
    lines = (folder / HISTORY).read_text("utf-8").splitlines()
    return [PretrainRecord.model_validate_json(line) for line in lines]


@property_settings(max_examples=4)
@given(
    deaths=st.lists(st.integers(1, N_STEPS), min_size=1, max_size=2),
    in_judging=st.booleans(),
    saves=st.sets(st.integers(1, N_STEPS)),
)
def test_killed_at_any_step_it_ends_with_the_same_weights(
    corpus: Corpus,
    whole: Path,
    tmp_path_factory: pytest.TempPathFactory,
    deaths: list[int],
    in_judging: bool,  # noqa: FBT001 - hypothesis draws it
    saves: set[int],
) -> None:
    """Killed after a step, or only after a judgement's line was written."""
    folder = tmp_path_factory.mktemp("killed")
    clock = ManualClock()
    left = sorted(deaths)

    def told(record: StepRecord | PretrainRecord) -> None:
        is_judgement = isinstance(record, PretrainRecord)
        if left and record.n_steps >= left[0] and is_judgement >= in_judging:
            left.pop(0)
            raise Killed
        if not is_judgement and record.n_steps + 1 in saves:
            clock.sleep(SAVE_SECS)

    for _ in deaths:
        with pytest.raises(Killed):
            pretrain(cheap(), corpus, folder, told, clock)
    pretrain(cheap(), corpus, folder, told, clock)
    assert weights(folder) == weights(whole)
    assert [(one.n_steps, one.val) for one in history(folder)] == [
        (one.n_steps, one.val) for one in history(whole)
    ]


@pytest.mark.parametrize("n_steps", [2, N_STEPS])
def test_ctrl_c_saves_the_step_it_was_pressed_in(
    corpus: Corpus, whole: Path, tmp_path: Path, n_steps: int
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def pressed(record: StepRecord | PretrainRecord) -> None:
        if isinstance(record, StepRecord) and record.n_steps == n_steps:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pretrain(cheap(), corpus, tmp_path, pressed)
    assert signal.getsignal(signal.SIGINT) == before
    assert position(cheap(), corpus, tmp_path).n_steps == n_steps
    assert not (tmp_path / BEST).exists()
    told: list[int] = []
    pretrain(cheap(), corpus, tmp_path, lambda one: told.append(one.n_steps))
    assert sorted(set(told)) == list(range(n_steps + 1, N_STEPS + 1))
    assert weights(tmp_path) == weights(whole)


def test_the_checkpoint_is_of_its_settings_and_has_a_background(
    corpus: Corpus, whole: Path
) -> None:
    read = checkpoint.read(whole / BEST, AvpSettings, task=TASK, rate_hz=16_000)
    assert read.settings == cheap().model
    assert read.identity.trained
    avp = Avp(read.settings)
    read.fill(avp)
    assert avp.background.shape == (6, 4 * 8)
    halves = avp.background.reshape(6, 2, 16).norm(dim=2)
    torch.testing.assert_close(halves, (halves > 0).float(), atol=1e-3, rtol=0)
    assert (halves > 0).any(dim=1).all()
    assert len({tuple(one) for one in avp.background.tolist()}) == len(avp.background) == 6
    assert avp.audio.mean.abs().max() > 1  # of log-mel frames; random weights have 0
    assert position(cheap(), corpus, whole).finished


def test_the_seed_says_it_all(corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # whatever was drawn before
    pretrain(cheap(seed=1), corpus, tmp_path / "other")
    assert weights(tmp_path / "other") != weights(whole)


def test_what_is_finished_is_not_done_again(corpus: Corpus, whole: Path) -> None:
    told: list[StepRecord | PretrainRecord] = []
    before = weights(whole)
    assert pretrain(cheap(), corpus, whole, told.append) == whole / BEST
    assert told == []
    assert weights(whole) == before


def test_progress(corpus: Corpus, tmp_path: Path) -> None:
    clock = ManualClock()
    told: list[StepRecord | PretrainRecord] = []

    def hear(record: StepRecord | PretrainRecord) -> None:
        clock.sleep(2 if isinstance(record, StepRecord) else 0)
        told.append(record)

    pretrain(cheap(), corpus, tmp_path, hear, clock)
    steps = [one for one in told if isinstance(one, StepRecord)]
    assert [(one.epoch, one.n_steps) for one in steps] == [(n // 3, n + 1) for n in range(N_STEPS)]
    # The clock moves between steps only, so the first takes no time.
    assert [one.eta_secs for one in steps] == pytest.approx([0, 4, 4, 3, 1.6, 0])
    assert steps[3].examples_per_sec == pytest.approx(3 * 4 / 6)
    judged = [one for one in told if isinstance(one, PretrainRecord)]
    assert judged == history(tmp_path)
    assert [told.index(one) for one in judged] == [3, 7]
    of = cheap().objectives
    for losses, three in ((judged[0].losses, steps[:3]), (judged[1].losses, steps[3:])):
        total = sum(getattr(of, name) * one for name, one in losses.items())
        assert sum(one.loss for one in three) / 3 == pytest.approx(total, rel=1e-4)
    assert all(one.val is not None and one.val.n == world.SIZES["val"] for one in judged)


def test_without_pairs_in_val_nothing_is_judged(
    corpus: Corpus, whole: Path, tmp_path: Path
) -> None:
    val = corpus["val"].only(())
    pretrain(cheap(), {**corpus, "val": val}, tmp_path)
    assert [one.val for one in history(tmp_path)] == [None, None]
    assert weights(tmp_path) == weights(whole)  # judging has no part in it


def test_a_training_that_runs_away_is_stopped(corpus: Corpus, tmp_path: Path) -> None:
    optimise = {"n_epochs": 9, "n_batch": 3, "learning_rate": 1e30, "warm_up": 0}
    with pytest.raises(ScorerError, match=r"^step 2, learning rate 1e\+30: the loss is not finite"):
        pretrain(cheap(optimise=optimise), corpus, tmp_path)


def test_another_training_is_not_gone_on_with(corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    for changes in ({"seed": 3}, {"left_out": ("bark",)}, {"judge_epochs": 2}):
        with pytest.raises(ConfigError, match="other settings or other data"):
            pretrain(cheap(**changes), corpus, whole)
    fewer = {**corpus, "train": corpus["train"].only(corpus["train"].items[:-1])}
    with pytest.raises(ConfigError, match="other settings or other data"):
        pretrain(cheap(), fewer, whole)
    (tmp_path / STATE).write_bytes(b"cut short")
    with pytest.raises(ConfigError, match="not the state of a training; remove"):
        pretrain(cheap(), corpus, tmp_path)


def test_what_is_gone_or_strange_in_the_folder_is_said(
    corpus: Corpus, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / BEST / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"best: the checkpoint is gone; remove .*run to train"):
        pretrain(cheap(), corpus, tmp_path / "run")
    (tmp_path / HISTORY).write_text(json.dumps({"epoch": 1}) + "\n", "utf-8")
    with pytest.raises(ConfigError, match=r"history\.jsonl: no history of a pre-training"):
        pretrain(cheap(), corpus, tmp_path)


def test_nothing_to_train_on(corpus: Corpus, tmp_path: Path) -> None:
    nothing = {**corpus, "train": corpus["train"].only(())}
    with pytest.raises(ConfigError, match="no examples in the split 'train'"):
        pretrain(cheap(), nothing, tmp_path)


def changed(**changes: object) -> dict[str, object]:
    """Of the model's settings."""
    return {"model": {**world.model(), **changes}}


def kept(**changes: object) -> dict[str, object]:
    """Of what the data keeps."""
    keep = {"sound": {}, "pictures": {"width": 8, "height": 8}, **changes}
    tasks = {"sound": world.HEARD}
    return {"data": {"type": "manifest", "path": "a.csv", "tasks": tasks, "keep": keep}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"left_out": ["brak"]}, "left_out: no such sound 'brak'; did you mean 'bark'?"),
        ({"scenes": {"secs": 0.4}}, r"scenes.secs: at least model.window_secs, 0.5"),
        ({"objectives": {"shift_secs": 0.4}}, r"scenes.secs: at least 1.88, match_secs"),
        ({"device": "tpu"}, "device"),
        ({"objectives": {"hidden": 1}}, "less than 1"),
        (
            changed(fusion={"type": "concat", "n_dims": 8, "modalities": ["video", "audio"]}),
            "in this order",
        ),
        (changed(seen={"width": 16, "height": 8}), r"as model.seen, \{width: 16, height: 8"),
        (kept(pictures=None), "keep.pictures: must be as"),
        (kept(pictures={"width": 8, "height": 8, "part": "mouth"}), "luma of the whole"),
        (kept(pictures={"width": 8, "height": 8, "fps": 10}), "fps: 25"),
        (kept(sound={"log_mel": {}}), r"keep.sound: \{\}, samples"),
        (kept(sound=None), r"keep.sound: \{\}, samples"),
        (
            {"data": {"path": "a.csv", "keep": {"sound": {}, "pictures": {}}}},
            "data.tasks.sound: says what is heard",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        world.settings(**changes)
