import pytest
import torch

from mmstream.errors import ScorerError
from mmstream.models.tokens import Tokens


def _tokens() -> Tokens:
    values = torch.tensor([[[1.0, 2.0], [torch.nan, 3.0]]])
    return Tokens(values, torch.tensor([[True, False]]), torch.tensor([[0.5, 1.0]]))


def test_what_is_not_present_is_blanked_even_nan() -> None:
    assert _tokens().blanked().tolist() == [[[1.0, 2.0], [0.0, 0.0]]]


def test_parts_join_in_order() -> None:
    joined = Tokens.joined([_tokens(), _tokens().shifted(2.0)])
    assert joined.at_secs.tolist() == [[0.5, 1.0, 2.5, 3.0]]
    assert joined.present.tolist() == [[True, False, True, False]]


def test_examples_that_are_not_kept_have_nothing() -> None:
    assert not _tokens().kept(torch.tensor([False])).some.any()
    assert _tokens().kept(torch.tensor([True])).some.all()


def test_shapes_that_do_not_belong_together_are_named() -> None:
    with pytest.raises(ScorerError, match=r"\[1, 2, 3\], \[1, 3\], \[1, 2\]"):
        Tokens(torch.zeros(1, 2, 3), torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 2))
    with pytest.raises(ScorerError, match=r"torch\.float32, torch\.float32"):
        Tokens(torch.zeros(1, 2, 3), torch.ones(1, 2), torch.zeros(1, 2))
