"""Small files of embeddings with what is known of them, and folders of such files, live.

Safetensors with one JSON record in its metadata. A file is written beside itself and renamed, so
that who reads meets a whole one; a folder is looked at again whenever something in it has changed,
so that a run takes up at once what a command has put there.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.media import Floats

SUFFIX: Final = ".safetensors"
MOST_FILES: Final = 256
"""More than anybody teaches: what a slip puts there beyond is refused, and memory stays bounded."""
MOST_BYTES: Final = 16_000_000
"""Of one file; 256 embeddings of 128 numbers have 131 072."""
_ABOUT: Final = "about"

A = TypeVar("A", bound=Settings)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingFile(Generic[A]):
    """Such a file as read."""

    path: Path
    about: A
    arrays: Mapping[str, Floats]

    def array(self, name: str, n_axes: int, n_dims: int | None) -> Floats:
        """One of the arrays, with so many axes, each at least 1 long.

        `n_dims`: how long the last is; None: any.

        Raises:
            ScorerError: it is not there, of another shape or type, or not finite.
        """
        found = self.arrays.get(name)
        if (
            found is None
            or found.ndim != n_axes
            or found.size == 0
            or found.dtype != np.float32
            or not np.isfinite(found).all()
        ):
            msg = f"{self.path}: needs finite 32-bit floats {name!r} with {n_axes} axes"
            raise ScorerError(msg)
        if n_dims is not None and found.shape[-1] != n_dims:
            msg = (
                f"{self.path}: has vectors of {found.shape[-1]} numbers, and this model makes such "
                f"of {n_dims}: teach or learn it again"
            )
            raise ScorerError(msg)
        return found


def write(path: Path, arrays: Mapping[str, Floats], about: Settings) -> None:
    """Write such a file, whole or not at all; its folder is made if it is not there.

    Raises:
        ScorerError: it cannot be written.
    """
    packed = save(
        {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()},
        metadata={_ABOUT: about.model_dump_json()},
    )
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(packed)
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        msg = f"{path}: cannot be written: {error.strerror}"
        raise ScorerError(msg) from None


def read(path: Path, kind: type[A]) -> EmbeddingFile[A]:
    """The file at `path`, with a record of the kind given.

    Raises:
        ScorerError: it cannot be read, is damaged, or is something else; the text names it.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            msg = f"{path}: larger than {MOST_BYTES // 1_000_000} MB, which no such file is"
            raise ScorerError(msg)
        with safe_open(path, framework="numpy") as file:
            about = (file.metadata() or {}).get(_ABOUT, "")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}"
        raise ScorerError(msg) from None
    except (SafetensorError, KeyError, TypeError) as error:
        msg = f"{path}: not a whole safetensors file: {error}"
        raise ScorerError(msg) from None
    try:
        return EmbeddingFile(path, kind.model_validate_json(about), arrays)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        keys = ".".join(str(key) for key in first["loc"])
        msg = f"{path}: not of this kind: {keys}{keys and ': '}{first['msg']}"
        raise ScorerError(msg) from None


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    """A file as its folder lists it: another one, or one written anew, is unlike it."""

    name: str
    inode: int
    changed_ns: int
    n_bytes: int


class EmbeddingFolder(Generic[T]):
    """What the files of a folder say, looked at again when one has come, gone or changed."""

    def __init__(self, folder: Path | None, take: Callable[[Path], T]) -> None:
        """Look for the first time; without a folder there is nothing.

        `take` makes of a file what it holds, and raises `ScorerError` where it cannot.
        """
        self.taken: tuple[T, ...] = ()
        """In the order of the files' names."""
        self.problems: tuple[str, ...] = ()
        """Why files were passed over, a line each."""
        self._folder = folder
        self._take = take
        self._entries: tuple[_Entry, ...] = ()
        self.refresh()

    def refresh(self) -> bool:
        """Look again; whether anything has changed. Some 20 us where nothing has."""
        entries = _entries(self._folder)
        if entries == self._entries or self._folder is None:
            return False
        self._entries = entries
        taken, problems = [], []
        for entry in entries[:MOST_FILES]:
            try:
                taken.append(self._take(self._folder / entry.name))
            except ScorerError as error:
                problems.append(str(error))
        if len(entries) > MOST_FILES:
            problems.append(f"{self._folder}: only the first {MOST_FILES} files are read")
        self.taken, self.problems = tuple(taken), tuple(problems)
        return True


def _entries(folder: Path | None) -> tuple[_Entry, ...]:
    """The files of a folder in order; none where it is not there or cannot be looked into."""
    found = []
    if folder is None:
        return ()
    with contextlib.suppress(OSError), os.scandir(folder) as listing:
        for one in listing:
            if one.name.endswith(SUFFIX) and not one.name.startswith("."):
                with contextlib.suppress(OSError):  # gone since
                    stat = one.stat()
                    found.append(_Entry(one.name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(sorted(found))
