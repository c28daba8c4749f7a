"""What a training begins with: encoders that were trained before, built as its own."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
import training_world as world
from pydantic import ValidationError
from safetensors.torch import load_file, save
from torch import Tensor

from mmstream.errors import ConfigError, ScorerError
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, Avp, AvpSettings
from mmstream.models.checkpoint import Identity
from mmstream.models.mmt import MmtSettings
from mmstream.training.batches import Collator
from mmstream.training.learner import Learner
from mmstream.training.loop import BEST, StepRecord, train
from mmstream.training.settings import Corpus, TrainSettings

VIDEO_ONLY = {"audio": None, "fusion": {"type": "concat", "modalities": ["video"], "n_dims": 8}}


class Killed(Exception):  # noqa: N818 - stands for a process that is gone
    pass


def write_avp(
    folder: Path, seed: int = 0, identity: Mapping[str, object] = MappingProxyType({})
) -> Path:
    """A checkpoint of 16-bit floats whose encoders are built as the world's."""
    model = world.settings().model
    settings = AvpSettings.model_validate(
        {
            "audio": model.audio,
            "video": model.video,
            "fusion": {"type": "concat", "modalities": ["audio", "video"], "n_dims": 8},
            "events": {"labels": ["dog", "rain"], "n_dims": 8, "kind": "any"},
        }
    )
    torch.manual_seed(seed)
    avp = Avp(settings)
    avp.audio.standardise(mean=torch.full((8,), -7.0), std=torch.full((8,), 2.0))
    whose = {"task": TASK, "rate_hz": 16_000, "trained": True, **identity}
    checkpoint.save(folder, avp.half(), settings, Identity.model_validate(whose), "# AVP")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return world.corpus(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def avp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_avp(tmp_path_factory.mktemp("avp"))


def settings(avp: Path, **changes: object) -> TrainSettings:
    return world.settings(start_from=str(avp), **changes)


def weights(folder: Path, part: str = "") -> dict[str, Tensor]:
    read = load_file(folder / "model.safetensors")
    return {name: one.float() for name, one in read.items() if name.startswith(part)}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_only_the_encoders_begin_with_the_checkpoints(avp: Path) -> None:
    random, begun = Learner(world.settings()), Learner(settings(avp))
    assert (random.start_id, begun.start_id is None) == (None, False)
    for part in ("audio.", "video."):
        now = {name: one for name, one in begun.model.state_dict().items() if name.startswith(part)}
        assert same(now, weights(avp, part))
    for part in ("fusion", "heads"):
        mine, others = (getattr(one.model, part).state_dict() for one in (begun, random))
        assert same(mine, others)


def test_a_model_of_sight_begins_with_sight(avp: Path) -> None:
    model = world.settings().model.model_dump() | VIDEO_ONLY
    learner = Learner(settings(avp, model=model))
    assert learner.model.audio is None
    assert learner.model.video is not None
    assert same(learner.model.video.state_dict(), Learner(settings(avp)).model.video.state_dict())  # type: ignore[union-attr]  # the world's model has one


def test_it_learns_on_from_there(avp: Path, corpus: Corpus, tmp_path: Path) -> None:
    best = train(settings(avp), corpus, tmp_path)
    mine, theirs = weights(best), weights(avp)
    assert torch.equal(mine["audio.mean"], theirs["audio.mean"])  # not the corpus's
    assert not torch.equal(mine["audio.stem.out.weight"], theirs["audio.stem.out.weight"])
    assert not torch.equal(mine["video.stages.5.weight"], theirs["video.stages.5.weight"])
    card = (best / "card.md").read_text("utf-8")
    assert (
        f"|\n| began with | the encoders of {avp} ({Learner(settings(avp)).start_id}) |\n" in card
    )


def test_frozen_encoders_stay_as_they_are(avp: Path, corpus: Corpus, tmp_path: Path) -> None:
    frozen = settings(avp, frozen=True)
    best = train(frozen, corpus, tmp_path)
    for part in ("audio.", "video."):
        assert same(weights(best, part), weights(avp, part))
    assert not same(weights(best, "heads."), weights_of(Learner(frozen), "heads."))
    assert "), which were not trained |" in (best / "card.md").read_text("utf-8")


def weights_of(learner: Learner, part: str) -> dict[str, Tensor]:
    state = learner.model.state_dict()
    return {name: one for name, one in state.items() if name.startswith(part)}


def test_what_is_frozen_drops_nothing(avp: Path, corpus: Corpus) -> None:
    """While what is trained on top of it does."""
    learner = Learner(settings(avp, frozen=True))
    batch = Collator(learner.model.settings)([corpus.examples["train"][nth] for nth in range(4)])
    learner.step(batch, learning_rate=1e-3, number=0)
    modes = {name: one.training for name, one in learner.model.named_children()}
    assert (modes["audio"], modes["video"], modes["heads"]) == (False, False, True)


@pytest.mark.parametrize("frozen", [False, True])
def test_interrupted_it_ends_with_the_same_weights(
    avp: Path, corpus: Corpus, tmp_path: Path, *, frozen: bool
) -> None:
    asked = settings(avp, frozen=frozen)
    whole = train(asked, corpus, tmp_path / "whole")

    def killed(record: object) -> None:
        if isinstance(record, StepRecord) and record.n_steps == 4:
            raise Killed

    with pytest.raises(Killed):
        train(asked, corpus, tmp_path / "run", killed)
    assert same(weights(train(asked, corpus, tmp_path / "run")), weights(whole))


def test_another_checkpoint_is_another_training(avp: Path, corpus: Corpus, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(avp, tmp_path / "avp"))
    train(settings(mine), corpus, tmp_path / "run")
    moved = Path(shutil.copytree(avp, tmp_path / "moved"))
    assert train(settings(moved), corpus, tmp_path / "run") == tmp_path / "run" / BEST
    write_avp(mine, seed=1)
    for other in (settings(mine), settings(moved, frozen=True), world.settings()):
        with pytest.raises(ConfigError, match="other settings or other data"):
            train(other, corpus, tmp_path / "run")


@pytest.mark.parametrize(
    ("audio", "video", "said"),
    [
        ({"n_stack": 2}, {}, "model.audio.n_stack: 2 here, 4 there"),
        ({"dropout": 0.3}, {"dropout": 0.3}, "model.audio.dropout: 0.3 here, 0.1 there"),
        ({"body": {"type": "gru"}}, {}, "model.audio.body.type: gru here, transformer there"),
        ({}, {"widths": (4, 8)}, r"model.video.widths: \[4, 8\] here, \[4, 4\] there"),
        ({}, {"n_seen": 3}, "model.video.n_seen: 3 here, 1 there"),
    ],
)
def test_encoders_that_are_built_otherwise_are_refused(
    avp: Path, audio: dict[str, object], video: dict[str, object], said: str
) -> None:
    model = world.settings().model.model_dump()
    changed = {**model, "audio": model["audio"] | audio, "video": model["video"] | video}
    with pytest.raises(ConfigError, match=f"^start_from: {avp}: .* built otherwise: {said}$"):
        Learner(settings(avp, model=MmtSettings.model_validate(changed)))


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({"task": "digit"}, "trained for the task 'digit', not for 'avp'"),
        ({"rate_hz": 8000}, "made for 8000 Hz, not for 16000 Hz"),
        ({"trained": False}, "the weights are random, nobody trained them"),
    ],
)
def test_what_is_no_such_checkpoint_is_refused(
    tmp_path: Path, identity: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"^start_from: {tmp_path}: {said}"):
        Learner(settings(write_avp(tmp_path, identity=identity)))


def test_a_checkpoint_that_is_not_there_or_not_whole(avp: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^start_from: .*config.json: cannot be read"):
        Learner(settings(tmp_path / "nowhere"))
    mine = Path(shutil.copytree(avp, tmp_path / "avp"))
    some = {name: one for name, one in weights(mine).items() if name != "video.stages.5.bias"}
    (mine / "model.safetensors").write_bytes(safetensors_of(some))
    with pytest.raises(ScorerError, match=r"weights missing: stages\.5\.bias"):
        Learner(settings(mine))


def safetensors_of(tensors: Mapping[str, Tensor]) -> bytes:
    return bytes(save(dict(tensors)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frozen": True}, "frozen: needs start_from"),
        ({"start_from": ""}, "start_from"),
        ({"share": 0}, "share"),
        ({"share": 1.1}, "share"),
    ],
)
def test_what_cannot_be_begun(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        world.settings(**changes)


def test_words_begin_with_nothing() -> None:
    words = {
        "audio": None,
        "video": None,
        "text": {"n_words": 64, "n_dims": 8, "n_heads": 2},
        "fusion": {"type": "concat", "modalities": ["text"], "n_dims": 8},
    }
    whole = world.settings().model_dump() | {"words": {"text": "caption"}}
    whole["model"] |= words
    TrainSettings.model_validate(whole)
    with pytest.raises(ValidationError, match=r"start_from: needs model.audio or model.video"):
        TrainSettings.model_validate(whole | {"start_from": "avp-small"})


def test_a_share_is_of_the_training_examples(corpus: Corpus) -> None:
    some = world.settings(share=0.25, seed=3).drawn(corpus)
    sizes = {split: len(examples) for split, examples in some.examples.items()}
    assert sizes == {**world.SIZES, "train": 6}  # of 8, 7 and 7
    told = [item.annotation.class_of(world.TASK) for item in some.examples["train"].items]
    assert sorted(told, key=str) == ["0", "0", "1", "1", "2", "2"]
    assert some.examples["train"][5].index == 5
    assert world.settings(seed=3).drawn(corpus) is corpus
