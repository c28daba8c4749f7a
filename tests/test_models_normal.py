"""What is normal is kept in bounded memory, and how far is unusual follows from it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.errors import ScorerError
from mmstream.media import Floats
from mmstream.models import normal
from mmstream.models.normal import Normal, NormalLearner, coreset

N_DIMS = 8
MODEL = "a" * 16


def walk(n: int, *, seed: int = 0, step: float = 0.02, centre: int = 0) -> Floats:
    """Unit vectors around an axis, each near to the one before, [n, d]."""
    rng = np.random.default_rng(seed)
    at = np.zeros(N_DIMS)
    found = []
    for _ in range(n):
        at = 0.9 * at + step * rng.standard_normal(N_DIMS)
        found.append(np.eye(N_DIMS)[centre] + at)
    values = np.stack(found)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def learned(values: Floats, source: str = "cam") -> Normal:
    learner = NormalLearner()
    for one in values:
        learner.add(one)
    return learner.result(source, model=MODEL, made="then")


def test_more_of_the_same_is_usual_and_something_else_is_not() -> None:
    found = learned(walk(400))
    usual = [found.score(one) for one in walk(400, seed=5)]
    assert np.mean(np.array(usual) < 0.5) > 0.97
    assert min(found.score(one) for one in walk(50, centre=1)) > 0.9


def test_the_score_is_a_half_at_the_threshold_and_rises_with_distance() -> None:
    about = learned(walk(40)).about.model_copy(update={"threshold": 0.5})
    one = Normal(about, np.eye(N_DIMS, dtype=np.float32)[:1])
    angles = [0, 0.4, 2 * np.arcsin(0.25), 0.8, 3]
    seen = [np.array([np.cos(a), np.sin(a), *[0] * (N_DIMS - 2)], np.float32) for a in angles]
    scores = [one.score(each) for each in seen]
    assert scores == sorted(scores)
    assert scores[0] == 0
    assert scores[2] == pytest.approx(0.5, abs=1e-4)
    assert 0.99 < scores[-1] <= 1


def test_neighbours_in_time_do_not_make_the_threshold() -> None:
    """What drifts is near to what was just before, and far from what was long ago."""
    angles = np.linspace(0, 1, 256)
    drift = np.zeros((256, N_DIMS), np.float32)
    drift[:, 0], drift[:, 1] = np.cos(angles), np.sin(angles)
    assert learned(drift).about.threshold > 50 * (angles[1] - angles[0])  # a block is 32


@pytest.mark.parametrize("n", [40, 64, 65, 300, 5000])
def test_memory_is_bounded_however_long_it_lasts(n: int) -> None:
    learner = NormalLearner()
    n_most = 0
    for one in walk(n, step=0.2):
        learner.add(one)
        held = [len(block.kept) + len(block.drawn) for block in learner._blocks]  # noqa: SLF001 - what it holds
        n_most = max(n_most, sum(held))
    assert n_most <= 8 * 128
    found = learner.result("cam", model=MODEL, made="then")
    assert len(found.embeddings) <= normal.MOST_KEPT
    assert found.about.n_learned == n


def test_what_was_seen_early_in_a_long_time_is_still_known() -> None:
    rare = walk(20, centre=3)
    found = learned(np.concatenate((rare, walk(4000))))
    assert max(found.score(one) for one in rare) < 0.5


def test_a_scene_that_never_changes_has_a_threshold_all_the_same() -> None:
    still = np.repeat(walk(1), 64, axis=0)
    found = learned(still)
    assert found.about.threshold > 0
    assert found.score(still[0]) < 0.5


def test_the_same_is_learned_from_the_same() -> None:
    one, two = learned(walk(1000)), learned(walk(1000))
    assert one.about == two.about
    assert np.array_equal(one.embeddings, two.embeddings)


def test_too_little_is_refused() -> None:
    with pytest.raises(ScorerError, match=r"cam: 23 windows are too few.*24 and more"):
        learned(walk(23))
    assert learned(walk(24)).about.n_learned == 24


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(N_DIMS + 1, np.float32), np.full(N_DIMS, np.nan, np.float32), walk(2)],
)
def test_embeddings_that_do_not_fit_are_refused(wrong: Floats) -> None:
    learner = NormalLearner()
    learner.add(walk(1)[0])
    with pytest.raises(ScorerError, match="embeddings are"):
        learner.add(wrong)


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 9))
def test_nothing_is_far_from_the_coreset(n: int, n_most: int, seed: int) -> None:
    """Greedy k-centre: at most twice as far as the best choice, so at most the spread of k + 1."""
    values = walk(n, seed=seed, step=0.5)
    kept = coreset(values, n_most)
    assert len(kept) == min(n, n_most)
    apart = np.linalg.norm(kept[:, None] - kept, axis=2)
    nearest = np.linalg.norm(values[:, None] - kept, axis=2).min(axis=1)
    if n > n_most > 1:
        assert nearest.max() <= apart[~np.eye(len(kept), dtype=bool)].min() + 1e-5
    if n <= n_most:
        assert nearest.max() == 0


def test_it_is_read_as_it_was_saved(tmp_path: Path) -> None:
    found = learned(walk(100), "front-door")
    path = normal.save(tmp_path, found)
    read = normal.read(path, model=MODEL)
    assert path.name == "front-door.safetensors"
    assert read.about == found.about
    assert np.array_equal(read.embeddings, found.embeddings)
    with pytest.raises(ScorerError, match=f"front-door was learned with the model {MODEL}, not"):
        normal.read(path, model="b" * 16)
    other = path.rename(tmp_path / "back.safetensors")
    with pytest.raises(ScorerError, match=r"back.safetensors: holds 'front-door'"):
        normal.read(other, model=MODEL)


def test_a_folder_is_live_and_known_by_source(tmp_path: Path) -> None:
    shelf = normal.normal_in(tmp_path, model=MODEL)
    normal.save(tmp_path, learned(walk(100), "one"))
    normal.save(tmp_path, learned(walk(100, centre=1), "two"))
    assert shelf.refresh()
    known = normal.by_source(shelf.taken)
    assert known["one"].score(walk(1)[0]) < 0.5 < known["two"].score(walk(1)[0])
