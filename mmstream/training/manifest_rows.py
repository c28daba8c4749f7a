"""The rows of a manifest as they are written, in CSV or JSON Lines; nothing is looked for yet."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from mmstream.config import Settings
from mmstream.errors import ConfigError
from mmstream.media import Span, secs_to_ns
from mmstream.yaml_tree import nearest, nearest_file

Split = Literal["train", "val", "test"]

MAX_SECS: Final = 1e9
"""No recording is so long; nanoseconds must stay whole."""

_Text = Annotated[str, StringConstraints(strip_whitespace=True)]


class Row(Settings):
    """A row as it is written."""

    path: str = Field(min_length=1)
    start: float | None = Field(default=None, ge=0, le=MAX_SECS)
    end: float | None = Field(default=None, gt=0, le=MAX_SECS)
    labels: Mapping[_Text, _Text] = Field(default_factory=dict)
    caption: _Text = ""
    transcript: _Text = ""
    split: Split
    group: _Text = ""

    @field_validator("labels", mode="before")
    @classmethod
    def _pairs(cls, written: object) -> object:
        """`a=b;c=d` as a mapping."""
        if not isinstance(written, str):
            return written
        pairs = [pair.partition("=") for pair in written.split(";") if pair.strip()]
        labels = {task.strip(): name.strip() for task, _, name in pairs}
        if not all(task.strip() and name.strip() for task, _, name in pairs):
            msg = f"must be task=class, separated by ';' (got {written!r})"
            raise ValueError(msg)
        if len(labels) < len(pairs):
            msg = f"a task has one class (got {written!r})"
            raise ValueError(msg)
        return labels

    @model_validator(mode="after")
    def _check_span(self) -> "Row":
        if (self.start is None) != (self.end is None):
            msg = "start and end: both or none"
            raise ValueError(msg)
        if self.start is None or self.end is None:
            return self
        if secs_to_ns(self.end) <= secs_to_ns(self.start):
            msg = f"end {self.end:.12g} is not after start {self.start:.12g}: an empty span"
            raise ValueError(msg)
        return self

    def span(self) -> Span | None:
        """As instants."""
        if self.start is None or self.end is None:
            return None
        return Span(secs_to_ns(self.start), secs_to_ns(self.end))


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something that is wrong with a row."""

    line: int
    text: str


def rows(path: Path, problems: list[Problem]) -> Iterator[tuple[int, Row]]:
    """Each row that can be understood, with its line; what is wrong goes to `problems`.

    Raises:
        ConfigError: the file cannot be read, or is of another kind.
    """
    for line, cells in _written(path, problems):
        try:
            yield line, Row.model_validate(cells)
        except ValidationError as error:
            problems += [Problem(line, text) for text in _texts(error)]


def _written(path: Path, problems: list[Problem]) -> Iterator[tuple[int, object]]:
    """What each row says, with its line."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        hint = nearest_file(path) if isinstance(error, FileNotFoundError) else ""
        msg = f"{path}: cannot be read: {error.strerror}{hint}"
        raise ConfigError(msg) from None
    except UnicodeDecodeError:
        msg = f"{path}: no UTF-8 text"
        raise ConfigError(msg) from None
    match path.suffix.lower():
        case ".jsonl":
            yield from _json_rows(text, problems)
        case ".csv":
            yield from _csv_rows(text, problems)
        case _:
            msg = f"{path}: not known by its ending; allowed: .csv, .jsonl"
            raise ConfigError(msg)


def _json_rows(text: str, problems: list[Problem]) -> Iterator[tuple[int, object]]:
    for line, whole in enumerate(text.split("\n"), 1):
        if not whole.strip():
            continue
        try:
            yield line, json.loads(whole, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            problems.append(Problem(line, f"no JSON: {error.msg} at column {error.colno}"))
        except (ValueError, RecursionError) as error:  # numbers without end, nesting without end
            problems.append(Problem(line, f"no JSON of a manifest: {error}"))


def _object(pairs: Sequence[tuple[str, object]]) -> Mapping[str, object]:
    """Of JSON; `null` is as good as nothing."""
    twice = _twice([key for key, _ in pairs])
    if twice is not None:
        msg = f"{twice!r} is there twice"
        raise ValueError(msg)
    return {key: value for key, value in pairs if value is not None}


def _csv_rows(text: str, problems: list[Problem]) -> Iterator[tuple[int, object]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            told = [cell.strip() for cell in cells]
            if header is None:
                header = told or None
                twice = _twice(told)
                if twice is not None:
                    problems.append(Problem(line, f"{twice}: two columns are called so"))
            elif len(told) > len(header):
                excess = f"{len(told)} cells under {len(header)} columns; commas go in quotes"
                problems.append(Problem(line, excess))
            elif any(told):
                yield line, {name: cell for name, cell in zip(header, told, strict=False) if cell}
            line = reader.line_num + 1
    except csv.Error as error:
        problems.append(Problem(line, f"no CSV: {error}"))


def _twice(names: Sequence[str]) -> str | None:
    """The first that was there before, unless it is empty."""
    return next((name for n, name in enumerate(names) if name and name in names[:n]), None)


def _texts(error: ValidationError) -> Iterator[str]:
    """What is wrong with a row, one text each."""
    for one in error.errors(include_url=False):
        key = ".".join(str(part) for part in one["loc"])
        said = one["msg"].removeprefix("Value error, ")
        match one["type"]:
            case "extra_forbidden":
                hint = nearest(key, Row.model_fields) or ";"
                name = key or "a column without a name"
                yield f"{name}: unknown column{hint} allowed: {', '.join(Row.model_fields)}"
            case "missing":
                yield f"{key}: missing, but required"
            case "literal_error":
                hint = nearest(str(one["input"]), ("train", "val", "test"))
                yield f"{key}: must be train, val or test (got {one['input']!r}){hint}"
            case _:
                got = f" (got {one['input']!r})" if one["type"] != "value_error" else ""
                yield f"{key}: {said}{got}" if key else said
