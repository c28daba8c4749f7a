"""Soon back after a short outage, once a minute in a long one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.media import secs_to_ns
from mmstream.runtime.backoff import MAX_RETRY_SECS, SOON_SECS, Backoff


@pytest.fixture
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, high: high)


def pauses(backoff: Backoff, n: int, *, from_ns: int = 0) -> list[float]:
    """Each attempt fails at once."""
    now_ns, got = from_ns, []
    for _ in range(n):
        got.append(backoff.pause_secs(now_ns))
        now_ns += secs_to_ns(got[-1])
    return got


@pytest.mark.usefixtures("_no_jitter")
def test_pauses_double_then_stay_short_then_grow_with_the_outage_to_a_minute() -> None:
    got = pauses(Backoff(), 60)
    assert got[:8] == [0.5, 1, 2, 4, 4, 4, 4, 4]
    assert got[-1] == MAX_RETRY_SECS
    assert got == sorted(got)


@given(st.integers(1, 80), st.randoms(use_true_random=False))
def test_a_pause_is_never_longer_than_a_tenth_of_the_outage_unless_short(
    n: int, rng: random.Random
) -> None:
    backoff, out_secs = Backoff(), 0.0
    for _ in range(n):
        pause = backoff.pause_secs(secs_to_ns(out_secs))
        assert 0.25 <= pause <= min(MAX_RETRY_SECS, max(SOON_SECS, out_secs / 10) + 1e-6)
        out_secs += pause + rng.uniform(0, 20)  # an attempt may hang


@pytest.mark.usefixtures("_no_jitter")
@pytest.mark.parametrize(("streamed_secs", "first_secs"), [(4.9, 4.0), (5.0, 0.5)])
def test_what_streamed_for_a_while_is_tried_again_soon(
    streamed_secs: float, first_secs: float
) -> None:
    backoff = Backoff()
    pauses(backoff, 5)
    backoff.see(secs_to_ns(12))
    backoff.see(secs_to_ns(12 + streamed_secs))
    assert backoff.pause_secs(secs_to_ns(18)) == first_secs


@pytest.mark.usefixtures("_no_jitter")
def test_items_of_two_attempts_are_no_long_stream() -> None:
    backoff = Backoff()
    for now_secs in range(0, 60, 2):  # up for a moment, every 2 s
        backoff.see(secs_to_ns(now_secs))
        pause = backoff.pause_secs(secs_to_ns(now_secs + 1))
    assert pause == 5.8  # a tenth of the outage, which has never been over
