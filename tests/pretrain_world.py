"""A small world to pre-train in: whoever speaks is bright while he is loud.

Beside these pairs there are sounds alone (a bark, rain), and pictures alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmstream.media import DEFAULT_RATE_HZ, NS_PER_SEC
from mmstream.training.dataset import ExampleDataset, Item
from mmstream.training.manifest import Annotation, Label, Split
from mmstream.training.pretrain_settings import PretrainSettings
from mmstream.training.recordings import FULL_SCALE, Piece
from mmstream.training.scenes import OTHER, SPEECH, TASK
from mmstream.training.shards import Keyed, write_shards

SECS: Final = 3.0
FPS: Final = 25
N_FRAME: Final = DEFAULT_RATE_HZ // FPS
HEARD: Final = (SPEECH, "bark", "rain")
SIZES: Final[dict[Split, int]] = {"train": 10, "val": 5, "test": 6}
"""Pairs of each split."""


def signal(rng: np.random.Generator) -> NDArray[np.float64]:
    """[frames]: loud or soft, anew in each 80 ms."""
    n = round(SECS * FPS)
    drawn = rng.integers(0, 2, -(-n // 2)).repeat(2)[:n]
    return np.where(drawn == 1, 1.0, 0.05)


def pair(rng: np.random.Generator, *, late_frames: int = 0) -> Piece:
    """What speaks; its sound may be later than its sight."""
    loud = signal(rng)
    samples = np.roll(loud, late_frames).repeat(N_FRAME) * rng.uniform(-1, 1, loud.size * N_FRAME)
    pictures = 60 + 120 * loud[:, None, None, None] + rng.uniform(-5, 5, (loud.size, 8, 8, 1))
    return _piece(samples, pictures)


def sound(name: str, rng: np.random.Generator, *, secs: float = SECS) -> Piece:
    """A bark is a tone in its first half, rain is noise that rises all along."""
    n = round(secs * DEFAULT_RATE_HZ)
    if name == "bark":
        samples = np.sin(np.arange(n) * 2 * np.pi * rng.uniform(300, 600) / DEFAULT_RATE_HZ)
        samples[n // 2 :] = 0
    else:
        samples = rng.uniform(-0.5, 0.5, n) * np.linspace(0.4, 1, n)
    return _piece(samples, np.zeros((0, 8, 8, 1)))


def silent(rng: np.random.Generator) -> Piece:
    """Pictures without sound."""
    return _piece(np.zeros(0), rng.uniform(0, 255, (round(SECS * FPS), 8, 8, 1)))


def examples(
    folder: Path, split: Split, named: Mapping[str, tuple[Piece, str | None]]
) -> ExampleDataset:
    """In the shards of `folder`: pieces with the class of their sound, by their names."""
    made = [Keyed(f"{split} {name}", piece) for name, (piece, _) in named.items()]
    items = [
        Item(f"{split} {name}", Annotation(split, (Label(TASK, of),) if of else (), group=name))
        for name, (_, of) in named.items()
    ]
    shards = write_shards(folder, [keyed.key for keyed in made], lambda _missing: made)
    return ExampleDataset(items, shards)


def corpus(folder: Path) -> dict[Split, ExampleDataset]:
    """All splits; sounds and pictures alone are in train only."""
    rng = np.random.default_rng(0)
    found: dict[Split, ExampleDataset] = {}
    for split, n in SIZES.items():
        named: dict[str, tuple[Piece, str | None]] = {
            f"pair {nth}": (pair(rng), SPEECH) for nth in range(n)
        }
        if split == "train":
            named |= {f"bark {nth}": (sound("bark", rng), "bark") for nth in range(2)}
            named |= {f"rain {nth}": (sound("rain", rng, secs=0.8), "rain") for nth in range(2)}
            named |= {f"silent {nth}": (silent(rng), None) for nth in range(2)}
        found[split] = examples(folder / split, split, named)
    return found


def model() -> dict[str, object]:
    """A tiny net: tokens of 40 ms, windows of half a second."""
    front = {"type": "log_mel", "n_window": 400, "n_hop": 320, "n_mels": 8}
    body = {"type": "transformer", "n_layers": 1, "n_heads": 2, "n_chunk": 5, "n_context": 5}
    return {
        "audio": {"front_end": front, "n_stack": 2, "n_dims": 8, "widths": (4,), "body": body},
        "video": {"n_dims": 8, "widths": (4,), "n_grid": 1, "n_seen": 2, "is_deep": False},
        "seen": {"width": 8, "height": 8},
        "fusion": {"type": "deep", "n_dims": 8, "n_heads": 2, "n_layers": 1},
        "events": {"labels": (*HEARD, OTHER), "n_dims": 8, "kind": "any", "dropout": 0.1},
        "n_compared": 4,
        "n_background": 6,
        "window_secs": 0.5,
    }


def settings(**changes: object) -> PretrainSettings:
    """Of a tiny net, two epochs of three steps, with all that is random switched on."""
    values: dict[str, object] = {
        "data": {
            "type": "manifest",
            "path": "nowhere.csv",
            "tasks": {TASK: HEARD},
            "keep": {"sound": {}, "pictures": {"width": 8, "height": 8}},
        },
        "model": model(),
        "scenes": {"secs": 1.5, "n_sounds": 2, "n_silents": 1, "shift_pixels": 1},
        "objectives": {"shift_secs": 0.2, "match_secs": 0.5, "n_hidden": 2},
        "optimise": {"n_epochs": 2, "n_batch": 3, "learning_rate": 3e-3},
        "judge_epochs": 1,
        "device": "cpu",
    }
    return PretrainSettings.model_validate(values | changes)


def _piece(samples: NDArray[np.float64], pictures: NDArray[np.float64]) -> Piece:
    return Piece(
        np.rint(samples * 0.9 * FULL_SCALE).astype(np.int16),
        np.array([[0, len(samples)]], np.int64) if len(samples) else np.zeros((0, 2), np.int64),
        pictures.astype(np.uint8),
        np.arange(len(pictures), dtype=np.int64) * (NS_PER_SEC // FPS),
    )
