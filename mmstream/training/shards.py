"""Pieces of recordings, decoded once and kept in files that are mapped into memory.

    folder/.lock
    folder/<digest of its keys>/index.json       which pieces, what each array is, its digest
                                sound.npy        the rows of all pieces, one after another
                                heard.npy  pictures.npy  at_ns.npy

A piece is found by its key: a hash of the recording's bytes, the span and the settings. So what a
manifest says of it (labels, splits, captions) may change, rows may come and go, and nothing is
decoded again. A shard is written beside its place and renamed into it whole: whoever is
interrupted goes on with the next. Shards that are damaged are removed and made anew.
"""

import fcntl
import logging
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mmstream.config import Settings
from mmstream.errors import ConfigError, SourceError
from mmstream.media import Bytes, Span
from mmstream.training.manifest import Entry
from mmstream.training.recordings import Piece, PieceSettings, digest_of, read_pieces

N_PER_SHARD: Final = 2048
"""Pieces in a shard at most: each mapped file costs a descriptor."""
BYTES_PER_SHARD: Final = 64 * 1024 * 1024
"""A shard that has come to so much is written; what an interruption may cost."""

_INDEX: Final = "index.json"
_PART: Final = ".part-"
_IS_DIGEST: Final = re.compile("[0-9a-f]{32}")
_LOG: Final = logging.getLogger(__name__)

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


class Shards:
    """A folder of shards, open for reading.

    Pieces are views into mapped files: nothing is read before it is looked at. It may be pickled
    (for the processes of a `DataLoader`), and maps the files again where it arrives.
    """

    def __init__(self, folder: Path) -> None:
        """Look into every shard there: its index, and its arrays' shapes.

        Raises:
            ConfigError: something else than shards is there, or a shard is damaged.
        """
        self._folder = folder
        self._places: dict[str, tuple[_Shard, int]] = {}
        for place in _places(folder):
            shard = _Shard(place)
            self._places |= {key: (shard, nth) for nth, key in enumerate(shard.keys)}

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: str) -> Piece:
        shard, nth = self._places[key]
        return shard.piece(nth)

    def __reduce__(self) -> tuple[type["Shards"], tuple[Path]]:
        return (Shards, (self._folder,))


def key_of(entry: Entry, settings: PieceSettings) -> str:
    """Where the piece of `entry` is found: the same bytes, span and settings, the same key."""
    return hashed(entry.digest, _span_text(entry.span), settings.model_dump_json())


def hashed(*parts: str) -> str:
    """BLAKE2b of some texts, 128 bits."""
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def build_shards(
    folder: Path,
    entries: Sequence[Entry],
    settings: PieceSettings,
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> Shards:
    """The shards in `folder`, after decoding what of `entries` is not there yet.

    `told` hears after each piece how many of those missing are done, of how many.

    Raises:
        ConfigError: the folder holds something else, or another process writes there.
        SourceError: a recording cannot be read any more.
    """
    return write_shards(
        folder,
        [key_of(entry, settings) for entry in entries],
        lambda missing: _decoded(entries, settings, missing),
        told,
    )


def write_shards(
    folder: Path,
    keys: Sequence[str],
    make: Callable[[frozenset[str]], Iterable[Keyed]],
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> Shards:
    """The shards in `folder`, after `make` has made the pieces of `keys` that are not there yet.

    Raises:
        ConfigError: the folder holds something else, or another process writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _remove_damaged(folder)
        known = Shards(folder)
        missing = frozenset(key for key in keys if key not in known)
        batch: list[Keyed] = []
        n_bytes = 0
        for n_done, keyed in enumerate(make(missing) if missing else (), 1):
            batch.append(keyed)
            told(n_done, len(missing))
            n_bytes += keyed.piece.nbytes
            if len(batch) == N_PER_SHARD or n_bytes >= BYTES_PER_SHARD:
                _write(folder, batch)
                batch, n_bytes = [], 0
        if batch:
            _write(folder, batch)
    return Shards(folder) if missing else known


def _decoded(
    entries: Sequence[Entry], settings: PieceSettings, missing: frozenset[str]
) -> Iterator[Keyed]:
    """Each recording once, in the manifest's order."""
    wanted: defaultdict[tuple[Path, str], dict[str, Span | None]] = defaultdict(dict)
    seen: set[str] = set()
    for entry in entries:
        key = key_of(entry, settings)
        if key in missing and key not in seen:  # two files may hold the same bytes
            seen.add(key)
            wanted[entry.path, entry.digest][key] = entry.span
    for (path, digest), spans in wanted.items():
        if digest_of(path) != digest:
            msg = f"{path}: has changed since the manifest was read; start again"
            raise SourceError(msg)
        keys = list(spans)
        for nth, piece in read_pieces(path, list(spans.values()), settings):
            yield Keyed(keys[nth], piece)


def _span_text(span: Span | None) -> str:
    return f"{span.start_ns}-{span.end_ns}" if span else "all"


def _places(folder: Path) -> list[Path]:
    """The shards' folders.

    Raises:
        ConfigError: something else is there too.
    """
    places = []
    for place in sorted(folder.iterdir()):
        if place.name.startswith("."):
            continue
        if not (_IS_DIGEST.fullmatch(place.name) and (place / _INDEX).is_file()):
            msg = f"{place}: no shard of mmstream; allowed: an empty folder, or one of shards only"
            raise ConfigError(msg)
        places.append(place)
    return places


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else writes there; what an interrupted writer left is removed."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"{folder}: another process writes shards there; wait, or name another folder"
            raise ConfigError(msg) from None
        for part in folder.glob(f"{_PART}*"):
            shutil.rmtree(part)
        yield


def _remove_damaged(folder: Path) -> None:
    """Read every byte of every shard; those that are not as they were written go."""
    for place in _places(folder):
        try:
            _Shard(place).verify()
        except ConfigError as error:
            _LOG.error("%s; it is made anew", error)
            shutil.rmtree(place)


def _write(folder: Path, batch: Sequence[Keyed]) -> None:
    part = Path(tempfile.mkdtemp(prefix=_PART, dir=folder))
    keys = tuple(keyed.key for keyed in batch)
    arrays = {
        name: _save(part / f"{name}.npy", [_array(keyed.piece, name) for keyed in batch])
        for name in _NAMES
    }
    index = _Index(keys=keys, arrays=arrays)
    (part / _INDEX).write_text(index.model_dump_json(), "utf-8")
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


class _Shard:
    """One shard, mapped."""

    def __init__(self, place: Path) -> None:
        """Read its index, map its arrays.

        Raises:
            ConfigError: it is damaged, or no shard.
        """
        self._place = place
        try:
            self._index = _Index.model_validate_json((place / _INDEX).read_text("utf-8"))
        except (ValidationError, UnicodeDecodeError):
            msg = f"{place / _INDEX}: damaged, or of another program"
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
        """
        for name, info in self._index.arrays.items():
            path = self._place / f"{name}.npy"
            if digest_of(path) != info.digest:
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
            array = np.load(path, mmap_mode="r" if 0 not in info.shape else None)
        except (OSError, ValueError):
            msg = f"{path}: missing, cut short or no array"
            raise ConfigError(msg) from None
        if array.shape != info.shape or str(array.dtype) != info.dtype:
            msg = f"{path}: holds {array.dtype} {array.shape}, not {info.dtype} {info.shape}"
            raise ConfigError(msg)
        return np.asarray(array)
