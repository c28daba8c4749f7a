"""A trained model asked with something taken away, made loud or swapped."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pretrained_folders
import pytest
import training_world as world

from mmstream.errors import ConfigError, ScorerError
from mmstream.models.pretrained_loading import quiet
from mmstream.training.batches import Swapped
from mmstream.training.dataset import ExampleDataset
from mmstream.training.loop import train
from mmstream.training.predict import VOCABULARY, Condition, Trained, load, predict
from mmstream.training.predictions import Predictions
from mmstream.training.settings import Corpus, ManifestData, TrainSettings
from mmstream.training.shards import Shards

NO_SOUND = Condition(hidden=frozenset({"audio"}))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return world.corpus(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def trained(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    settings = world.settings()
    return load(settings, train(settings, corpus, tmp_path_factory.mktemp("run")))


def said(
    trained: Trained,
    corpus: Corpus,
    condition: Condition = Condition(),  # noqa: B008 - frozen
) -> Predictions:
    return predict(trained, corpus, "test", condition)[world.TASK]


def test_all_that_is_known_is_answered_and_the_same_again(trained: Trained, corpus: Corpus) -> None:
    one = said(trained, corpus)
    assert one.indices.tolist() == list(range(12))
    assert one.truth.tolist() == [0, 1, 2] * 4
    assert one.classes == world.CLASSES
    assert one.modalities == ("audio", "video")
    assert one.gates is not None
    np.testing.assert_allclose(one.gates.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(said(trained, corpus).probabilities, one.probabilities)


def test_a_hidden_modality_counts_nothing(trained: Trained, corpus: Corpus) -> None:
    without = said(trained, corpus, NO_SOUND)
    assert without.gates is not None
    assert without.gates.tolist() == [[0, 1]] * 12
    assert not np.allclose(without.probabilities, said(trained, corpus).probabilities)
    # Whatever the sound is, it is not heard.
    swapped = said(trained, corpus, replace(NO_SOUND, swapped=world.TASK))
    np.testing.assert_array_equal(swapped.probabilities, without.probabilities)


def test_swapped_sound_is_the_others(trained: Trained, corpus: Corpus) -> None:
    no_sight = Condition(hidden=frozenset({"video"}))
    straight = said(trained, corpus, no_sight)
    swapped = said(trained, corpus, replace(no_sight, swapped=world.TASK))
    others = Swapped(corpus.examples["test"], world.TASK, seed=0).sounds
    np.testing.assert_allclose(
        swapped.probabilities, straight.probabilities[list(others)], rtol=1e-5
    )
    np.testing.assert_array_equal(swapped.truth, straight.truth)


def test_only_what_is_known_is_asked(words: TrainSettings, tmp_path: Path) -> None:
    """Of the test words, one speaker's are of a known digit, the other's have a known answer."""
    path = words.data.path if isinstance(words.data, ManifestData) else tmp_path
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    for row in rows:
        if row["split"] == "test":
            del row["labels"]["digit" if "theo" in row["path"] else "answer"]
    (tmp_path / "half.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = words.data.model_copy(update={"path": tmp_path / "half.jsonl"})
    corpus = words.model_copy(update={"data": data, "noise": None}).read(tmp_path / "shards")
    settings = words.model_copy(update={"noise": None})
    trained = load(settings, train(settings, corpus, tmp_path / "run"))
    straight = predict(trained, corpus, "test")
    assert {task: len(one) for task, one in straight.items()} == {"digit": 2, "answer": 2}
    swapped = predict(trained, corpus, "test", Condition(swapped="digit"))
    assert set(swapped) == {"digit"}
    np.testing.assert_array_equal(swapped["digit"].indices, straight["digit"].indices)
    digits = [item for item in corpus.examples["test"].items if item.annotation.class_of("digit")]
    fewer = Corpus({"test": ExampleDataset(digits, Shards(tmp_path / "shards"))}, None)
    (digit,) = predict(trained, fewer, "test").values()
    np.testing.assert_array_equal(digit.truth, straight["digit"].truth)


def test_noise_that_is_not_there(trained: Trained, corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="the training has no noise"):
        predict(trained, corpus, "test", Condition(snr_db=0))


def test_what_is_not_finite_is_named(trained: Trained, corpus: Corpus, tmp_path: Path) -> None:
    broken = world.corpus(tmp_path, broken=7)
    with pytest.raises(ScorerError, match=r"not finite for the examples 7 \(train-7\)$"):
        predict(trained, broken, "train")
    with pytest.raises(ConfigError, match="colour: no example of the split has a known class"):
        predict(renamed(trained), corpus, "test")


def renamed(trained: Trained) -> Trained:
    """With a task that nobody knows anything of."""
    model = trained.model
    heads = {"colour": next(iter(model.settings.heads.values()))}
    model.settings = model.settings.model_copy(update={"heads": heads})
    return trained


@pytest.fixture(scope="module")
def words(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """Real words of three speakers, what was said as a question, real noise."""
    folder = tmp_path_factory.mktemp("words")
    rows = [
        {
            "path": f"{digit}_{speaker}_{take}.flac",
            "labels": {"digit": str(digit), "answer": "no" if digit else "yes"},
            "transcript": "is it zero" if take % 2 else "zero",
            "split": split,
        }
        for speaker in ("jackson", "theo")
        for digit in range(2)
        for take, split in enumerate(("train", "train", "val", "test"), 5)
    ]
    (folder / "words.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    names = sorted(path.name for path in (data_dir / "esc10" / "audio").iterdir())[::120]
    splits = zip(names, ("train", "val", "test"), strict=False)
    (folder / "noise.csv").write_text("path,split\n" + "\n".join(",".join(one) for one in splits))
    head = {"n_dims": 8, "labels": ["0", "1"]}
    media = data_dir / "fsdd" / "recordings"
    return TrainSettings.model_validate(
        {
            "data": {
                "type": "manifest",
                "path": folder / "words.jsonl",
                "media": media,
                "tasks": {"digit": ["0", "1"], "answer": ["no", "yes"]},
                "keep": {"sound": {}},
            },
            "model": {
                "audio": {"n_dims": 8, "widths": [4, 4], "body": {"type": "gru", "n_layers": 1}},
                "fusion": {"type": "deep", "n_layers": 1, "n_dims": 8, "modalities": ["audio"]},
                "heads": {"digit": head},
                "question": {
                    "text": {"n_words": 30, "n_dims": 8, "n_layers": 0},
                    "answers": {**head, "labels": ["no", "yes"]},
                    "n_layers": 1,
                },
            },
            "words": {"question": "transcript"},
            "noise": {
                "recordings": {"path": folder / "noise.csv", "media": data_dir / "esc10" / "audio"}
            },
            "optimise": {"n_epochs": 1, "n_batch": 4},
            "device": "cpu",
        }
    )


def test_real_words_with_noise_and_questions(words: TrainSettings, tmp_path: Path) -> None:
    corpus = words.read(tmp_path / "shards")
    assert {split: len(each) for split, each in corpus.examples.items()} == {
        "train": 8,
        "val": 4,
        "test": 4,
    }
    best = train(words, corpus, tmp_path / "run")
    trained = load(words, best)
    clean = predict(trained, corpus, "test")
    assert set(clean) == {"digit", "answer"}
    assert clean["digit"].gates is None
    noisy, again = (predict(trained, corpus, "test", Condition(snr_db=-10)) for _ in range(2))
    louder = predict(trained, corpus, "test", Condition(snr_db=-20))
    for task in clean:
        np.testing.assert_array_equal(noisy[task].probabilities, again[task].probabilities)
        for other in (clean, louder):
            assert not np.allclose(noisy[task].probabilities, other[task].probabilities, atol=1e-4)
    (best / VOCABULARY).unlink()
    with pytest.raises(ConfigError, match=r"vocabulary.json: cannot be read: No such file"):
        load(words, best)


def test_pretrained_encoders_are_trained_and_found_again(
    words: TrainSettings, tmp_path: Path
) -> None:
    with quiet():
        pretrained_folders.write_sound(tmp_path / "from", "wav2vec2")
        pretrained_folders.write_text(tmp_path / "from" / "bert")
    named = {"type": "pretrained", "n_dims": 8}
    values = words.model_dump(mode="json")
    values["model"] |= {
        "audio": {**named, "weights": f"{tmp_path}/from/wav2vec2", "train": True},
        "text": {**named, "weights": f"{tmp_path}/from/bert", "n_longest": 32},
        "fusion": {"type": "concat", "n_dims": 8, "modalities": ["audio", "text"]},
        "question": None,
    }
    settings = TrainSettings.model_validate(
        values | {"words": {"text": "transcript"}, "noise": None}
    )
    corpus = settings.read(tmp_path / "shards")
    best = train(settings, corpus, tmp_path / "run")
    (tmp_path / "from").rename(tmp_path / "gone")
    trained = load(settings, best)
    one = predict(trained, corpus, "test")["digit"]
    assert one.modalities == ("audio", "text")
    without = predict(trained, corpus, "test", Condition(hidden=frozenset({"text"})))["digit"]
    assert not np.allclose(one.probabilities, without.probabilities, atol=1e-5)
    assert not (best / VOCABULARY).exists()


def test_a_model_for_another_task_is_refused(words: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match="cannot be read"):
        load(words, tmp_path)
