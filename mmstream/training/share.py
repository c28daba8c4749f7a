"""Learning from some of the examples only, as where labels are few."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmstream.training.dataset import Item

if TYPE_CHECKING:
    from mmstream.training.manifest import Label


def share_of(items: Sequence[Item], share: float, *, seed: int) -> tuple[Item, ...]:
    """That share of `items`, in their order: of each class, and of each of its groups.

    Of a class of n examples max(1, round(share * n)) are kept; of those that are in one group as
    many as of the others, give or take one. Examples with the same labels are a class.

    Args:
        items: what there is.
        share: above 0, at most 1.
        seed: of what is drawn.
    """
    by_class: defaultdict[tuple[Label, ...], list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        by_class[item.annotation.labels].append(place)
    rng = np.random.default_rng(seed)
    kept: list[int] = []
    for labels in sorted(by_class):
        order = _by_group(items, by_class[labels], rng)
        n_kept = max(1, round(share * len(order)))
        # Evenly spaced in an order by groups: each group is met as often as it is large.
        kept += [order[(2 * nth + 1) * len(order) // (2 * n_kept)] for nth in range(n_kept)]
    return tuple(items[place] for place in sorted(kept))


def _by_group(items: Sequence[Item], places: Sequence[int], rng: np.random.Generator) -> list[int]:
    """`places`, shuffled, but those of one group beside each other."""
    groups = sorted({items[place].annotation.group for place in places})
    ranks = dict(zip(groups, rng.permutation(len(groups)).tolist(), strict=True))
    shuffled: list[int] = rng.permutation(places).tolist()
    return sorted(shuffled, key=lambda place: ranks[items[place].annotation.group])
