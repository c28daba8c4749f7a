"""Claims about two digits, one seen and one heard, that are true or not, and how they are worded.

    the written digit and the spoken one add up to eleven        7 and "four": true
    what is heard does not match what is shown                   3 and "three": false

Where a net is tested, no pair of the three tells anything of the truth: what is claimed, what is
seen and what is heard are drawn together from chances under which any two of them are met as often
with a claim that is true as with one that is false. In training digits are drawn evenly among those
that make a claim true, or false: there two of the three tell a little (59 % at best), from which a
net finds its way to what only all three tell. From balanced chances it learned nothing in 130,000
examples (docs/log.md).

Claims of order ("the written digit is greater") are not among them: nine is rarely the smaller one.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

N_DIGITS: Final = 10
N_PARTS: Final = 4
"""One of so many combinations of words is never used in training."""
DENIED: Final = 0.2
"""Share of claims that are denied: a net that does not learn "not" is wrong as often."""

Kind = Literal["same", "sum", "seen more", "heard more", "parity"]

_NUMBERS: Final = (
    *("zero", "one", "two", "three", "four", "five"),
    *("six", "seven", "eight", "nine", "ten", "eleven"),
)
_SEEN: Final = (
    "the written digit",
    "the pictured digit",
    "what is written",
    "the number seen",
    "the drawn number",
    "the number shown",
    "what is pictured",
    "the paper figure",
)
_HEARD: Final = (
    "the spoken digit",
    "the recorded digit",
    "what is said",
    "the number heard",
    "the uttered number",
    "the number pronounced",
    "what is heard",
    "the voiced figure",
)


@dataclass(frozen=True, slots=True)
class Relation:
    """What is claimed of two digits."""

    kind: Kind
    number: int = 0
    """Their sum, or by how much one is more than the other."""

    def holds(self, seen: int, heard: int) -> bool:
        """Whether it is true of these."""
        match self.kind:
            case "same":
                return seen == heard
            case "sum":
                return seen + heard == self.number
            case "seen more":
                return seen - heard == self.number
            case "heard more":
                return heard - seen == self.number
            case "parity":
                return seen % 2 == heard % 2


RELATIONS: Final[dict[Kind, tuple[Relation, ...]]] = {
    "same": (Relation("same"),),
    "sum": tuple(Relation("sum", n) for n in range(7, 12)),
    "seen more": tuple(Relation("seen more", n) for n in range(1, 4)),
    "heard more": tuple(Relation("heard more", n) for n in range(1, 4)),
    "parity": (Relation("parity"),),
}


CLAIMS: Final = tuple(
    (relation, is_denied)
    for relations in RELATIONS.values()
    for relation in relations
    for is_denied in (False, True)
)
"""What may be claimed: a relation, affirmed or denied."""


@dataclass(frozen=True, slots=True)
class _Wording:
    affirmed: str
    denied: str


_WORDINGS: Final[dict[Kind, tuple[_Wording, ...]]] = {
    "same": (
        _Wording("{seen} equals {heard}", "{seen} does not equal {heard}"),
        _Wording("{heard} matches {seen}", "{heard} does not match {seen}"),
        _Wording("{seen} and {heard} agree", "{seen} and {heard} disagree"),
        _Wording("{heard} is the same as {seen}", "{heard} is another than {seen}"),
    ),
    "sum": (
        _Wording("{seen} plus {heard} makes {n}", "{seen} plus {heard} does not make {n}"),
        _Wording("{heard} and {seen} add up to {n}", "{heard} and {seen} do not add up to {n}"),
        _Wording("adding {seen} to {heard} gives {n}", "adding {seen} to {heard} never gives {n}"),
        _Wording(
            "the sum of {heard} and {seen} is {n}", "the sum of {heard} and {seen} is not {n}"
        ),
    ),
    "seen more": (
        _Wording("{seen} is {n} more than {heard}", "{seen} is not {n} more than {heard}"),
        _Wording("{heard} is {n} less than {seen}", "{heard} is not {n} less than {seen}"),
        _Wording("{seen} exceeds {heard} by {n}", "{seen} does not exceed {heard} by {n}"),
    ),
    "heard more": (
        _Wording("{heard} is {n} more than {seen}", "{heard} is not {n} more than {seen}"),
        _Wording("{seen} is {n} less than {heard}", "{seen} is not {n} less than {heard}"),
        _Wording("{heard} exceeds {seen} by {n}", "{heard} does not exceed {seen} by {n}"),
    ),
    "parity": (
        _Wording(
            "{seen} and {heard} are both odd or both even",
            "of {seen} and {heard} one is odd and one even",
        ),
        _Wording("{heard} plus {seen} is an even number", "{heard} plus {seen} is an odd number"),
    ),
}


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim, the digits that it is made of, and whether it is true of them."""

    relation: Relation
    is_denied: bool
    seen: int
    heard: int
    text: str

    @property
    def is_true(self) -> bool:
        """Whether what the text says is so."""
        return self.relation.holds(self.seen, self.heard) != self.is_denied


def draw(rng: np.random.Generator, *, is_training: bool) -> Claim:
    """One claim.

    In training one of `N_PARTS` combinations of a wording with names for both digits is left out;
    each wording and each name is met, with others.
    """
    table = even_chances() if is_training else balanced_chances()
    place = np.searchsorted(_risen(is_training=is_training), rng.random(), side="right")
    _, claim, seen, heard = (int(axis) for axis in np.unravel_index(place, table.shape))
    relation, is_denied = CLAIMS[claim]
    text = _worded(relation, rng, is_denied=is_denied, is_training=is_training)
    return Claim(relation, is_denied, seen, heard, text)


@cache
def even_chances() -> NDArray[np.float64]:
    """[false or true, `CLAIMS`, 10 seen, 10 heard]: how often each is drawn; the sum is 1.

    Each kind is as frequent as any other, and so is each of its numbers; `DENIED` of each is
    denied; half is true.
    """
    true = np.array(
        [
            [
                [relation.holds(seen, heard) != is_denied for heard in range(N_DIGITS)]
                for seen in range(N_DIGITS)
            ]
            for relation, is_denied in CLAIMS
        ]
    )
    weights = np.array(
        [
            (DENIED if is_denied else 1 - DENIED) / len(RELATIONS) / len(RELATIONS[relation.kind])
            for relation, is_denied in CLAIMS
        ]
    )
    each: NDArray[np.float64] = np.stack((~true, true)).astype(np.float64)
    each *= weights[:, None, None] / each.sum((2, 3), keepdims=True) / 2
    return each


@cache
def balanced_chances() -> NDArray[np.float64]:
    """[false or true, `CLAIMS`, 10 seen, 10 heard]: the like, and any two tell nothing.

    Summed over any one of the last three axes, it is the same for both truths: fitted by turns,
    as in iterative proportional fitting (Deming and Stephan 1940).
    """
    fitted = even_chances().copy()
    weights = fitted.sum((0, 2, 3))
    for _ in range(_N_FITTINGS):
        for axis in (3, 2, 1):
            sums = fitted.sum(axis, keepdims=True)
            wanted = np.sqrt(sums.prod(axis=0, keepdims=True))
            fitted *= wanted / np.maximum(sums, _TINY)
        fitted *= (weights / fitted.sum((0, 2, 3)))[:, None, None]
    return fitted


_N_FITTINGS: Final = 200
_TINY: Final = 1e-12


@cache
def _risen(*, is_training: bool) -> NDArray[np.float64]:
    risen = (even_chances() if is_training else balanced_chances()).cumsum()
    risen /= risen[-1]
    return risen


def _worded(
    relation: Relation, rng: np.random.Generator, *, is_denied: bool, is_training: bool
) -> str:
    wordings = _WORDINGS[relation.kind]
    while True:
        wording = int(rng.integers(len(wordings)))
        seen, heard = (int(name) for name in rng.integers(len(_SEEN), size=2))
        if not (is_training and (wording + seen + heard) % N_PARTS == 0):
            break
    form = wordings[wording].denied if is_denied else wordings[wording].affirmed
    return form.format(seen=_SEEN[seen], heard=_HEARD[heard], n=_NUMBERS[relation.number])
