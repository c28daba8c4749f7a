"""One shard: the pieces that were written together, in files that are mapped into memory.

folder/<digest of its keys>/index.json       which pieces, what each array is, its digest
sound.npy        the rows of all pieces, one after another
heard.npy  pictures.npy  at_ns.npy
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mmstream.config import Settings
from mmstream.errors import ConfigError, SinkError, SourceError
from mmstream.media import Bytes
from mmstream.training.recordings import Piece, digest_of

INDEX: Final = "index.json"
PART: Final = ".part-"
"""How folders begin that are no shards yet, or no more."""

_Name = Literal["sound", "heard", "pictures", "at_ns"]
_NAMES: Final[tuple[_Name, ...]] = ("sound", "heard", "pictures", "at_ns")
_Array = NDArray[np.int16] | NDArray[np.float16] | Bytes | NDArray[np.int64]


class _ArrayInfo(Settings):
    dtype: str
    shape: tuple[int, ...]
    ends: tuple[int, ...]
    """Where the rows of each piece end."""
    digest: str
    """Of the file."""


class _Index(Settings):
    format: Literal["mmstream-shard-1"] = "mmstream-shard-1"
    keys: tuple[str, ...]
    arrays: Mapping[_Name, _ArrayInfo]


@dataclass(frozen=True, slots=True)
class Keyed:
    """A piece and the key it is found by."""

    key: str
    piece: Piece


def hashed(*parts: str) -> str:
    """BLAKE2b of some texts, 128 bits."""
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Around what writes there.

    Raises:
        SinkError: it cannot.
    """
    try:
        yield
    except OSError as error:
        msg = f"{folder}: cannot be written: {error.strerror or error}"
        raise SinkError(msg) from None


def write_shard(folder: Path, batch: Sequence[Keyed]) -> None:
    """Write these pieces as one, beside its place and renamed into it whole.

    Raises:
        SinkError: there is no room; nothing is left of it.
    """
    with writing(folder), tempfile.TemporaryDirectory(prefix=PART, dir=folder) as beside:
        part = Path(beside) / "whole"
        part.mkdir()
        keys = tuple(keyed.key for keyed in batch)
        arrays = {
            name: _save(part / f"{name}.npy", [_array(keyed.piece, name) for keyed in batch])
            for name in _NAMES
        }
        index = _Index(keys=keys, arrays=arrays)
        (part / INDEX).write_text(index.model_dump_json(), "utf-8")
        part.rename(folder / hashed(*keys))


def _save(path: Path, arrays: Sequence[_Array]) -> _ArrayInfo:
    whole = np.concatenate(arrays)
    ends = np.cumsum([len(array) for array in arrays])
    np.save(path, whole, allow_pickle=False)
    return _ArrayInfo(
        dtype=str(whole.dtype), shape=whole.shape, ends=tuple(ends.tolist()), digest=digest_of(path)
    )


def _array(piece: Piece, name: _Name) -> _Array:
    match name:
        case "sound":
            return piece.sound
        case "heard":
            return piece.heard
        case "pictures":
            return piece.pictures
        case "at_ns":
            return piece.at_ns


class Shard:
    """One shard, mapped."""

    def __init__(self, place: Path) -> None:
        """Read its index, map its arrays.

        Raises:
            ConfigError: it is damaged, or no shard.
            SourceError: it cannot be read.
        """
        self._place = place
        with reading(place):
            text = (place / INDEX).read_bytes()
        try:
            self._index = _Index.model_validate_json(text)
        except ValidationError:
            msg = f"{place / INDEX}: damaged, or of another program"
            raise ConfigError(msg) from None
        if place.name != hashed(*self._index.keys) or set(self._index.arrays) != set(_NAMES):
            msg = f"{place}: not the shard that its index describes"
            raise ConfigError(msg)
        self._maps = {name: self._mapped(name) for name in _NAMES}

    @property
    def keys(self) -> tuple[str, ...]:
        """Of its pieces, in order."""
        return self._index.keys

    def verify(self) -> None:
        """Read all of it.

        Raises:
            ConfigError: a byte is not as it was written.
            SourceError: it cannot be read.
        """
        for name, info in self._index.arrays.items():
            path = self._place / f"{name}.npy"
            with reading(path):
                digest = digest_of(path)
            if digest != info.digest:
                msg = f"{path}: damaged: not what was written"
                raise ConfigError(msg)

    def piece(self, nth: int) -> Piece:
        """A view of one piece."""
        sound = self._rows("sound", nth)
        is_mel = sound.dtype == np.float16
        return Piece(  # nothing is copied: these say the types that are there
            sound=sound.astype(np.float16, copy=False)
            if is_mel
            else sound.astype(np.int16, copy=False),
            heard=self._rows("heard", nth).astype(np.int64, copy=False),
            pictures=self._rows("pictures", nth).astype(np.uint8, copy=False),
            at_ns=self._rows("at_ns", nth).astype(np.int64, copy=False),
        )

    def _rows(self, name: _Name, nth: int) -> NDArray[np.generic]:
        ends = self._index.arrays[name].ends
        return self._maps[name][ends[nth - 1] if nth else 0 : ends[nth]]

    def _mapped(self, name: _Name) -> NDArray[np.generic]:
        path, info = self._place / f"{name}.npy", self._index.arrays[name]
        try:
            with reading(path):
                array = np.load(path, mmap_mode="r" if 0 not in info.shape else None)
        except (EOFError, ValueError):
            msg = f"{path}: cut short or no array"
            raise ConfigError(msg) from None
        if array.shape != info.shape or str(array.dtype) != info.dtype:
            msg = f"{path}: holds {array.dtype} {array.shape}, not {info.dtype} {info.shape}"
            raise ConfigError(msg)
        return np.asarray(array)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around what reads it. What is missing is damage; what a bad disk does not give is none.

    Raises:
        ConfigError: it is not there.
        SourceError: it cannot be read.
    """
    try:
        yield
    except FileNotFoundError:
        msg = f"{path}: missing"
        raise ConfigError(msg) from None
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}"
        raise SourceError(msg) from None
