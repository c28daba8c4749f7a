"""What is compared with what is normal, and with what was taught."""

import numpy as np
import pytest
import torch

from mmstream.media import Floats
from mmstream.models.avp_moments import gists, half, moments, only
from mmstream.models.avp_windows import Held, Window


def window(tokens: Floats) -> Window:
    seen = Held(torch.from_numpy(tokens), np.arange(len(tokens), dtype=np.int64))
    return Window(1, Held.nothing(n_dims=2, device=torch.device("cpu")), seen)


def test_half_is_the_window_and_half_the_last_five_pictures() -> None:
    long_ago = np.full((4, 2), -9, np.float32)
    lately = np.array([[1, 3], [5, 3], [3, 3], [3, 4], [3, 2]], np.float32)
    embeddings = [np.array(one, np.float32) for one in ((1, 0), (0, 1))]
    many, few = moments(
        [window(np.concatenate((long_ago, lately))), window(lately[:1])], embeddings
    )
    np.testing.assert_allclose(many, [np.sqrt(0.5), 0, 0.5, 0.5], atol=1e-6)
    slope = np.array([1, 3]) / np.sqrt(20)
    np.testing.assert_allclose(few, [0, np.sqrt(0.5), *slope], atol=1e-6)


def test_without_pictures_it_is_the_window_alone() -> None:
    none = np.zeros((0, 2), np.float32)
    (found,) = moments([window(none)], [np.array([0.6, 0.8], np.float32)])
    np.testing.assert_allclose(found, [0.6, 0.8, 0, 0], atol=1e-6)


def test_a_half_is_the_mean_and_the_deviation_of_tokens() -> None:
    values = torch.tensor([[3.0, 0.0], [3.0, 4.0], [3.0, 8.0]])  # deviations 0 and 4
    mean = np.array([0.6, 0.8])
    np.testing.assert_allclose(half(values), [*mean * np.sqrt(0.5), 0, np.sqrt(0.5)], atol=1e-6)
    several = half(torch.stack((values, 9 * values)))
    torch.testing.assert_close(several, half(values).expand(2, 4))


@pytest.mark.parametrize("n", [0, 1])
def test_a_token_alone_has_no_deviation(n: int) -> None:
    assert half(torch.ones(n, 3)).tolist() == [0] * 6


def test_tokens_that_do_not_vary_have_a_mean_still() -> None:
    np.testing.assert_allclose(half(torch.ones(4, 1)), [1, 0], atol=1e-6)


def held(tokens: Floats, every_ns: int) -> Held:
    return Held(torch.from_numpy(tokens), np.arange(len(tokens), dtype=np.int64) * every_ns)


def test_a_gist_is_of_the_last_second_of_each_sense() -> None:
    rng = np.random.default_rng(0)
    heard, seen = rng.standard_normal((2, 8, 2)).astype(np.float32)
    every_ns = 250_000_000
    both = Window(8 * every_ns, held(heard, every_ns), held(seen, every_ns))
    nothing = Held.nothing(n_dims=2, device=torch.device("cpu"))
    found = gists([both, Window(8 * every_ns, nothing, held(seen, every_ns))])
    lately = [half(torch.from_numpy(one[4:])).numpy() for one in (heard, seen)]
    np.testing.assert_allclose(found[0], np.concatenate(lately), atol=1e-6)
    np.testing.assert_allclose(found[1], [0, 0, 0, 0, *lately[1]], atol=1e-6)


def test_one_sense_can_be_left_out_of_gists() -> None:
    every = np.arange(1, 17, dtype=np.float32).reshape(2, 8)
    zeros = np.zeros((2, 4), np.float32)
    np.testing.assert_array_equal(only(every, "audio"), np.hstack((every[:, :4], zeros)))
    np.testing.assert_array_equal(only(every, "video"), np.hstack((zeros, every[:, 4:])))
    assert every.min() == 1
