"""A share of the examples has all classes and groups as the whole has them."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mmstream.training.dataset import Item
from mmstream.training.manifest import Annotation, Label
from mmstream.training.share import share_of


def item(nth: int, digit: str, group: str) -> Item:
    return Item(str(nth), Annotation("train", (Label("digit", digit),), group=group))


def digit_of(one: Item) -> str | None:
    return one.annotation.class_of("digit")


SOME = st.lists(st.tuples(st.sampled_from("012"), st.sampled_from("abcd")), max_size=60).map(
    lambda told: [item(nth, *one) for nth, one in enumerate(told)]
)


@given(items=SOME, share=st.floats(0.01, 1), seed=st.integers(0, 9))
def test_every_class_and_group_gives_its_share(items: list[Item], share: float, seed: int) -> None:
    some = share_of(items, share, seed=seed)
    places = [int(one.key) for one in some]
    assert places == sorted(set(places))
    whole, kept = Counter(map(digit_of, items)), Counter(map(digit_of, some))
    assert kept == {name: max(1, round(share * n)) for name, n in whole.items()}
    in_group = Counter((digit_of(one), one.annotation.group) for one in items)
    of_group = Counter((digit_of(one), one.annotation.group) for one in some)
    for (digit, group), n in in_group.items():
        expected = n * kept[digit] / whole[digit]
        assert abs(of_group[digit, group] - expected) <= 1


def test_the_seed_draws_them() -> None:
    items = [item(nth, "0", str(nth)) for nth in range(40)]
    assert share_of(items, 1, seed=0) == tuple(items)
    drawn = [share_of(items, 0.25, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    often = Counter(one.key for seed in range(200) for one in share_of(items, 0.25, seed=seed))
    assert len(often) == 40  # none is never drawn, none always
    assert max(often.values()) < 90
