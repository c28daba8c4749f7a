"""A few clips become a prototype with a threshold; what does not stand out is refused."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.errors import ScorerError
from mmstream.media import Floats
from mmstream.models import embedding_files, taught
from mmstream.models.normal import NormalSettings
from mmstream.models.taught import ClipGists, Prototype, TaughtClip, TaughtSettings

N_DIMS = 16
MODEL = "a" * 16


def unit(values: Floats) -> Floats:
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True), np.float32)


def heard(values: Floats) -> Floats:
    """Gists [..., 2d] of sound alone, of unit vectors [..., d]."""
    return np.concatenate((values, np.zeros_like(values)), axis=-1)


def both(sound: Floats, sight: Floats) -> Floats:
    """Gists [..., 2d] of gists of sound alone, [..., 2d]."""
    return np.concatenate((sound[..., :N_DIMS], sight[..., :N_DIMS]), axis=-1)


def seen(sound: Floats) -> Floats:
    """Gists [..., 2d] of pictures alone, which are as those of sound alone are."""
    return both(np.zeros_like(sound), sound)


def background(n: int = 128) -> Floats:
    return heard(unit(np.random.default_rng(1).standard_normal((n, N_DIMS)).astype(np.float32)))


def around(axis: int, *, spread: float, seed: int, n: int = 6) -> Floats:
    """Gists of sound alone near an axis, [n, 2d]."""
    noise = np.random.default_rng(seed).standard_normal((n, N_DIMS)) * spread
    return heard(unit((np.eye(N_DIMS)[axis] + noise).astype(np.float32)))


def clip(values: Floats, name: str = "a.wav", weights: Sequence[float] = ()) -> ClipGists:
    known = TaughtClip(name=name, digest="0" * 16)
    given_weights = weights or [1.0] * len(values)
    return ClipGists(known, values, np.array(given_weights, np.float32))


def clips(axis: int, *, spread: float = 0.1, n: int = 4) -> list[ClipGists]:
    return [clip(around(axis, spread=spread, seed=seed)) for seed in range(n)]


def lesson(
    of: Sequence[ClipGists], label: str = "Dog bark", others: Sequence[Prototype] = ()
) -> taught.Lesson:
    return taught.teach(label, of, background(), others=others, model=MODEL, made="then")


def test_what_was_taught_is_recognised_and_ordinary_windows_are_not() -> None:
    prototype = lesson(clips(0)).prototype
    asked = around(0, spread=0.1, seed=99, n=50)
    assert min(prototype.score(one) for one in asked) > 0.5
    assert np.mean([prototype.score(one) < 0.5 for one in background()]) > 0.98


def test_the_score_is_a_half_at_the_threshold_and_rises_with_nearness() -> None:
    about = lesson(clips(0)).prototype.about
    prototype = Prototype(about, np.eye(2 * N_DIMS, dtype=np.float32)[0])
    cosines = np.array([-1, about.threshold - about.reach, about.threshold, 1.0])
    rest = np.sqrt(1 - cosines**2)
    scores = [
        prototype.score(np.array([cosine, other, *[0] * (2 * N_DIMS - 2)], np.float32))
        for cosine, other in zip(cosines, rest, strict=True)
    ]
    assert scores == sorted(scores)
    assert scores[2] == pytest.approx(0.5, abs=1e-4)
    assert scores[1] == pytest.approx(0.1, abs=1e-3)


def test_the_threshold_lies_between_the_clips_and_the_ordinary() -> None:
    made = lesson(clips(0))
    assert made.ordinary < made.prototype.about.threshold < min(made.nearness)
    assert made.doubtful == ()
    assert made.prototype.about.label == "dog_bark"
    assert made.prototype.about.called == "Dog bark"


def test_clips_with_nothing_in_common_are_refused_with_the_figures() -> None:
    rng = np.random.default_rng(3)
    strangers = [clip(heard(unit(rng.standard_normal((6, N_DIMS)).astype("f")))) for _ in range(4)]
    with pytest.raises(ScorerError, match=r"dog_bark: the clips do not stand out: .* 0\.\d"):
        lesson(strangers)


def test_a_clip_that_is_unlike_the_others_is_named() -> None:
    odd = clip(around(5, spread=0.1, seed=7), "odd.wav")
    made = lesson([*clips(0), odd])
    assert [one.name for one in made.doubtful] == ["odd.wav"]


def test_what_is_taught_beside_something_near_is_told_apart_from_it() -> None:
    near = heard(unit(np.eye(N_DIMS, dtype=np.float32)[:2].sum(axis=0)))
    first = lesson([clip(unit(one.values + near)) for one in clips(0, spread=0.02)], "bark")
    alone = lesson(clips(0, spread=0.02), "yap")
    beside = lesson(clips(0, spread=0.02), "yap", [first.prototype])
    assert alone.rival is None
    assert beside.rival == "bark"
    assert beside.prototype.about.threshold > alone.prototype.about.threshold
    assert beside.prototype.score(first.prototype.vector) < 0.5 < alone.prototype.score(near)


def test_teaching_again_is_not_compared_with_what_was_taught_before() -> None:
    before = lesson(clips(0)).prototype
    assert lesson(clips(0), others=[before]).rival is None


@pytest.mark.parametrize("n", [0, 2, 11])
def test_too_few_and_too_many_clips_are_refused(n: int) -> None:
    with pytest.raises(ScorerError, match=f"3 to 10 clips: got {n}"):
        lesson(clips(0, n=n))


def test_nearness_is_of_the_senses_that_both_have() -> None:
    near, far, mid = (around(axis, spread=0, seed=0, n=1)[0] for axis in (0, 1, 2))
    half_way = unit(near + mid)
    prototype = both(near, near)
    of = np.stack(
        [both(near, near), both(near, far), both(half_way, far), near, seen(half_way), 0 * near]
    )
    cosine = float(np.sqrt(0.5))
    expected = [1, 0.5, cosine / 2, 1, cosine, -1]
    np.testing.assert_allclose(taught.nearness(of, prototype), expected, atol=1e-6)
    assert taught.nearness(near, near) == pytest.approx(1)
    assert taught.nearness(both(near, far), near) == pytest.approx(1)
    assert taught.nearness(near, seen(near)) == -1


@given(st.integers(0, 2**32 - 1))
def test_nearness_is_mutual_and_bounded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = unit(rng.standard_normal((2, 2, N_DIMS)).astype(np.float32))
    one, two = (drawn * rng.integers(0, 2, (2, 2, 1), dtype=np.int64)).reshape(2, -1)
    there, back = taught.nearness(one, two), taught.nearness(two, one)
    assert there == pytest.approx(float(back), abs=1e-6)
    assert -1 <= there <= 1 + 1e-6


def test_a_clip_is_the_mean_of_what_it_has_of_each_sense() -> None:
    one, two = (around(axis, spread=0, seed=0, n=1)[0] for axis in (0, 1))
    mean = taught.clip_gist(clip(np.stack((both(one, two), two, 0 * one))))
    np.testing.assert_allclose(mean, both(unit(one + two), two), atol=1e-6)
    assert not taught.clip_gist(clip(np.stack((one, one))))[N_DIMS:].any()


def test_clips_may_lack_a_sense_that_others_have() -> None:
    mixed = [
        *clips(0, n=2),
        clip(both(around(0, spread=0.1, seed=8), around(3, spread=0.1, seed=9)), "both.mp4"),
    ]
    made = taught.teach("bark", mixed, background(), others=[], model=MODEL, made="then")
    lengths = np.linalg.norm(made.prototype.vector.reshape(2, -1), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    assert made.doubtful == ()
    assert made.prototype.score(around(0, spread=0.1, seed=20, n=1)[0]) > 0.5
    assert made.prototype.score(seen(around(3, spread=0.1, seed=21, n=1)[0])) > 0.5


def test_ordinary_windows_without_the_clips_senses_do_not_count() -> None:
    strange = seen(np.repeat(around(0, spread=0.1, seed=0), 200, axis=0))
    mixed = np.concatenate((background(), strange))
    made = taught.teach("bark", clips(0), mixed, others=[], model=MODEL, made="then")
    assert made.ordinary == lesson(clips(0), "bark").ordinary


def test_clips_that_share_no_sense_with_anything_ordinary_are_refused() -> None:
    silent = [clip(seen(one.values)) for one in clips(0)]
    with pytest.raises(ScorerError, match=r"bark: the clips have pictures, .* has sound; allowed"):
        lesson(silent, "bark")
    nothing = [clip(0 * one.values) for one in clips(0)]
    with pytest.raises(ScorerError, match=r"bark: the clips have neither sound nor pictures"):
        lesson(nothing, "bark")


def test_what_was_taught_of_another_sense_is_no_rival() -> None:
    ordinary = seen(background())
    silent = [clip(seen(one.values)) for one in clips(0)]
    dark = taught.teach("dark", silent, ordinary, others=[], model=MODEL, made="then").prototype
    assert lesson(clips(0), "bark", [dark]).rival is None
    near = heard(unit(np.eye(N_DIMS, dtype=np.float32)[:2].sum(axis=0)))
    assert lesson(clips(0), "bark", [Prototype(dark.about, near)]).rival == "dark"


def test_only_the_loud_part_of_a_clip_counts() -> None:
    silence, bark = around(5, spread=0.1, seed=3, n=16), around(0, spread=0.1, seed=4, n=4)
    levels_db = np.array([-90.0] * 16 + [-20.0] * 4, np.float32)
    weights = taught.weights_of([levels_db], n_window=2)
    both = clip(np.concatenate((silence, bark)), weights=weights.tolist())
    mean = taught.clip_gist(both)
    assert mean[0] > 0.9
    assert abs(mean[5]) < 0.1


def test_windows_after_a_short_sound_still_hold_it() -> None:
    levels_db = np.array([-80, -80, -20, -80, -80, -80, -80], np.float32)
    weights = taught.weights_of([levels_db], n_window=3)
    assert (weights > 0).tolist() == [False, False, True, True, True, False, False]


def test_a_steady_clip_counts_as_a_whole() -> None:
    steady = np.full(9, -30, np.float32) + np.linspace(-2, 2, 9, dtype=np.float32)
    assert taught.standing_out(steady) is None
    assert taught.weights_of([steady], n_window=3).tolist() == [1] * 9


def test_what_moves_in_silence_counts() -> None:
    still = np.full(8, -100, np.float32)
    moving = np.array([-6] * 6 + [20] * 2, np.float32)
    weights = taught.weights_of([still, moving], n_window=1)
    assert weights.tolist() == [0] * 6 + [1] * 2


@given(st.lists(st.floats(-100, 0, width=32), min_size=1, max_size=40), st.integers(1, 12))
def test_weights_lie_in_0_to_1_and_some_count(levels: list[float], n_window: int) -> None:
    weights = taught.weights_of([np.array(levels, np.float32)], n_window=n_window)
    assert weights.shape == (len(levels),)
    assert weights.min() >= 0
    assert weights.max() <= 1 + 1e-6
    assert weights.max() > 0


def test_it_is_read_as_it_was_saved(tmp_path: Path) -> None:
    prototype = lesson(clips(0)).prototype
    path = taught.save(tmp_path / "new", prototype)
    found = taught.read(path, model=MODEL)
    assert path.name == "dog_bark.safetensors"
    assert found.about == prototype.about
    assert np.array_equal(found.vector, prototype.vector)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_another_model_was_taught_is_refused(tmp_path: Path) -> None:
    path = taught.save(tmp_path, lesson(clips(0)).prototype)
    with pytest.raises(ScorerError, match=f"taught to the model {MODEL}, not to b{{16}}"):
        taught.read(path, model="b" * 16)
    assert taught.read(path, model=None).about.label == "dog_bark"


def test_a_file_that_is_something_else_is_refused_by_name(tmp_path: Path) -> None:
    path = taught.save(tmp_path, lesson(clips(0)).prototype)
    whole = path.read_bytes()
    other = path.rename(tmp_path / "cat.safetensors")
    with pytest.raises(ScorerError, match=r"cat.safetensors: holds 'dog_bark'"):
        taught.read(other, model=MODEL)
    for content in (b"", b"no safetensors", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ScorerError, match=r"dog_bark.safetensors: not a whole"):
            taught.read(path, model=MODEL)
    about = NormalSettings(source="cam", model=MODEL, threshold=1, n_learned=9, made="then")
    embedding_files.write(path, {"embeddings": background()}, about)
    with pytest.raises(ScorerError, match=r"dog_bark.safetensors: not of this kind"):
        taught.read(path, model=MODEL)
    with pytest.raises(ScorerError, match=r"nosuch.safetensors: cannot be read"):
        taught.read(tmp_path / "nosuch.safetensors", model=MODEL)


@pytest.mark.parametrize(
    "vector",
    [np.full(N_DIMS, np.nan, np.float32), np.zeros((2, N_DIMS), np.float32), None],
)
def test_a_prototype_of_no_numbers_is_refused(tmp_path: Path, vector: Floats | None) -> None:
    about: TaughtSettings = lesson(clips(0)).prototype.about
    arrays: dict[str, Floats] = {} if vector is None else {"prototype": vector}
    path = tmp_path / "dog_bark.safetensors"
    embedding_files.write(path, arrays, about)
    with pytest.raises(ScorerError, match="needs finite 32-bit floats 'prototype'"):
        taught.read(path, model=MODEL)


def test_a_folder_is_live(tmp_path: Path) -> None:
    folder = tmp_path / "taught"
    shelf = taught.taught_in(folder, model=MODEL)
    assert not shelf.taken
    assert not shelf.refresh()
    taught.save(folder, lesson(clips(0)).prototype)
    assert shelf.refresh()
    assert [one.about.label for one in shelf.taken] == ["dog_bark"]
    assert not shelf.refresh()
    taught.save(folder, lesson(clips(1)).prototype)
    assert shelf.refresh()
    assert shelf.taken[0].vector[1] > 0.9
    (folder / "dog_bark.safetensors").unlink()
    assert shelf.refresh()
    assert not shelf.taken


def test_what_cannot_be_used_is_passed_over_and_named(tmp_path: Path) -> None:
    taught.save(tmp_path, lesson(clips(0)).prototype)
    (tmp_path / "cat.safetensors").write_bytes(b"no")
    (tmp_path / ".half.safetensors.part").write_bytes(b"no")
    (tmp_path / "notes.txt").write_text("no")
    shelf = taught.taught_in(tmp_path, model=MODEL)
    assert [one.about.label for one in shelf.taken] == ["dog_bark"]
    assert len(shelf.problems) == 1
    assert "cat.safetensors" in shelf.problems[0]
    other = taught.taught_in(tmp_path, model="b" * 16)
    assert not other.taken
    assert any("teach it again" in problem for problem in other.problems)


def test_no_folder_holds_nothing() -> None:
    shelf = taught.taught_in(None, model=MODEL)
    assert not shelf.refresh()
    assert not shelf.taken
    assert not shelf.problems


def test_more_files_than_anybody_teaches_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_files, "MOST_FILES", 1)
    for label, axis in (("cat", 1), ("dog", 0)):
        taught.save(tmp_path, lesson(clips(axis), label).prototype)
    shelf = taught.taught_in(tmp_path, model=MODEL)
    assert [one.about.label for one in shelf.taken] == ["cat"]
    assert "only the first 1 files" in shelf.problems[0]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "dog_bark.safetensors").mkdir()
    with pytest.raises(ScorerError, match="cannot be written"):
        taught.save(tmp_path, lesson(clips(0)).prototype)
    assert os.listdir(tmp_path) == ["dog_bark.safetensors"]  # noqa: PTH208 - hidden ones, too
