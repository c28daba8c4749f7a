"""How well is told apart what was taught with 5 clips each: 5-way 5-shot accuracy on ESC-10.

    python -m mmstream.benchmarks.train.few_shot CHECKPOINT --classes rain,rooster,... --media DIR

CHECKPOINT must not have been trained on those classes. In each of 1000 episodes, drawn with fixed
seeds, 5 clips of each class are taught as `mmstream teach` does it and all the others are asked,
but for those cut from a recording that one of the 5 is from. Said are the mean accuracy over
episodes and its 95 % interval, which tells how much the draw of clips matters. Beside it the same
episodes with statistics of MFCC in place of gists, each number standardised by the clips of
the classes that are not asked, and nearness by distance.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from mmstream.benchmarks.train.baselines import mfcc_statistics
from mmstream.clock import SystemClock
from mmstream.media import Floats
from mmstream.models.avp_spec import AvpSpec
from mmstream.models.taught import TaughtClip, clip_gist
from mmstream.pipelines.embedding import embedder
from mmstream.pipelines.teach import clip_gists
from mmstream.windows import HopSettings

N_SHOTS: Final = 5
N_EPISODES: Final = 1000

_NOBODY: Final = "0" * 16
_Z95: Final = 1.96


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of ESC-10."""

    path: Path
    label: str
    recording: str
    """The one it was cut from."""


def clips_of(media: Path) -> list[Clip]:
    """All of ESC-10."""
    folder = media / "esc10"
    with (folder / "labels.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        Clip(folder / "audio" / row["file"], row["class"], row["file"].rsplit("-", 2)[0])
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Episode:
    """Which clips are taught, and which are asked: their places."""

    shots: tuple[tuple[int, ...], ...]
    """Of each class."""
    queries: tuple[int, ...]


def episodes(clips: Sequence[Clip], classes: Sequence[str], n_episodes: int) -> Iterator[Episode]:
    """Drawn anew, the same each time; no query is from a recording that a shot is from."""
    for seed in range(n_episodes):
        rng = np.random.default_rng(seed)
        shots: list[tuple[int, ...]] = []
        for label in classes:
            places = [n for n, clip in enumerate(clips) if clip.label == label]
            shots.append(tuple(rng.choice(places, N_SHOTS, replace=False).tolist()))
        heard = {clips[place].recording for places in shots for place in places}
        asked = (n for n, one in enumerate(clips) if one.label in classes)
        yield Episode(tuple(shots), tuple(n for n in asked if clips[n].recording not in heard))


def accuracy(episode: Episode, values: Floats, true: Floats, *, by_angle: bool) -> float:
    """Share of the queries that are nearest to the mean of their own class.

    Args:
        episode: of places in `values`.
        values: [n, d]; unit vectors where nearness is `by_angle`.
        true: [n]: the class of each, in the order of the episode's shots.
        by_angle: by the cosine to the mean, else by the distance to it.
    """
    means = np.stack([values[list(places)].mean(axis=0) for places in episode.shots])
    asked = values[list(episode.queries)]
    if by_angle:
        told = (asked @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(axis=1)
    else:
        told = np.linalg.norm(asked[:, None] - means, axis=2).argmin(axis=1)
    return float((told == true[list(episode.queries)]).mean())


def gists(checkpoint: Path, clips: Sequence[Clip]) -> Floats:
    """[n, 4d], of each clip as `mmstream teach` takes it; of length 1, as it is of sound alone."""
    model = embedder(AvpSpec(weights=str(checkpoint), untrained="allow"))
    found = []
    for one in clips:
        clip = TaughtClip(name=one.path.name, digest=_NOBODY)
        heard = clip_gists(one.path, clip, model, HopSettings(), SystemClock())
        found.append(clip_gist(heard))
    return np.stack(found)


def statistics(clips: Sequence[Clip], others: Sequence[Clip]) -> Floats:
    """[n, 100], standardised by `others`."""
    found, rest = (
        np.stack([mfcc_statistics(one.path).numpy() for one in of]) for of in (clips, others)
    )
    return np.asarray((found - rest.mean(axis=0)) / (rest.std(axis=0) + 1e-6), np.float32)


def said(rates: Floats) -> str:
    """Their mean, its 95 % interval, and within which most episodes lie, in percent."""
    mean, half = rates.mean(), _Z95 * rates.std(ddof=1) / len(rates) ** 0.5
    low, high = np.quantile(rates, [0.025, 0.975])
    return (
        f"{100 * mean:.1f} % +- {100 * half:.1f} "
        f"(95 % of episodes from {100 * low:.0f} to {100 * high:.0f} %)"
    )


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--classes", required=True, help="left out of training, comma-separated")
    parser.add_argument("--media", type=Path, required=True)
    asked = parser.parse_args()
    every, classes = clips_of(asked.media), asked.classes.split(",")
    known = sorted({clip.label for clip in every})
    if len(set(classes)) != len(classes) or not set(classes) < set(known):
        parser.error(f"--classes: some of, but not all: {', '.join(known)}")
    clips = [clip for clip in every if clip.label in classes]
    others = [clip for clip in every if clip.label not in classes]
    true = np.array([classes.index(clip.label) for clip in clips], np.float32)
    drawn = list(episodes(clips, classes, N_EPISODES))
    taught, mfcc = gists(asked.checkpoint, clips), statistics(clips, others)
    print(f"{len(classes)}-way {N_SHOTS}-shot on {', '.join(classes)}; {len(drawn)} episodes")
    for name, values, by_angle in (("taught", taught, True), ("MFCC statistics", mfcc, False)):
        rates = [accuracy(one, values, true, by_angle=by_angle) for one in drawn]
        print(f"{name}: {said(np.array(rates, np.float32))}")
    print(f"chance: {100 / len(classes):.1f} %")


if __name__ == "__main__":
    main()
