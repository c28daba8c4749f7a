"""Claims: true as often as not, and no pair of modalities tells which."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable

import numpy as np
import pytest
from numpy.typing import NDArray

from mmstream.training.claims import (
    CLAIMS,
    N_DIGITS,
    RELATIONS,
    Claim,
    balanced_chances,
    draw,
    even_chances,
)


def drawn(n: int, *, seed: int, is_training: bool) -> list[Claim]:
    rng = np.random.default_rng(seed)
    return [draw(rng, is_training=is_training) for _ in range(n)]


def accuracy(
    known: Callable[[Claim], Hashable], train: list[Claim], test: list[Claim]
) -> tuple[float, float]:
    """Of saying what was true most often where `known` was the same, and 4 standard errors."""
    votes: defaultdict[Hashable, Counter[bool]] = defaultdict(Counter)
    for claim in train:
        votes[known(claim)][claim.is_true] += 1
    told = [claim for claim in test if known(claim) in votes]
    right = [votes[known(claim)].most_common(1)[0][0] == claim.is_true for claim in told]
    assert len(told) > 0.9 * len(test)
    return sum(right) / len(told), 4 * 0.5 / len(told) ** 0.5


@pytest.mark.parametrize("chances", [even_chances(), balanced_chances()])
def test_claims_are_as_often_true_as_false(chances: NDArray[np.float64]) -> None:
    false, true = chances
    assert chances.sum() == pytest.approx(1)
    assert true.sum(axis=(1, 2)) == pytest.approx(false.sum(axis=(1, 2)), abs=1e-9)
    for nth, (relation, is_denied) in enumerate(CLAIMS):
        for truth, chance in ((False, false[nth]), (True, true[nth])):
            met = np.argwhere(chance > 0).tolist()
            assert {relation.holds(*pair) != is_denied for pair in met} == {truth}


def test_any_two_are_met_as_often_with_true_claims_as_with_false() -> None:
    false, true = balanced_chances()
    for unknown in range(3):
        assert true.sum(axis=unknown) == pytest.approx(false.sum(axis=unknown), abs=1e-9)


def test_in_training_two_tell_a_little() -> None:
    best = [even_chances().sum(axis=unknown).max(axis=0).sum() for unknown in (1, 2, 3)]
    assert best == pytest.approx([0.588, 0.556, 0.556], abs=0.001)


@pytest.mark.parametrize("is_training", [False, True])
def test_no_pair_tells_the_truth_by_counting_and_all_three_do(*, is_training: bool) -> None:
    known = drawn(20_000, seed=1, is_training=is_training)
    test = drawn(10_000, seed=2, is_training=False)
    pairs: dict[str, Callable[[Claim], Hashable]] = {
        "sight and sound": lambda claim: (claim.seen, claim.heard),
        "sight and words": lambda claim: (claim.relation, claim.is_denied, claim.seen),
        "sound and words": lambda claim: (claim.relation, claim.is_denied, claim.heard),
    }
    for name, pair in pairs.items():
        found, error = accuracy(pair, known, test)
        assert found == pytest.approx(0.5, abs=error), name
    found, _ = accuracy(
        lambda claim: (claim.relation, claim.is_denied, claim.seen, claim.heard), known, test
    )
    assert found == 1.0


def test_digits_and_kinds_are_all_met() -> None:
    claims = drawn(7_000, seed=3, is_training=True)
    kinds = Counter(claim.relation.kind for claim in claims)
    assert set(kinds) == set(RELATIONS)
    assert min(kinds.values()) > 0.9 * 1_400
    cells = Counter((claim.seen, claim.heard) for claim in claims)
    assert len(cells) == N_DIGITS**2
    assert 0.45 < sum(claim.is_true for claim in claims) / len(claims) < 0.55


SEEN = (
    "the written digit|the pictured digit|what is written|the number seen|"
    "the drawn number|the number shown|what is pictured|the paper figure"
)
HEARD = (
    "the spoken digit|the recorded digit|what is said|the number heard|"
    "the uttered number|the number pronounced|what is heard|the voiced figure"
)
NUMBER = "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven"
MEANINGS: dict[str, Callable[[int, int, int], bool]] = {
    "S equals H": lambda s, h, _: s == h,
    "S does not equal H": lambda s, h, _: s != h,
    "H matches S": lambda s, h, _: s == h,
    "H does not match S": lambda s, h, _: s != h,
    "S and H agree": lambda s, h, _: s == h,
    "S and H disagree": lambda s, h, _: s != h,
    "H is the same as S": lambda s, h, _: s == h,
    "H is another than S": lambda s, h, _: s != h,
    "S plus H makes N": lambda s, h, n: s + h == n,
    "S plus H does not make N": lambda s, h, n: s + h != n,
    "H and S add up to N": lambda s, h, n: s + h == n,
    "H and S do not add up to N": lambda s, h, n: s + h != n,
    "adding S to H gives N": lambda s, h, n: s + h == n,
    "adding S to H never gives N": lambda s, h, n: s + h != n,
    "the sum of H and S is N": lambda s, h, n: s + h == n,
    "the sum of H and S is not N": lambda s, h, n: s + h != n,
    "S is N more than H": lambda s, h, n: s == h + n,
    "S is not N more than H": lambda s, h, n: s != h + n,
    "H is N less than S": lambda s, h, n: s == h + n,
    "H is not N less than S": lambda s, h, n: s != h + n,
    "S exceeds H by N": lambda s, h, n: s == h + n,
    "S does not exceed H by N": lambda s, h, n: s != h + n,
    "H is N more than S": lambda s, h, n: h == s + n,
    "H is not N more than S": lambda s, h, n: h != s + n,
    "S is N less than H": lambda s, h, n: h == s + n,
    "S is not N less than H": lambda s, h, n: h != s + n,
    "H exceeds S by N": lambda s, h, n: h == s + n,
    "H does not exceed S by N": lambda s, h, n: h != s + n,
    "S and H are both odd or both even": lambda s, h, _: (s + h) % 2 == 0,
    "of S and H one is odd and one even": lambda s, h, _: (s + h) % 2 == 1,
    "H plus S is an even number": lambda s, h, _: (s + h) % 2 == 0,
    "H plus S is an odd number": lambda s, h, _: (s + h) % 2 == 1,
}


def test_texts_mean_what_is_true() -> None:
    read = set()
    for claim in drawn(10_000, seed=4, is_training=False):
        form = re.sub(SEEN, "S", claim.text, count=1)
        form = re.sub(HEARD, "H", form, count=1)
        number = 0
        if form not in MEANINGS:
            word = re.findall(rf"\b({NUMBER})\b", form)[-1]
            number = NUMBER.split("|").index(word)
            form = "N".join(re.split(rf"\b{word}\b(?!.*\b{word}\b)", form))
        assert MEANINGS[form](claim.seen, claim.heard, number) == claim.is_true, claim
        read.add(form)
    assert read == set(MEANINGS)


def test_a_quarter_is_worded_as_never_in_training_with_words_known_from_it() -> None:
    def form(claim: Claim) -> str:
        return re.sub(rf"\b({NUMBER})\b", "N", claim.text)

    train = drawn(40_000, seed=5, is_training=True)
    test = drawn(2_000, seed=6, is_training=False)
    known = {form(claim) for claim in train}
    assert 0.2 < sum(form(claim) not in known for claim in test) / len(test) < 0.3
    words = {word for claim in train for word in claim.text.split()}
    assert {word for claim in test for word in claim.text.split()} <= words
