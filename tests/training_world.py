"""A small world to train in: digits 0-2, told by the pitch of a sound, and by the place of a spot.

The sound is nearly always right; the picture is of noise in every third example.
"""

from pathlib import Path
from typing import Final

import numpy as np

from mmstream.features.audio import LogMelSettings
from mmstream.training.dataset import ExampleDataset, Item
from mmstream.training.manifest import Annotation, Label, Split
from mmstream.training.recordings import Piece
from mmstream.training.settings import Corpus, TrainSettings
from mmstream.training.shards import Keyed, write_shards

CLASSES: Final = ("0", "1", "2")
N_FRAMES, N_BANDS = 8, 8
SIZES: Final[dict[Split, int]] = {"train": 22, "val": 9, "test": 12}
LOG_MEL = LogMelSettings(n_mels=N_BANDS)
TASK: Final = "digit"


def piece(digit: int, rng: np.random.Generator) -> Piece:
    sound = rng.normal(-8, 0.5, (N_FRAMES, N_BANDS))
    sound[:, 2 * digit + 1] += 4
    picture = rng.integers(0, 100, (1, 8, 8, 1), np.uint8)
    if rng.random() > 1 / 3:
        picture[0, 2 * digit : 2 * digit + 3] = 250
    return Piece(
        sound.astype(np.float16),
        np.array([[0, N_FRAMES]], np.int64),
        picture,
        np.zeros(1, np.int64),
    )


def corpus(folder: Path, broken: int | None = None) -> Corpus:
    """In the shards of `folder`; training example `broken` has a sound that is not finite."""
    rng = np.random.default_rng(0)
    made: list[Keyed] = []
    items: dict[Split, list[Item]] = {}
    for split, n in SIZES.items():
        items[split] = []
        for nth in range(n):
            one = piece(nth % 3, rng)
            if split == "train" and nth == broken:
                one.sound[3, 4] = np.nan
            made.append(Keyed(f"{split} {nth} {broken}", one))
            known = Annotation(split, (Label(TASK, CLASSES[nth % 3]),), group=f"{split}-{nth}")
            items[split].append(Item(made[-1].key, known))
    shards = write_shards(folder, [keyed.key for keyed in made], lambda _missing: made)
    return Corpus({split: ExampleDataset(here, shards) for split, here in items.items()}, None)


def settings(**changes: object) -> TrainSettings:
    """A tiny net with all that is random switched on."""
    n_dims = 8
    front = {"type": "log_mel", **LOG_MEL.model_dump()}
    body = {"type": "transformer", "n_layers": 1, "n_heads": 2}
    values: dict[str, object] = {
        "data": {
            "type": "manifest",
            "path": "nowhere.csv",
            "tasks": {TASK: CLASSES},
            "keep": {
                "sound": {"log_mel": LOG_MEL.model_dump()},
                "pictures": {"width": 8, "height": 8},
            },
        },
        "model": {
            "audio": {"front_end": front, "n_dims": n_dims, "widths": (4,), "body": body},
            "video": {"n_dims": n_dims, "widths": (4, 4), "n_grid": 2},
            "fusion": {"type": "weighted", "n_dims": n_dims, "drop_modality": 0.2},
            "heads": {TASK: {"labels": CLASSES, "n_dims": n_dims}},
        },
        "optimise": {"n_epochs": 2, "n_batch": 8, "learning_rate": 3e-3},
        "balance": {"type": "ogm_ge"},
        "augment": {"n_masks": 1, "shift_pixels": 1},
        "device": "cpu",
    }
    return TrainSettings.model_validate(values | changes)
