"""Pieces of recordings, decoded once and kept in files that are mapped into memory.

    folder/.lock
    folder/<digest of its keys>/    a shard, see mmstream.training.shard

A piece is found by its key: a hash of the recording's bytes, the span and the settings. So what a
manifest says of it (labels, splits, captions) may change, rows may come and go, and nothing is
decoded again. A shard is written beside its place and renamed into it whole, and never changed:
whoever is interrupted goes on with the next, and who finds all he needs waits for nobody. Shards
that are damaged are removed and made anew.
"""

import fcntl
import logging
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mmstream.errors import ConfigError, SourceError
from mmstream.media import Span
from mmstream.training.manifest import Entry
from mmstream.training.recordings import Piece, PieceSettings, digest_of, read_pieces
from mmstream.training.shard import INDEX, PART, Keyed, Shard, hashed, write_shard, writing

__all__ = ["Keyed", "Shards", "build_shards", "hashed", "key_of", "write_shards"]

N_PER_SHARD: Final = 2048
"""Pieces in a shard at most: each mapped file costs a descriptor."""
BYTES_PER_SHARD: Final = 64 * 1024 * 1024
"""A shard that has come to so much is written; what an interruption may cost."""

_IS_DIGEST: Final = re.compile("[0-9a-f]{32}")
_LOG: Final = logging.getLogger(__name__)


class Shards:
    """A folder of shards, open for reading.

    Pieces are views into mapped files: nothing is read before it is looked at. It may be pickled
    (for the processes of a `DataLoader`), and maps the files again where it arrives.
    """

    def __init__(self, folder: Path) -> None:
        """Look into every shard there: its index, and its arrays' shapes.

        Raises:
            ConfigError: something else than shards is there, or a shard is damaged.
            SourceError: a shard cannot be read.
        """
        self._folder = folder
        self._shards = [Shard(place) for place in _places(folder)]
        self._places = {
            key: (shard, nth) for shard in self._shards for nth, key in enumerate(shard.keys)
        }

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: str) -> Piece:
        shard, nth = self._places[key]
        return shard.piece(nth)

    def __reduce__(self) -> tuple[type["Shards"], tuple[Path]]:
        return (Shards, (self._folder,))

    def verify(self) -> None:
        """Read all of them.

        Raises:
            ConfigError: a byte is not as it was written.
            SourceError: a shard cannot be read.
        """
        for shard in self._shards:
            shard.verify()


def key_of(entry: Entry, settings: PieceSettings) -> str:
    """Where the piece of `entry` is found: the same bytes, span and settings, the same key."""
    return hashed(entry.digest, _span_text(entry.span), settings.model_dump_json())


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
        SourceError: a recording cannot be read any more, or a shard cannot.
        SinkError: there is no room for them.
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
        SourceError: a shard cannot be read.
        SinkError: there is no room for them.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    whole = _whole(folder, keys)
    if whole is not None:
        return whole
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
                write_shard(folder, batch)
                batch, n_bytes = [], 0
        if batch:
            write_shard(folder, batch)
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
        try:
            is_same = digest_of(path) == digest
        except OSError as error:
            msg = f"{path}: cannot be read any more: {error.strerror}"
            raise SourceError(msg) from None
        if not is_same:
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
        if not (_IS_DIGEST.fullmatch(place.name) and (place / INDEX).is_file()):
            msg = f"{place}: no shard of mmstream; allowed: an empty folder, or one of shards only"
            raise ConfigError(msg)
        places.append(place)
    return places


def _whole(folder: Path, keys: Sequence[str]) -> Shards | None:
    """What is there, if that is all of `keys` and nothing is damaged."""
    try:
        known = Shards(folder)
        if any(key not in known for key in keys):
            return None
        known.verify()
    except ConfigError:
        return None
    return known


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else writes there; what an interrupted writer left is removed."""
    with writing(folder):
        lock = (folder / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"{folder}: another process writes shards there; wait, or name another folder"
            raise ConfigError(msg) from None
        with writing(folder):
            for part in folder.glob(f"{PART}*"):
                shutil.rmtree(part)
        yield


def _remove_damaged(folder: Path) -> None:
    """Read every byte of every shard; those that are not as they were written go."""
    for place in _places(folder):
        try:
            Shard(place).verify()
        except ConfigError as error:
            _LOG.error("%s; it is made anew", error)
            with writing(folder):
                part = place.rename(folder / f"{PART}{place.name}")  # half of it is no shard
                shutil.rmtree(part)
