import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmstream.errors import ScorerError
from mmstream.media import Hop, Series, Span, samples_to_ns
from mmstream.recognition.utterances import (
    N_WINDOW,
    CuttingRules,
    Utterance,
    UtteranceCutter,
)

RATE_HZ = 16_000
RULES = CuttingRules(soft_secs=3, hard_secs=5)
"""Short, so that laws meet the limits too."""

Probabilities = Sequence[float | None]


def windows(*parts: tuple[float | None, float]) -> list[float | None]:
    """Probabilities, each for some seconds."""
    return [p for p, secs in parts for _ in range(round(secs * RATE_HZ / N_WINDOW))]


def cut(probabilities: Probabilities, ends: Sequence[int], lost: frozenset[int]) -> list[Hop]:
    """Hops that end at these samples; each sample says its own number."""
    n = len(probabilities) * N_WINDOW
    edges = [0, *sorted({end for end in ends if 0 < end < n}), n]
    hops = []
    for index, (start, end) in enumerate(itertools.pairwise(edges)):
        span = Span(samples_to_ns(start, RATE_HZ), samples_to_ns(end, RATE_HZ))
        numbers = np.arange(start, end)
        heard = ~np.isin(numbers, list(lost))
        hops.append(Hop("mic", index, span, RATE_HZ, numbers.astype(np.float32), heard, ()))
    return hops


def speech_of(hop: Hop, probabilities: Probabilities) -> Series | None:
    """What Silero would say: of windows completed in this hop that were heard and scored."""
    start, end = (round(at * RATE_HZ / 1e9) for at in (hop.span.start_ns, hop.span.end_ns))
    done = range(start // N_WINDOW, end // N_WINDOW)
    scored = [(n, p) for n in done if (p := probabilities[n]) is not None]
    if not scored:
        return None
    at_ns = np.array([samples_to_ns(n * N_WINDOW, RATE_HZ) for n, _ in scored], np.int64)
    return Series(at_ns, np.array([p for _, p in scored], np.float32))


def run(
    probabilities: Probabilities,
    ends: Sequence[int] = (),
    lost: frozenset[int] = frozenset(),
    rules: CuttingRules = RULES,
) -> list[Utterance]:
    cutter = UtteranceCutter(rules)
    said: list[Utterance] = []
    silent = {number // N_WINDOW for number in lost}
    known = [None if n in silent else p for n, p in enumerate(probabilities)]
    for hop in cut(probabilities, ends, lost):
        said.extend(cutter.push(hop, speech_of(hop, known)))
    return [*said, *cutter.flush()]


def numbers(utterance: Utterance) -> list[int]:
    return [round(sample) for sample in utterance.samples.tolist()]


def ended(said: Sequence[Utterance]) -> list[tuple[int, list[int]]]:
    return [(one.number, numbers(one)) for one in said if one.is_last]


def spans(said: Sequence[Utterance]) -> list[tuple[float, float]]:
    """Starts and ends in seconds, of those that ended."""
    found = [numbers(one) for one in said if one.is_last]
    return [(round(one[0] / RATE_HZ, 3), round((one[-1] + 1) / RATE_HZ, 3)) for one in found]


levels = st.sampled_from([None, 0.0, 0.2, 0.4, 0.6, 0.95])
talk = st.lists(st.tuples(levels, st.integers(1, 60)), max_size=12).map(
    lambda parts: [p for p, n in parts for _ in range(n)]
)
edges = st.lists(st.integers(1, 12 * 60 * N_WINDOW), max_size=12)
losses = st.lists(st.tuples(st.integers(0, 300 * N_WINDOW), st.integers(1, 3000)), max_size=2).map(
    lambda parts: frozenset(n for start, length in parts for n in range(start, start + length))
)


@given(talk, edges, losses)
@example([0.95] * 200, [5000, 5001, 70_000], frozenset())
def test_how_sound_is_cut_into_hops_changes_nothing(
    probabilities: Probabilities, ends: Sequence[int], lost: frozenset[int]
) -> None:
    assert ended(run(probabilities, ends, lost)) == ended(run(probabilities, (), lost))


@given(talk, edges, losses)
def test_an_utterance_only_grows(
    probabilities: Probabilities, ends: Sequence[int], lost: frozenset[int]
) -> None:
    before: dict[int, Utterance] = {}
    for one in run(probabilities, ends, lost):
        known = before.get(one.number)
        if known is not None:
            assert not known.is_last
            assert one.start_ns == known.start_ns
            assert numbers(one)[: known.samples.size] == numbers(known)
        before[one.number] = one
    assert list(before) == list(range(len(before)))
    assert all(one.is_last for one in before.values())


@given(talk, edges, losses)
@example([0.95] * 130 + [0.0] * 8 + [0.95] * 20, [], frozenset())
def test_all_speech_is_in_one_utterance(
    probabilities: Probabilities, ends: Sequence[int], lost: frozenset[int]
) -> None:
    found = [number for _, part in ended(run(probabilities, ends, lost)) for number in part]
    assert found == sorted(set(found))
    assert not lost & set(found)
    silent = {number // N_WINDOW for number in lost}
    loud = [n not in silent and p is not None and p >= 0.5 for n, p in enumerate(probabilities)]
    taken = set(found)
    for n in range(len(loud) - 4):
        if all(loud[n : n + 5]):  # a whole word at least
            assert set(range(n * N_WINDOW, (n + 5) * N_WINDOW)) <= taken


@given(talk, edges, losses)
def test_none_is_longer_than_the_hard_limit(
    probabilities: Probabilities, ends: Sequence[int], lost: frozenset[int]
) -> None:
    n_most = RULES.hard_secs * RATE_HZ + N_WINDOW
    assert all(len(part) <= n_most for _, part in ended(run(probabilities, ends, lost)))


@given(talk, edges, st.integers(0, 12))
def test_what_is_said_rests_on_the_past_only(
    probabilities: Probabilities, ends: Sequence[int], n_hops: int
) -> None:
    hops = cut(probabilities, ends, frozenset())
    first, whole = UtteranceCutter(RULES), UtteranceCutter(RULES)
    early = [first.push(hop, speech_of(hop, probabilities)) for hop in hops[:n_hops]]
    late = [whole.push(hop, speech_of(hop, probabilities)) for hop in hops]
    for one, two in zip(early, late, strict=False):
        assert [(u.number, u.is_last, numbers(u)) for u in one] == [
            (u.number, u.is_last, numbers(u)) for u in two
        ]


def test_a_sentence_has_its_pre_roll_and_a_little_of_the_pause() -> None:
    said = run(windows((0, 0.96), (0.9, 1.28), (0, 1.6)))
    assert spans(said) == [(0.66, 2.44)]
    assert said[-1].speech == pytest.approx(0.9)


def test_a_pause_of_half_a_second_ends_it_and_a_shorter_one_does_not() -> None:
    assert len(spans(run(windows((0.9, 0.96), (0.1, 0.448), (0.9, 0.96))))) == 1
    assert len(spans(run(windows((0.9, 0.96), (0.1, 0.544), (0.9, 0.96))))) == 2


def test_hesitation_between_both_thresholds_is_no_pause() -> None:
    assert len(spans(run(windows((0.9, 0.96), (0.4, 0.96), (0.9, 0.96))))) == 1


def test_a_blip_is_passed_over() -> None:
    assert run(windows((0, 1), (0.9, 0.096), (0, 1))) == []


def test_a_blip_just_before_a_word_belongs_to_it() -> None:
    said = run(windows((0, 0.96), (0.9, 0.064), (0, 0.32), (0.9, 0.64), (0, 1)))
    assert spans(said) == [(0.66, 2.184)]


def test_long_speech_is_cut_at_a_shorter_pause() -> None:
    said = run(windows((0.9, 4.0), (0.1, 0.16), (0.9, 0.64), (0, 1)))
    assert len(spans(said)) == 2
    assert 4.0 < spans(said)[0][1] < 4.17


def test_speech_without_a_pause_is_cut_and_nothing_is_lost() -> None:
    said = run(windows((0.9, 5.024 + 0.064), (0, 1)))
    (_, first), (second, end) = spans(said)
    assert first == second == 5.024
    assert end == 5.288


def test_missing_sound_ends_an_utterance_where_it_is_missing() -> None:
    lost = frozenset(range(16_100, 16_200))
    said = run(windows((0.9, 2.048)), lost=lost)
    assert spans(said) == [(0, 1.006), (1.012, 2.048)]


def test_sound_that_was_not_scored_belongs_to_the_utterance_that_goes_on() -> None:
    assert spans(run(windows((0.9, 0.96), (None, 0.96), (0.9, 0.32)))) == [(0, 2.24)]
    assert run(windows((None, 2.56))) == []


def test_a_gap_ends_an_utterance() -> None:
    probabilities = windows((0.9, 2.048))
    hops = cut(probabilities, [16_384], frozenset())
    second = Hop(
        "mic", 9, hops[1].span, RATE_HZ, hops[1].samples, hops[1].heard, (), gap_before=True
    )
    cutter = UtteranceCutter(RULES)
    said = [u for hop in (hops[0], second) for u in cutter.push(hop, speech_of(hop, probabilities))]
    assert spans(said) == [(0, 1.024)]
    assert spans(cutter.flush()) == [(1.024, 2.048)]


def test_a_hop_without_sound_ends_an_utterance() -> None:
    probabilities = windows((0.9, 0.96))
    (hop,) = cut(probabilities, (), frozenset())
    cutter = UtteranceCutter(RULES)
    cutter.push(hop, speech_of(hop, probabilities))
    none = Hop(
        "mic",
        1,
        Span(hop.span.end_ns, 10**9),
        RATE_HZ,
        np.zeros(0, np.float32),
        np.zeros(0, np.bool_),
        (),
    )
    assert spans(cutter.push(none, None)) == [(0, 0.96)]


def test_what_it_holds_is_bounded() -> None:
    cutter = UtteranceCutter(CuttingRules())
    probabilities = windows((0.0, 20), (0.9, 60))
    for hop in cut(probabilities, range(0, 80 * RATE_HZ, 4000), frozenset()):
        cutter.push(hop, speech_of(hop, probabilities))
        assert cutter._samples.size <= 20.5 * RATE_HZ  # noqa: SLF001 - nothing else shows it


def test_another_rate_is_refused() -> None:
    hop = Hop("mic", 0, Span(0, 10**9), 8000, np.zeros(8000, np.float32), np.ones(8000, bool), ())
    with pytest.raises(ScorerError, match="at 16000 Hz only: got 8000 Hz from mic"):
        UtteranceCutter(RULES).push(hop, None)


def test_limits_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"self\.soft_secs=9"):
        CuttingRules(soft_secs=9, hard_secs=5)
