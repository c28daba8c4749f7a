"""What simple models make of the data of two tables, for comparison.

    python -m mmstream.benchmarks.train.baselines words benchmarks/train/grid.yaml FOLDER MEDIA
    python -m mmstream.benchmarks.train.baselines sounds MEDIA

words: softmax regression on all frames side by side, log-mel energies (40 bands, every 20 ms) and
pictures made 8x8, each number standardised, its penalty the one that is best in validation. In
noise it is trained on four mixtures of each example at the ratio of the test. FOLDER is that of
`mmstream train --out`: its shards are used, or made.
sounds: of 20 MFCC over a recording the mean, deviation, least and most, and the deviation of their
differences; support vectors (RBF kernel, squared hinge, one class against the rest) with C = 1 and
gamma = 1 / dimensions, neither tuned.
"""

import csv
import sys
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from mmstream.codecs import read_audio
from mmstream.features.audio import LogMel, LogMelSettings, Mfcc, MfccSettings
from mmstream.media import DEFAULT_RATE_HZ
from mmstream.training.dataset import Example, ExampleDataset, targets
from mmstream.training.manifest import Split
from mmstream.training.noise import Noise
from mmstream.training.settings import Corpus
from mmstream.training.table import read_table

SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")
N_MIXTURES: Final = 4
PENALTIES: Final = (1e-6, 1e-5, 1e-4)
GRID_SIDE: Final = 8
N_FOLDS: Final = 5

_LOG_MEL: Final = LogMel(LogMelSettings(n_mels=40, n_window=640, n_hop=320, n_fft=640))
_MFCC: Final = Mfcc(MfccSettings(n_mfcc=20))
_LEAST: Final = 1e-4
"""Of samples; what follows the last that is louder is padding."""


def words(config: Path, folder: Path, media: Path) -> None:
    """Print a line for each task and ratio."""
    row = read_table(config).rows["concat"]
    row = row.placed(config.parent, media)
    corpus = row.read(folder / "shards")
    for task, head in row.model.heads.items():
        for snr_db in (None, 0.0, -10.0):
            sounds, pictures, classes = [], [], []
            for split in SPLITS:
                examples = _known(corpus, split, task, snr_db)
                sounds.append(torch.stack([_heard(one) for one in examples]))
                pictures.append(torch.stack([_seen(one) for one in examples]))
                true = targets([one.annotation for one in examples], task, head.labels)
                classes.append(true)
            both = [torch.cat(pair, dim=1) for pair in zip(sounds, pictures, strict=True)]
            parts = {"sound": sounds, "pictures": pictures, "both": both}
            said = [f"{name} {regressed(xs, classes):5.1f}" for name, xs in parts.items()]
            print(f"{task:8} {snr_db} dB: {', '.join(said)} %")


def _known(corpus: Corpus, split: Split, task: str, snr_db: float | None) -> list[Example]:
    """Those whose class is known, several times where noise is drawn for training."""
    data: ExampleDataset = corpus.examples[split]
    places = [n for n, item in enumerate(data.items) if item.annotation.class_of(task)]
    if snr_db is None or corpus.noise is None:
        return [data[place] for place in places]
    ratio, found = (snr_db, snr_db), []
    for epoch in range(N_MIXTURES if split == "train" else 1):
        mix = Noise(corpus.noise[split], snr_db=ratio, clean=0, seed=0, epoch=epoch)
        found += [mix(data[place]) for place in places]
    return found


def _heard(example: Example) -> Tensor:
    return _LOG_MEL(torch.from_numpy(example.sound)).flatten()


def _seen(example: Example) -> Tensor:
    pictures = torch.from_numpy(example.pictures[..., 0].astype(np.float32))
    small: Tensor = torch.nn.functional.adaptive_avg_pool2d(pictures, GRID_SIDE)
    return small.flatten() / 255


def regressed(xs: list[Tensor], classes: list[Tensor]) -> float:
    """Percent right in the test, by the first penalty that is best in validation.

    Args:
        xs: [n, d] each, of train, val and test.
        classes: [n] int64 each.
    """
    mean, std = xs[0].mean(dim=0), xs[0].std(dim=0) + 1e-3
    train, val, test = [(x - mean) / std / x.shape[1] ** 0.5 for x in xs]
    best_val, best_test = -1.0, 0.0
    for penalty in PENALTIES:
        weights = torch.zeros(train.shape[1] + 1, int(classes[0].max()) + 1, requires_grad=True)
        optimiser = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

        def loss(
            weights: Tensor = weights,
            optimiser: torch.optim.LBFGS = optimiser,
            penalty: float = penalty,
        ) -> float:
            optimiser.zero_grad()
            logits = train @ weights[1:] + weights[0]
            now = cross_entropy(logits, classes[0]) + penalty * weights[1:].square().sum()
            now.backward()  # type: ignore[no-untyped-call] # torch's own
            return now.item()

        optimiser.step(loss)  # type: ignore[no-untyped-call] # torch's own
        right = [
            100 * ((x @ weights[1:] + weights[0]).argmax(dim=1) == true).float().mean().item()
            for x, true in ((val, classes[1]), (test, classes[2]))
        ]
        if right[0] > best_val:
            best_val, best_test = right
    return best_test


def sounds(media: Path) -> None:
    """Print how many are right in each fold, and in all."""
    with (media / "esc10" / "labels.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = sorted({row["class"] for row in rows})
    classes = torch.tensor([names.index(row["class"]) for row in rows])
    folds = torch.tensor([int(row["fold"]) for row in rows])
    features = torch.stack(
        [mfcc_statistics(media / "esc10" / "audio" / row["file"]) for row in rows]
    )
    rates = []
    for fold in range(1, N_FOLDS + 1):
        held, kept = folds == fold, folds != fold
        told = supported(features[kept], classes[kept], features[held])
        rates.append(100 * (told == classes[held]).double().mean().item())
    print(f"MFCC statistics and SVM: {np.mean(rates):.1f} %, by fold {np.round(rates, 1)}")


def supported(train: Tensor, classes: Tensor, test: Tensor) -> Tensor:
    """[m] int64: the class of each row of `test` [m, d], by those of `train` [n, d]."""
    mean, std = train.mean(dim=0), train.std(dim=0) + 1e-6
    train, test = (train - mean) / std, (test - mean) / std
    kernel, seen = (
        torch.exp(-torch.cdist(one, train).square() / train.shape[1]) for one in (train, test)
    )
    signs = 2 * one_hot(classes).double() - 1
    weights = torch.zeros(len(train) + 1, signs.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=80, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimiser.zero_grad()
        scores = kernel @ weights[1:]
        margins = (1 - signs * (scores + weights[0])).relu()
        now = (weights[1:] * scores).sum() / 2 + margins.square().sum()
        now.backward()  # type: ignore[no-untyped-call] # torch's own
        return now.item()

    optimiser.step(loss)  # type: ignore[no-untyped-call] # torch's own
    return (seen @ weights[1:] + weights[0]).argmax(dim=1)


def mfcc_statistics(path: Path) -> Tensor:
    """[100] of a recording of ESC-10, without the silence that it is padded with."""
    samples = read_audio(path, DEFAULT_RATE_HZ)[: 5 * DEFAULT_RATE_HZ]
    last = int(np.flatnonzero(np.abs(samples) > _LEAST)[-1]) + 1
    mfcc = _MFCC(torch.from_numpy(samples[: max(last, DEFAULT_RATE_HZ // 2)].copy())).double()
    spread = (mfcc.std(dim=0), mfcc.diff(dim=0).std(dim=0))
    return torch.cat((mfcc.mean(dim=0), *spread, mfcc.amin(dim=0), mfcc.amax(dim=0)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["words", *places] if len(places) == 3:  # noqa: PLR2004 - the table and two folders
            words(*map(Path, places))
        case ["sounds", place]:
            sounds(Path(place))
        case _:
            sys.exit(__doc__)
