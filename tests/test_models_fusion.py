from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from mmstream.errors import ScorerError
from mmstream.media import Modality
from mmstream.models.fusion import (
    ConcatSettings,
    DeepSettings,
    Fused,
    Fusion,
    WeightedSettings,
    build_fusion,
    kept_modalities,
)
from mmstream.models.tokens import Tokens

_ALL: tuple[Modality, ...] = ("audio", "video", "text")
_KINDS: dict[str, ConcatSettings | WeightedSettings | DeepSettings] = {
    "concat": ConcatSettings(modalities=_ALL, n_dims=8, drop_modality=0.5),
    "weighted": WeightedSettings(modalities=_ALL, n_dims=8, drop_modality=0.5),
    "deep": DeepSettings(modalities=_ALL, n_dims=8, drop_modality=0.5, n_layers=2, n_heads=2),
    "bottleneck": DeepSettings(
        modalities=_ALL, n_dims=8, drop_modality=0.5, n_layers=3, n_heads=2, n_bottleneck=2
    ),
}
_N = 3  # examples in a batch

_kinds = pytest.mark.parametrize("kind", sorted(_KINDS))
_batches = st.fixed_dictionaries(
    {name: st.integers(0, 5).flatmap(lambda t: _rows(t)) for name in _ALL}  # noqa: PLW0108 - defined below
)


def _rows(t: int) -> st.SearchStrategy[list[list[bool]]]:
    row = st.lists(st.booleans(), min_size=t, max_size=t)
    return st.lists(row, min_size=_N, max_size=_N)


def _fusion(kind: str) -> Fusion:
    torch.manual_seed(0)
    fusion = build_fusion(_KINDS[kind]).eval()
    for weights in fusion.parameters():
        torch.nn.init.normal_(weights, std=0.3)  # what begins at 0 or near it must count too
    return fusion


def _tokens(present: Mapping[Modality, list[list[bool]]]) -> dict[Modality, Tokens]:
    generator = torch.Generator().manual_seed(1)
    made: dict[Modality, Tokens] = {}
    for name, rows in present.items():
        there = torch.tensor(rows, dtype=torch.bool).reshape(_N, -1)
        values = torch.randn(*there.shape, 8, generator=generator)
        at_secs = torch.rand(there.shape, generator=generator) * 2
        made[name] = Tokens(values, there, at_secs * (torch.nan if name == "text" else 1))
    return made


def _close(one: Fused, other: Fused) -> None:
    torch.testing.assert_close(one.embedding, other.embedding, atol=1e-5, rtol=1e-4)
    assert (one.gates is None) == (other.gates is None)
    if one.gates is not None and other.gates is not None:
        torch.testing.assert_close(one.gates, other.gates, atol=1e-5, rtol=1e-4)


def _with_rubbish(tokens: Tokens, rubbish: float) -> Tokens:
    """What is not present is `rubbish`, and two more such tokens follow."""
    more = (_N, 2)
    there = torch.cat((tokens.present, torch.zeros(more, dtype=torch.bool)), dim=1)
    values = torch.cat((tokens.values, torch.zeros(*more, 8)), dim=1)
    at_secs = torch.cat((tokens.at_secs, torch.zeros(more)), dim=1)
    return Tokens(
        values.masked_fill(~there[..., None], rubbish), there, at_secs.masked_fill(~there, rubbish)
    )


@_kinds
@given(present=_batches, rubbish=st.sampled_from([1e6, -3.0, torch.nan, torch.inf]))
@settings(max_examples=15)
@torch.no_grad()
def test_what_is_not_present_has_no_influence_whatever_its_values(
    kind: str, present: dict[Modality, list[list[bool]]], rubbish: float
) -> None:
    fusion, tokens = _fusion(kind), _tokens(present)
    changed = {name: _with_rubbish(part, rubbish) for name, part in tokens.items()}
    whole = fusion(tokens)
    assert whole.embedding.isfinite().all()
    _close(fusion(changed), whole)
    there = {name: part for name, part in tokens.items() if part.some.any()}
    if there:
        _close(fusion(there), whole)


@_kinds
@given(present=_batches, order=st.permutations(_ALL))
@settings(max_examples=10)
@torch.no_grad()
def test_the_order_of_the_mapping_and_of_the_batch_changes_nothing(
    kind: str, present: dict[Modality, list[list[bool]]], order: list[Modality]
) -> None:
    fusion, tokens = _fusion(kind), _tokens(present)
    whole = fusion(tokens)
    _close(fusion({name: tokens[name] for name in order}), whole)
    back = fusion(
        {
            name: Tokens(part.values.flip(0), part.present.flip(0), part.at_secs.flip(0))
            for name, part in tokens.items()
        }
    )
    torch.testing.assert_close(back.embedding.flip(0), whole.embedding, atol=1e-5, rtol=1e-4)


@_kinds
@given(present=_batches, by_secs=st.floats(-50, 50))
@settings(max_examples=10)
@torch.no_grad()
def test_only_the_time_before_the_end_counts(
    kind: str, present: dict[Modality, list[list[bool]]], by_secs: float
) -> None:
    fusion, tokens = _fusion(kind), _tokens(present)
    later = {name: part.shifted(by_secs) for name, part in tokens.items()}
    end_secs = torch.full((_N,), 2.5)
    one, other = fusion(tokens, end_secs), fusion(later, end_secs + by_secs)
    # 32-bit seconds, turned once in 0.08 s: an ulp at 50 s is 3e-4 of a turn.
    torch.testing.assert_close(one.embedding, other.embedding, atol=5e-3, rtol=5e-3)
    one, other = fusion(tokens), fusion(later)
    torch.testing.assert_close(one.embedding, other.embedding, atol=5e-3, rtol=5e-3)


@_kinds
@torch.no_grad()
def test_times_may_be_of_64_bits(kind: str) -> None:
    fusion = _fusion(kind)
    tokens = _tokens({name: [[True, True]] * _N for name in _ALL})
    later = {
        name: Tokens(part.values, part.present, part.at_secs.double() + 1.7e9)
        for name, part in tokens.items()
    }
    _close(fusion(later), fusion(tokens))


@given(present=_batches)
@settings(max_examples=30)
@torch.no_grad()
def test_gates_sum_to_1_over_the_present(present: dict[Modality, list[list[bool]]]) -> None:
    tokens = _tokens(present)
    gates = _fusion("weighted")(tokens).gates
    some = torch.stack([tokens[name].some for name in _ALL], dim=1)
    assert not gates[~some].any()
    assert (gates[some] > 0).all()
    torch.testing.assert_close(gates.sum(dim=1), some.any(dim=1).float())


@torch.no_grad()
def test_gates_depend_on_the_input() -> None:
    tokens = _tokens({name: [[True, True]] * _N for name in _ALL})
    gates = _fusion("weighted")(tokens).gates
    assert (gates[0] - gates[1]).abs().max() > 1e-3


@_kinds
def test_each_modality_and_its_time_and_its_absence_reach_the_embedding(kind: str) -> None:
    fusion = _fusion(kind)
    tokens = _tokens({name: [[True, True, True]] * _N for name in _ALL})
    whole = fusion(tokens).embedding
    for name, part in tokens.items():
        other = Tokens(part.values.roll(1, 2), part.present, part.at_secs)
        assert (fusion({**tokens, name: other}).embedding - whole).abs().max() > 1e-4
        without = {key: value for key, value in tokens.items() if key != name}
        lacking = fusion(without).embedding
        assert (lacking - whole).abs().max() > 1e-4
        (slope,) = torch.autograd.grad(lacking.square().sum(), fusion.absent)
        reached = slope.abs().amax(dim=1) > 0
        assert reached.tolist() == [key == name for key in _ALL]
    audio = tokens["audio"]
    swapped = Tokens(audio.values, audio.present, audio.at_secs.flip(1))
    assert (fusion({**tokens, "audio": swapped}).embedding - whole).abs().max() > 1e-4


@torch.no_grad()
def _in_last_layer_of(tower: int, *, n_exchange: int, louder: Modality) -> float:
    """How much a change of one modality changes what the last layer of another one makes."""
    torch.manual_seed(0)
    settings = DeepSettings(
        modalities=_ALL, n_dims=8, n_layers=3, n_heads=2, n_bottleneck=1, n_exchange=n_exchange
    )
    fusion = build_fusion(settings).eval()
    seen: list[Tensor] = []
    layer = fusion.get_submodule(f"towers.{tower}.2")
    layer.register_forward_hook(lambda _module, _args, out: seen.append(out))
    tokens = _tokens({name: [[True, True]] * _N for name in _ALL})
    part = tokens[louder]
    fusion(tokens)
    fusion({**tokens, louder: Tokens(part.values.roll(1, 2), part.present, part.at_secs)})
    return float((seen[0] - seen[1]).abs().max())


@pytest.mark.parametrize("tower", [0, 1, 2])
@pytest.mark.parametrize("louder", _ALL)
def test_modalities_meet_only_in_what_the_bottleneck_carries_over(
    tower: int, louder: Modality
) -> None:
    changed = _in_last_layer_of(tower, n_exchange=2, louder=louder)
    assert changed > 1e-6
    # With one exchange the bottleneck has met nobody when a modality looks at it.
    alone = _in_last_layer_of(tower, n_exchange=1, louder=louder)
    assert (alone > 0) == (_ALL[tower] == louder)


@given(some=_rows(3), share=st.floats(0, 0.99))
def test_dropout_never_hides_all_nor_shows_the_absent(some: list[list[bool]], share: float) -> None:
    there = torch.tensor(some)
    keep = kept_modalities(there, share_dropped=share)
    assert not (keep & ~there).any()
    assert torch.equal(keep.any(dim=1), there.any(dim=1))


def test_dropout_hides_its_share_and_only_in_training() -> None:
    torch.manual_seed(0)
    keep = kept_modalities(torch.ones(20_000, 3, dtype=torch.bool), share_dropped=0.5)
    # All three fall with 1/8, then one stays: (0.5 + 1/8 / 3) of each.
    assert keep.float().mean(dim=0).tolist() == pytest.approx([0.5 + 1 / 24] * 3, abs=0.015)
    fusion = _fusion("weighted")
    tokens = _tokens({name: [[True]] * _N for name in _ALL})
    assert (fusion(tokens).gates > 0).all()
    fusion.train()
    hidden = torch.stack([fusion(tokens).gates == 0 for _ in range(20)])
    assert hidden.any(dim=0).any(dim=0).all()
    assert not hidden.all(dim=2).any()


@torch.no_grad()
def test_tokens_that_do_not_fit_are_named() -> None:
    fusion = build_fusion(ConcatSettings(n_dims=8))
    tokens = _tokens({name: [[True]] * _N for name in _ALL})
    with pytest.raises(ScorerError, match="of audio, video got tokens of text"):
        fusion(tokens)
    with pytest.raises(ScorerError, match="of audio, video got tokens of nothing"):
        fusion({})
    with pytest.raises(ScorerError, match=r"\[3, t, 8\] tokens of video: got \[3, 0, 9\]"):
        fusion({"audio": tokens["audio"], "video": Tokens.absent(n_batch=_N, n_dims=9)})
    with pytest.raises(ValidationError, match="each modality once"):
        ConcatSettings(modalities=("audio", "audio"))
    with pytest.raises(ValidationError, match="n_exchange is at most n_layers"):
        DeepSettings(n_layers=1, n_bottleneck=4)
