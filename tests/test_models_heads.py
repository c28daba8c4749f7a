import pytest
import torch
from pydantic import ValidationError

from mmstream.models.heads import Classifier, ClassifierSettings


def test_labels_that_exclude_each_other_share_1() -> None:
    head = Classifier(ClassifierSettings(labels=("dog", "rain"), n_dims=4))
    probabilities = head.probabilities(head(torch.randn(5, 4)))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(5))


def test_others_are_each_on_their_own() -> None:
    head = Classifier(ClassifierSettings(labels=("dog", "rain"), n_dims=4, kind="any"))
    assert head.probabilities(torch.tensor([[0.0, 100.0]])).tolist() == [[0.5, 1.0]]


def test_a_label_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="each label once: got dog, dog"):
        ClassifierSettings(labels=("dog", "dog"))


def test_one_label_is_no_choice() -> None:
    with pytest.raises(ValidationError, match="one of them is true, so at least two: got dog"):
        ClassifierSettings(labels=("dog",))
    assert ClassifierSettings(labels=("dog",), kind="any").labels == ("dog",)
