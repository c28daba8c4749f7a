"""What is compared with what is normal: the window, and what is seen just now."""

import numpy as np
import torch

from mmstream.media import Floats
from mmstream.models.avp_moments import moments
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
