"""What is really said in recordings: their transcripts, read from a file of tab-separated values.

    # comment
    file              transcript                 language  note
    talk/tea.wav      Would you like some tea?   en-US     a kettle behind it
    talk/tee.wav      Noch etwas Tee?            de

`file` is a path below the folder of the media, `transcript` all that is said in it, `language` its
language (BCP 47); empty: that of the recogniser. `note` is for people. The first row names the
columns, in any order; `language` and `note` may be left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmstream.errors import ConfigError
from mmstream.pipelines.word_errors import normalised
from mmstream.yaml_tree import nearest, nearest_file

COLUMNS: Final = ("file", "transcript", "language", "note")
"""What the header may name."""
NEEDED: Final = COLUMNS[:2]
"""What it must."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What is said in one recording."""

    file: str
    text: str
    """As it was written; it has a word at least."""
    language: str
    """BCP 47; empty: nobody said."""


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: tuple[str, ...]


def is_of_words(path: Path) -> bool:
    """Whether a truth has transcripts, and not events; of what cannot be read: no."""
    try:
        rows = _rows(path)
    except (OSError, UnicodeDecodeError):
        return False
    return bool(rows) and "transcript" in rows[0].cells


def read(path: Path, media: Path) -> tuple[Transcript, ...]:
    """The transcripts of recordings below `media`, in the order of the rows.

    Raises:
        ConfigError: a row is wrong, a recording is missing, or there is none; one line for each
            problem, with its place.
    """
    if not media.is_dir():
        msg = f"--media: no folder {media}"
        raise ConfigError(msg)
    header, *below = _rows_of(path)
    problems = [f"{path}:{header.line}: {problem}" for problem in _wrong_header(header.cells)]
    if problems:
        raise ConfigError("\n".join(problems))
    if not below:
        msg = f"{path}: no row"
        raise ConfigError(msg)
    transcripts: dict[str, Transcript] = {}
    for row in below:
        try:
            one = _transcript(header.cells, row, media, transcripts)
        except ValueError as error:
            problems.append(f"{path}:{row.line}: {error}")
        else:
            transcripts[one.file] = one
    if problems:
        raise ConfigError("\n".join(problems))
    return tuple(transcripts.values())


def _rows_of(path: Path) -> list[_Row]:
    """As `_rows`, at least one.

    Raises:
        ConfigError: there is none.
    """
    try:
        rows = _rows(path)
    except OSError as error:
        hint = nearest_file(path) if isinstance(error, FileNotFoundError) else ""
        msg = f"{path}: cannot be read: {error.strerror}{hint}"
        raise ConfigError(msg) from None
    except UnicodeDecodeError:
        msg = f"{path}: no UTF-8 text"
        raise ConfigError(msg) from None
    if not rows:
        msg = f"{path}:1: the first row must name the columns: {' '.join(COLUMNS)}"
        raise ConfigError(msg)
    return rows


def _rows(path: Path) -> list[_Row]:
    """All but comments and blank lines.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no UTF-8 text.
    """
    return [
        _Row(line, tuple(cell.strip() for cell in whole.split("\t")))
        for line, whole in enumerate(path.read_text("utf-8-sig").splitlines(), 1)
        if whole.strip() and not whole.startswith("#")
    ]


def _wrong_header(names: Sequence[str]) -> Iterator[str]:
    allowed = f"allowed: {', '.join(COLUMNS)}, separated by tabs"
    for name in dict.fromkeys(names):
        if name not in COLUMNS:
            yield f"no column {name!r}{nearest(name, COLUMNS) or ';'} {allowed}"
        elif names.count(name) > 1:
            yield f"column {name} is there twice"
    for name in NEEDED:
        if name not in names:
            yield f"column {name} is missing; {allowed}"


def _transcript(
    columns: Sequence[str], row: _Row, media: Path, earlier: dict[str, Transcript]
) -> Transcript:
    """What a row says.

    Raises:
        ValueError: it is wrong; the text says how.
    """
    if len(row.cells) > len(columns):
        msg = f"{len(row.cells)} cells; allowed: {len(columns)}, one for each column"
        raise ValueError(msg)
    file, text, language = (_cell(columns, row, name) for name in COLUMNS[:3])
    for name, cell in (("file", file), ("transcript", text)):
        if not cell:
            msg = f"{name} is empty"
            raise ValueError(msg)
    if not normalised(text):
        msg = f"no word in the transcript {text!r}"
        raise ValueError(msg)
    if file in earlier:
        msg = f"{file} has a transcript already; allowed: one row for each file"
        raise ValueError(msg)
    if not (media / file).is_file():
        msg = f"no file {media / file}{nearest_file(media / file)}"
        raise ValueError(msg)
    return Transcript(file, text, language)


def _cell(columns: Sequence[str], row: _Row, name: str) -> str:
    """What is in a column; empty: nothing."""
    if name not in columns or columns.index(name) >= len(row.cells):
        return ""
    return row.cells[columns.index(name)]
