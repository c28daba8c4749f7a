"""Tiny models of three modalities, as `mmstream train` leaves them, for tests of live ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch.nn.functional import cross_entropy

from mmstream.media import Modality
from mmstream.models import checkpoint
from mmstream.models.checkpoint import Identity
from mmstream.models.mmt import Inputs, Mmt, MmtSettings
from mmstream.models.text import WordPieces

RATE_HZ: Final = 16_000
ALL: Final[tuple[Modality, ...]] = ("audio", "video", "text")
SPADES: Final = "asked_for_spades"
NOTHING: Final = "asked_for_nothing"

_WITH: Final = ("ask for spades", "spades please", "eight of spades", "spades for up close")
_WITHOUT: Final = ("nothing much to see", "a dog is on the mat", "eight of", "eight", "", "")
_SIGHT: Final = {"n_dims": 8, "widths": (4, 4), "n_grid": 2, "dropout": 0}


def settings(
    modalities: Sequence[Modality] = ALL, *, n_words: int = 80, n_channels: int = 1
) -> MmtSettings:
    """Of a model with the labels `SPADES` and `NOTHING`."""
    body = {"type": "transformer", "n_layers": 1, "n_heads": 2}
    parts: dict[Modality, Mapping[str, object]] = {
        "audio": {"n_dims": 8, "widths": (4,), "dropout": 0, "body": body},
        "video": {**_SIGHT, "n_channels": n_channels},
        "text": {"n_words": n_words, "n_dims": 8, "n_layers": 1, "n_heads": 2, "dropout": 0},
    }
    fusion = {"type": "concat", "modalities": modalities, "n_dims": 8}
    head = {"labels": ("for spades", "for nothing"), "n_dims": 8, "dropout": 0}
    given = {name: parts[name] for name in modalities}
    return MmtSettings.model_validate({**given, "fusion": fusion, "heads": {"Asked": head}})


def pieces() -> WordPieces:
    """What it reads with."""
    return WordPieces.trained((*_WITH, *_WITHOUT), n_words=80)


def saved(folder: Path, model: Mmt) -> Path:
    """The folder, with its checkpoint."""
    rate_hz = RATE_HZ if model.settings.audio else None
    identity = Identity(task="Asked", rate_hz=rate_hz, trained=True)
    checkpoint.save(folder, model, model.settings, identity, "")
    (folder / "vocabulary.json").write_text(pieces().to_json(), "utf-8")
    return folder


def random(folder: Path, modalities: Sequence[Modality] = ALL) -> Path:
    """One that was taught nothing."""
    torch.manual_seed(0)
    return saved(folder, Mmt(settings(modalities, n_words=pieces().n_words)))


def learned(folder: Path) -> Path:
    """One that was taught to find `spades` in the words, whatever else there is or is not."""
    torch.manual_seed(0)
    known = pieces()
    model = Mmt(settings(n_words=known.n_words))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    texts = (*_WITH, *_WITHOUT)
    n, n_with = len(texts), len(_WITH)
    true = torch.tensor([0] * n_with + [1] * (n - n_with))
    words = known.encode(texts, n_longest=64)
    model.train()
    for step in range(40):
        torch.manual_seed(step)
        inputs = Inputs(
            frames=torch.randn(n, 24, 64) - 5,
            frames_present=torch.ones(n, 24, dtype=torch.bool),
            images=torch.randint(0, 255, (n, 3, 1, 16, 16), dtype=torch.uint8),
            images_present=(torch.rand(n, 1) < 0.5).repeat(1, 3),
            images_at_secs=torch.arange(3).repeat(n, 1) / 10,
            words=words,
        )
        optimiser.zero_grad()
        loss = cross_entropy(model(inputs).logits["Asked"], true)
        loss.backward()  # type: ignore[no-untyped-call]  # torch says no types
        optimiser.step()
    return saved(folder, model)
