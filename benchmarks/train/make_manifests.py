"""Writes the manifests of the tables beside it, from the labels in `../shared/data`.

    python -m mmstream.benchmarks.train.make_manifests ../shared/data

`grid_words.csv`: three words of every sentence of GRID's speaker 1, in a window of `WINDOW_SECS`
around the middle of the word as `alignments.tsv` has it; all words of a sentence are one group.
`grid_speakers.csv`: the same of one sentence each of ten others. Nobody aligned these, so a word
stands where it is on average in the sentences of speaker 1, counted from the first sound to the
last. `grid_digits.csv`: the digits of `grid_words.csv`. `avp.csv`: what AVP is pre-trained on;
`avp_speakers.csv`: the sentences of the ten others, whole. `esc10_foldK.csv`: fold K is test, about
half of the next one val, all else train.
"""

import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np

from mmstream.codecs import read_audio
from mmstream.media import DEFAULT_RATE_HZ

WINDOW_SECS: Final = 0.6
N_FOLDS: Final = 5
TASKS: Final[Mapping[str, int]] = {"colour": 1, "letter": 3, "digit": 4}
"""Which word of a sentence, from 0."""

N_JUDGED: Final = 4
"""Of the 8 clips that a fold of ESC-10 has of a class, at most so many are val."""

_WORDS: Final = ("command", "color", "preposition", "letter", "digit", "adverb")
_SILENCES: Final = {"sil", "sp"}
_SOUNDS: Final = {".wav", ".flac", ".ogg"}
_TAUGHT: Final = {"one_by_one_person.mp4"}
"""What `mmstream learn` is shown on."""
_FLOOR: Final = 0.1
"""Of the loudest 20 ms of a recording, in amplitude: above it somebody speaks."""


@dataclass(frozen=True, slots=True)
class Row:
    """As `mmstream.training.manifest` reads it."""

    path: str
    start: str
    end: str
    labels: str
    transcript: str
    split: str
    group: str


@dataclass(frozen=True, slots=True)
class Word:
    """A word that is spoken in a recording."""

    text: str
    start_secs: float
    end_secs: float


def main(data: Path, folder: Path) -> None:
    """Write all of them."""
    sentences = read_alignments(data / "grid_s1" / "alignments.tsv")
    words = list(grid_words(data, sentences))
    write(folder / "grid_words.csv", words)
    write(folder / "grid_digits.csv", (row for row in words if row.labels.startswith("digit=")))
    write(folder / "grid_speakers.csv", grid_speakers(data, sentences))
    write(folder / "avp.csv", avp(data))
    write(folder / "avp_speakers.csv", avp_speakers(data))
    for fold in range(1, N_FOLDS + 1):
        write(folder / f"esc10_fold{fold}.csv", esc10(data, fold))


def read_alignments(path: Path) -> Mapping[str, tuple[Word, ...]]:
    """The six words of each clip."""
    words: defaultdict[str, list[Word]] = defaultdict(list)
    for row in _rows(path):
        if row["word"] not in _SILENCES:
            word = Word(row["word"], float(row["start_s"]), float(row["end_s"]))
            words[row["clip"]].append(word)
    return {clip: tuple(spoken) for clip, spoken in words.items()}


def grid_words(data: Path, sentences: Mapping[str, tuple[Word, ...]]) -> Iterator[Row]:
    """Three examples of each clip of speaker 1."""
    for row in _rows(data / "grid_s1" / "labels.tsv"):
        clip = row["clip"]
        spoken = sentences[clip]
        if [word.text for word in spoken] != [row[name] for name in _WORDS]:
            msg = f"{clip}: labels.tsv and alignments.tsv are about different words"
            raise ValueError(msg)
        path = f"grid_s1/clips/{clip}.mp4"
        yield from _examples(path, spoken, split=row["split"], group=clip)


def grid_speakers(data: Path, sentences: Mapping[str, tuple[Word, ...]]) -> Iterator[Row]:
    """Three examples of each sentence of those who are not speaker 1."""
    shares = _usual_shares(sentences.values())
    for row in _rows(data / "grid_speakers" / "labels.tsv"):
        path = data / "grid_speakers" / row["file"]
        if "speaker s1" in row["note"]:
            continue
        if not path.is_file():
            print(f"{path} is not there, and left out")
            continue
        first, last = _spoken(read_audio(path, DEFAULT_RATE_HZ))
        edges = first + (last - first) * shares
        words = zip(row["sentence"].split(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        spoken = tuple(Word(*word) for word in words)
        where = f"grid_speakers/{row['file']}"
        yield from _examples(where, spoken, split="test", group=path.stem)


def avp(data: Path) -> Iterator[Row]:
    """Speaker 1 with his splits, ESC-10 with its fifth fold as test, and more to train on.

    That is speech (a tenth of the spoken digits: they are alike) and pictures from above.
    """
    for row in _rows(data / "grid_s1" / "labels.tsv"):
        path = f"grid_s1/clips/{row['clip']}.mp4"
        yield Row(path, "", "", "sound=speech", "", row["split"], row["clip"])
    for row in _rows(data / "esc10" / "labels.tsv"):
        split = "test" if int(row["fold"]) == N_FOLDS else "train"
        path = f"esc10/audio/{row['file']}"
        yield Row(path, "", "", f"sound={row['class']}", "", split, _group(row))
    spoken = sorted(one for one in (data / "speech").iterdir() if one.suffix in _SOUNDS)
    spoken += sorted((data / "fsdd" / "recordings").iterdir())[::10]
    for one in spoken:
        yield Row(str(one.relative_to(data)), "", "", "sound=speech", "", "train", one.stem)
    for one in sorted((data / "surveillance").iterdir()):
        if one.name not in _TAUGHT:
            yield Row(str(one.relative_to(data)), "", "", "", "", "train", one.stem)


def avp_speakers(data: Path) -> Iterator[Row]:
    """One sentence each of those who are not speaker 1, cut out as his are."""
    for row in _rows(data / "grid_speakers" / "labels.tsv"):
        path = data / "grid_speakers" / row["crop_file"]
        if "speaker s1" not in row["note"] and path.is_file():
            where = str(path.relative_to(data))
            yield Row(where, "", "", "sound=speech", "", "test", path.stem)


def esc10(data: Path, fold: int) -> Iterator[Row]:
    """All of ESC-10."""
    rows = list(_rows(data / "esc10" / "labels.tsv"))
    judged = _judged(row for row in rows if int(row["fold"]) == fold % N_FOLDS + 1)
    for row in rows:
        group = _group(row)
        split = "val" if group in judged else "test" if int(row["fold"]) == fold else "train"
        path = f"esc10/audio/{row['file']}"
        yield Row(path, "", "", f"sound={row['class']}", "", split, group)


def _judged(rows: Iterable[Mapping[str, str]]) -> frozenset[str]:
    """Groups of a fold that are val: of each class as many clips as fit `N_JUDGED`."""
    sizes = Counter((row["class"], _group(row)) for row in rows)
    n_judged: Counter[str] = Counter()
    judged = set()
    for (name, group), n in sorted(sizes.items()):
        if n_judged[name] + n <= N_JUDGED:
            n_judged[name] += n
            judged.add(group)
    return frozenset(judged)


def _group(row: Mapping[str, str]) -> str:
    # Several clips may be cut out of one recording; a fold has all of them.
    return "-".join(row["file"].split("-")[:2])


def write(path: Path, rows: Iterable[Row]) -> None:
    """As CSV; what is there stays as it is if `rows` cannot be had."""
    every = [astuple(row) for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Row))
        writer.writerows(every)


def _examples(path: str, spoken: Sequence[Word], *, split: str, group: str) -> Iterator[Row]:
    for task, place in TASKS.items():
        word = spoken[place]
        start = max(0.0, (word.start_secs + word.end_secs - WINDOW_SECS) / 2)
        end = start + WINDOW_SECS
        labels = f"{task}={word.text}"
        yield Row(path, f"{start:.3f}", f"{end:.3f}", labels, word.text, split, group)


def _usual_shares(sentences: Iterable[Sequence[Word]]) -> np.ndarray:
    """[7]: where the words of a sentence begin and the last ends, of its length."""
    edges = np.array(
        [[one.start_secs for one in words] + [words[-1].end_secs] for words in sentences]
    )
    shares: np.ndarray = ((edges - edges[:, :1]) / (edges[:, -1:] - edges[:, :1])).mean(axis=0)
    return shares


def _spoken(samples: np.ndarray) -> tuple[float, float]:
    """When somebody begins to speak and stops, in seconds."""
    n = DEFAULT_RATE_HZ // 50
    loud = np.abs(samples[: len(samples) // n * n]).reshape(-1, n).max(axis=1)
    there = np.flatnonzero(loud > _FLOOR * loud.max())
    return there[0] * n / DEFAULT_RATE_HZ, (there[-1] + 1) * n / DEFAULT_RATE_HZ


def _rows(path: Path) -> Iterator[Mapping[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t")


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program and its argument
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(__file__).parent)
