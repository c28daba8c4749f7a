"""A scene follows from seed, step and row; what is said to be heard in it is heard."""

from pathlib import Path

import numpy as np
import pretrain_world as world
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.errors import ConfigError
from mmstream.training import scenes
from mmstream.training.dataset import Example, ExampleDataset
from mmstream.training.manifest import Split
from mmstream.training.recordings import Piece
from mmstream.training.scenes import OTHER, SPEECH, SceneMaker, SceneSettings

LABELS = (*world.HEARD, OTHER)
END_SECS = 1.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[Split, ExampleDataset]:
    return world.corpus(tmp_path_factory.mktemp("shards"))


def maker(
    examples: ExampleDataset, *, n_pairs: int = 3, seed: int = 0, **changes: object
) -> SceneMaker:
    left_out = changes.pop("left_out", ())
    assert isinstance(left_out, tuple)
    values = {"secs": 1.5, "n_sounds": 4, "n_silents": 1, "shift_pixels": 1, **changes}
    of = SceneSettings.model_validate(values)
    model = world.settings().model
    return SceneMaker(of, model, examples, n_pairs=n_pairs, seed=seed, left_out=frozenset(left_out))


def same(one: scenes.Scenes, other: scenes.Scenes) -> bool:
    names = ("frames", "images", "at_secs", "truth")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(np.array_equal(a.numpy(), b.numpy(), equal_nan=True) for a, b in pairs)


def test_a_scene_depends_on_seed_and_step_only(corpus: dict[Split, ExampleDataset]) -> None:
    one, other = maker(corpus["train"]), maker(corpus["train"])
    torch.manual_seed(5)
    asked = [one.scenes(step, end_secs=END_SECS) for step in (0, 1, 2)]
    again = [other.scenes(step, end_secs=END_SECS) for step in (2, 1, 0)][::-1]
    assert all(same(a, b) for a, b in zip(asked, again, strict=True))
    assert not torch.equal(asked[0].frames[3:], asked[1].frames[3:])  # those of sounds alone
    assert not same(asked[0], maker(corpus["train"], seed=1).scenes(0, end_secs=END_SECS))


def test_what_is_in_a_row_does_not_hang_on_how_many_rows_there_are(
    corpus: dict[Split, ExampleDataset],
) -> None:
    few = maker(corpus["train"], n_sounds=2).scenes(1, end_secs=END_SECS)
    more = maker(corpus["train"], n_sounds=5).scenes(1, end_secs=END_SECS)
    np.testing.assert_array_equal(few.frames[:5], more.frames[:5])
    np.testing.assert_array_equal(few.images[:3], more.images[:3])


def test_an_epoch_has_each_pair_at_most_once(
    corpus: dict[Split, ExampleDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = maker(corpus["train"], n_sounds=0, n_silents=0, mixed=0)
    asked: list[int] = []
    get = ExampleDataset.__getitem__

    def got(self: ExampleDataset, index: int) -> Example:
        asked.append(index)
        return get(self, index)

    monkeypatch.setattr(ExampleDataset, "__getitem__", got)
    for step in range(2 * made.n_steps_epoch):
        made.scenes(step, end_secs=END_SECS)
    assert made.n_steps_epoch == 3
    assert len(set(asked[:9])) == len(set(asked[9:])) == 9
    assert set(asked) <= set(made.pairs)
    assert asked[:9] != asked[9:]


def test_shapes(corpus: dict[Split, ExampleDataset]) -> None:
    made = maker(corpus["train"]).scenes(0, end_secs=END_SECS)
    assert made.frames.shape == (7, 75, 8)
    assert made.images.shape == (4, 38, 1, 8, 8)
    assert made.at_secs.shape == (4, 38)
    assert made.truth.shape == (7, len(LABELS))
    np.testing.assert_allclose(made.at_secs.diff(), 0.04, atol=0.041)
    assert same(made.to(torch.device("cpu")), made)


def test_classes_that_are_left_out_never_come(
    corpus: dict[Split, ExampleDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = maker(corpus["train"], n_sounds=8, other=0, silence=0, left_out=("bark",))
    heard: list[str | None] = []
    get = ExampleDataset.__getitem__

    def got(self: ExampleDataset, index: int) -> Example:
        example = get(self, index)
        heard.append(example.annotation.class_of(scenes.TASK))
        return example

    monkeypatch.setattr(ExampleDataset, "__getitem__", got)
    truth = torch.cat([made.scenes(n, end_secs=END_SECS).truth for n in range(8)])
    assert set(heard) == {SPEECH, "rain", None}
    assert (truth[:, LABELS.index("bark")] == 0).all()
    assert (truth[:, LABELS.index("rain")] == 1).any()


def only(folder: Path, named: dict[str, tuple[Piece, str | None]]) -> ExampleDataset:
    """Those, beside three pairs of silence that nobody speaks in."""
    rng = np.random.default_rng(0)
    pairs: dict[str, tuple[Piece, str | None]] = {
        f"pair {n}": (world.pair(rng), SPEECH) for n in range(3)
    }
    return world.examples(folder, "train", {**pairs, **named})


def truth_of(folder: Path, loudness: float) -> list[float]:
    """What is said of barks that are as loud as that in the window, and 1 elsewhere."""
    rng = np.random.default_rng(0)
    bark = world.sound("bark", rng, secs=1.5)
    n = len(bark.sound)
    wave = np.sin(np.arange(n) / 5)
    wave[: round(END_SECS * n / 1.5)] *= loudness
    piece = Piece((wave * 8000).astype(np.int16), bark.heard, bark.pictures, bark.at_ns)
    made = maker(
        only(folder, {"bark": (piece, "bark")}), n_sounds=3, other=0, silence=0, mixed=0
    ).scenes(0, end_secs=END_SECS)
    truth: list[float] = made.truth[3:, LABELS.index("bark")].tolist()
    assert (made.truth[3:, LABELS.index("rain")] == 0).all()
    return truth


def test_a_recording_is_heard_where_it_is_loud(tmp_path: Path) -> None:
    """At -20 dB of its loudest it is, at -30 dB it is not, between them nobody can tell."""
    assert truth_of(tmp_path / "loud", 0.12) == [1, 1, 1]
    assert truth_of(tmp_path / "soft", 0.02) == [0, 0, 0]
    assert truth_of(tmp_path / "gone", 0) == [0, 0, 0]
    assert np.isnan(truth_of(tmp_path / "between", 0.05)).all()


def heard(name: str, level: float, truth: float = 1.0) -> "scenes._Heard":
    claims = np.zeros(len(LABELS), np.float32)
    claims[LABELS.index(name)] = truth
    return scenes._Heard(np.full(8000, level, np.float32), claims)  # noqa: SLF001


WINDOW = slice(0, 4000)


@pytest.mark.parametrize(("ratio_db", "softer"), [(0, 1.0), (10, 1.0), (11, np.nan), (30, np.nan)])
def test_of_two_sounds_the_softer_is_claimed_as_far_as_it_is_heard(
    ratio_db: float, softer: float
) -> None:
    mixed = scenes._mixed(heard("bark", 0.5), heard("rain", 0.1), ratio_db, WINDOW)  # noqa: SLF001
    np.testing.assert_allclose(mixed.samples, 0.5 * (1 + 10 ** (-ratio_db / 20)), rtol=1e-5)
    expected = {SPEECH: 0.0, "bark": 1.0, "rain": softer, OTHER: 0.0}
    np.testing.assert_array_equal(mixed.truth, [expected[name] for name in LABELS])


def test_what_is_surely_heard_in_one_is_heard_in_both() -> None:
    unsure = heard("bark", 0.5, np.nan)
    for one, other in ((unsure, heard("bark", 0.1)), (heard("bark", 0.1), unsure)):
        assert scenes._mixed(one, other, 0, WINDOW).truth[LABELS.index("bark")] == 1  # noqa: SLF001
    both = scenes._mixed(unsure, heard("rain", 0.1), 0, WINDOW)  # noqa: SLF001
    np.testing.assert_array_equal(both.truth, [0, np.nan, 1, 0])


def test_with_silence_a_sound_stays_as_it_is() -> None:
    sound, silence = heard("bark", 0.5), heard("rain", 0.0, 0.0)
    assert scenes._mixed(sound, silence, 0, WINDOW) is sound  # noqa: SLF001
    assert scenes._mixed(silence, sound, 0, WINDOW) is sound  # noqa: SLF001


@settings(max_examples=30)
@given(n=st.integers(0, 40), at=st.integers(-30, 50), length=st.integers(1, 30))
def test_a_cut_has_zeros_where_there_is_nothing(n: int, at: int, length: int) -> None:
    if at < -length or at > n:
        at = 0
    sound = np.arange(1, n + 1, dtype=np.float32)
    cut = scenes._cut(sound, at, length)  # noqa: SLF001
    assert cut.tolist() == [sound[i] if 0 <= i < n else 0 for i in range(at, at + length)]


def test_masks_hide_at_most_a_tenth_of_time_and_a_sixth_of_the_bands() -> None:
    rng = np.random.default_rng(0)
    n_times, n_bands = set(), set()
    for _ in range(60):
        frames = torch.rand(100, 12)
        masked = frames.clone()
        scenes._masked(masked, rng)  # noqa: SLF001
        hidden = (masked != frames).numpy()
        n_times.add(int(hidden.all(axis=1).sum()))
        n_bands.add(int(hidden.all(axis=0).sum()))
        assert len(np.unique(masked.numpy()[hidden])) <= 1
    assert max(n_times) == 9
    assert n_bands == {0, 1}
    scenes._masked(torch.rand(4, 2), rng)  # noqa: SLF001 - so few that nothing is hidden


def test_pictures_are_of_the_instant_and_the_last_stands(tmp_path: Path) -> None:
    """Of a clip whose pictures end early, each as bright as its number."""
    n = 60
    shown = np.arange(n, dtype=np.uint8)[:, None, None, None] + np.full((n, 8, 8, 1), 100, np.uint8)
    rng = np.random.default_rng(0)
    pair = world.pair(rng)
    late_ns = 10_000_000
    piece = Piece(pair.sound, pair.heard, shown, pair.at_ns[:n] + late_ns)
    named: dict[str, tuple[Piece, str | None]] = {"one": (piece, SPEECH)}
    data = world.examples(tmp_path, "train", named)
    made = maker(data, n_pairs=1, n_sounds=0, secs=3.0).scenes(0, end_secs=END_SECS)
    bright = made.images[0, :, 0].float().mean(dim=(1, 2)).numpy()
    assert np.all(np.diff(bright[:n]) >= 0)
    assert bright[0] < bright[30] < bright[n - 1]
    assert np.all(bright[n:] == bright[n - 1])
    wanted = np.arange(75) * 0.04
    np.testing.assert_allclose(made.at_secs[0, :n], wanted[:n] + 0.01, atol=1e-6)
    np.testing.assert_allclose(made.at_secs[0, n:], wanted[n:], atol=1e-6)


def test_frames_end_where_they_say() -> None:
    """The first that knows of a click is the one that it lies in, with zeros before the start."""
    front = world.settings().model.audio.front_end.build()
    samples = np.zeros(3200, np.float32)
    silence = scenes.features(front, [samples])
    clicked = samples.copy()
    clicked[1000] = 1.0
    frames = scenes.features(front, [samples, clicked] * 6)
    assert frames.shape == (12, 10, 8)
    for row in range(12):
        known = (frames[row] != silence[0]).any(dim=1)
        assert known.nonzero().flatten().tolist() == ([3] if row % 2 else [])


def test_data_and_labels_that_do_not_fit_are_refused(
    corpus: dict[Split, ExampleDataset], tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"takes 11 examples .* only 10 of the split 'train' have"
    ):
        maker(corpus["train"], n_pairs=11)
    with pytest.raises(ConfigError, match="only 0 of the split"):
        maker(corpus["train"], left_out=(SPEECH,))
    rng = np.random.default_rng(0)
    for name, piece in (("moo", world.sound("bark", rng)), ("quack", world.pair(rng))):
        strange = only(tmp_path / name, {name: (piece, name)})
        with pytest.raises(ConfigError, match=f"must have what is trained on, .* lacks {name}$"):
            maker(strange)
