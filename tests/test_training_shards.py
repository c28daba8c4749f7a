"""What was decoded once is found again, and only if it is what was asked for."""

import errno
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from mmstream.errors import ConfigError, SinkError, SourceError
from mmstream.features.audio import LogMelSettings
from mmstream.media import NS_PER_SEC, Span
from mmstream.training.dataset import (
    UNKNOWN,
    Example,
    ExampleDataset,
    Item,
    shuffled,
    targets,
)
from mmstream.training.manifest import Annotation, Entry, Label
from mmstream.training.recordings import (
    PictureSettings,
    Piece,
    PieceSettings,
    SoundSettings,
    digest_of,
    read_pieces,
)
from mmstream.training.shards import Keyed, Shards, build_shards, key_of, write_shards

SETTINGS = PieceSettings(sound=SoundSettings(), pictures=PictureSettings(width=16, height=16))
SECOND = Span(NS_PER_SEC, 2 * NS_PER_SEC)


@pytest.fixture
def entries(data_dir: Path) -> list[Entry]:
    names = ("grid_s1/clips/bbaf2n.mp4", "fsdd/recordings/2_jackson_0.flac")
    paths = [data_dir / name for name in names]
    known = Annotation("train", (Label("digit", "two"),))
    clip, word = ((path, digest_of(path)) for path in paths)
    return [
        Entry(2, clip[0], SECOND, clip[1], known),
        Entry(3, clip[0], None, clip[1], Annotation("train")),
        Entry(4, word[0], None, word[1], known),
    ]


def counted(folder: Path, entries: list[Entry], settings: PieceSettings = SETTINGS) -> int:
    """How many pieces had to be decoded."""
    told: list[tuple[int, int]] = []
    build_shards(folder, entries, settings, lambda done, n: told.append((done, n)))
    assert told == [(nth, len(told)) for nth in range(1, len(told) + 1)]
    return len(told)


def same(one: Piece, other: Piece) -> bool:
    pairs = (
        (one.sound, other.sound),
        (one.heard, other.heard),
        (one.pictures, other.pictures),
        (one.at_ns, other.at_ns),
    )
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def test_pieces_come_back_as_they_were(tmp_path: Path, entries: list[Entry]) -> None:
    shards = build_shards(tmp_path, entries, SETTINGS)
    for entry in entries:
        ((_, true),) = read_pieces(entry.path, [entry.span], SETTINGS)
        found = shards[key_of(entry, SETTINGS)]
        assert same(found, true)
        assert not found.sound.flags.writeable
    again = pickle.loads(pickle.dumps(shards))  # noqa: S301 - our own
    assert len(again) == 3
    assert not list(tmp_path.glob(".part-*"))


def test_only_what_is_new_is_decoded(tmp_path: Path, entries: list[Entry]) -> None:
    assert counted(tmp_path, entries[1:]) == 2
    assert counted(tmp_path, entries) == 1
    assert counted(tmp_path, [*entries[::-1], entries[0]]) == 0
    mel = PieceSettings(sound=SoundSettings(log_mel=LogMelSettings(n_mels=64)))
    assert counted(tmp_path, entries, mel) == 3
    assert len(Shards(tmp_path)) == 6


def test_an_interrupted_build_goes_on(
    tmp_path: Path, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmstream.training.shards.N_PER_SHARD", 1)
    keys = [key_of(entry, SETTINGS) for entry in entries]
    ((_, piece),) = read_pieces(entries[2].path, [None], SETTINGS)
    (tmp_path / ".part-left").mkdir()

    def breaks_off(_missing: frozenset[str]) -> Iterator[Keyed]:
        yield Keyed(keys[2], piece)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, keys, breaks_off)
    assert counted(tmp_path, entries) == 2
    assert not list(tmp_path.glob(".part-*"))


@pytest.mark.parametrize("name", ["sound.npy", "pictures.npy", "index.json"])
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_damaged_shard_is_noticed_and_made_anew(
    tmp_path: Path, entries: list[Entry], name: str, *, is_cut: bool
) -> None:
    build_shards(tmp_path, entries[2:], SETTINGS)
    build_shards(tmp_path, entries, SETTINGS)
    (hurt,) = (
        path
        for path in tmp_path.glob(f"*/{name}")
        if '"keys":["' + key_of(entries[0], SETTINGS) in (path.parent / "index.json").read_text()
    )
    data = hurt.read_bytes()
    flipped = data[:-9] + bytes([data[-9] ^ 255]) + data[-8:]
    hurt.write_bytes(data[:-9] if is_cut else flipped)
    assert counted(tmp_path, entries) == 2
    assert counted(tmp_path, entries) == 0


def test_a_foreign_folder_is_left_alone(tmp_path: Path, entries: list[Entry]) -> None:
    foreign = tmp_path / "photos" / "index.json"
    foreign.parent.mkdir()
    foreign.write_text("{}")
    with pytest.raises(ConfigError, match="photos: no shard of mmstream"):
        build_shards(tmp_path, entries, SETTINGS)
    assert foreign.read_text() == "{}"


def test_one_process_writes_at_a_time(tmp_path: Path, entries: list[Entry]) -> None:
    def meanwhile(_missing: frozenset[str]) -> Iterable[Keyed]:
        with pytest.raises(ConfigError, match="another process"):
            build_shards(tmp_path, entries, SETTINGS)
        return ()

    write_shards(tmp_path, ["key"], meanwhile)


def test_who_finds_all_he_needs_waits_for_nobody(tmp_path: Path, entries: list[Entry]) -> None:
    build_shards(tmp_path, entries, SETTINGS)

    def meanwhile(_missing: frozenset[str]) -> Iterable[Keyed]:
        assert counted(tmp_path, entries) == 0
        return ()

    write_shards(tmp_path, ["key"], meanwhile)


def test_a_disk_that_gets_full_leaves_nothing_half(
    tmp_path: Path, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_others: object, **_named: object) -> None:
        path.write_bytes(b"as much as there is room for")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("numpy.save", full)
        with pytest.raises(SinkError, match="cannot be written: No space left on device"):
            build_shards(tmp_path, entries, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert counted(tmp_path, entries) == 3


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_a_shard_that_cannot_be_opened_is_not_removed(
    tmp_path: Path, entries: list[Entry], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    build_shards(tmp_path, entries[2:], SETTINGS)

    def refused(*_arguments: object, **_named: object) -> None:
        raise OSError(number, "of no use now")

    with monkeypatch.context() as patched:
        patched.setattr("numpy.load", refused)
        with pytest.raises(SourceError, match="cannot be read: of no use now"):
            build_shards(tmp_path, entries, SETTINGS)
    assert counted(tmp_path, entries[2:]) == 0


def test_a_shard_that_lost_power_is_made_anew(tmp_path: Path, entries: list[Entry]) -> None:
    build_shards(tmp_path, entries[2:], SETTINGS)
    (hurt,) = tmp_path.glob("*/sound.npy")
    hurt.write_bytes(b"")
    assert counted(tmp_path, entries[2:]) == 1


def test_a_removal_that_is_interrupted_goes_on(
    tmp_path: Path, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_shards(tmp_path, entries[2:], SETTINGS)
    (hurt,) = tmp_path.glob("*/sound.npy")
    hurt.write_bytes(b"")

    def killed(place: Path) -> None:
        (place / "index.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            build_shards(tmp_path, entries[2:], SETTINGS)
    assert counted(tmp_path, entries[2:]) == 1


def test_a_recording_that_is_gone_is_said(tmp_path: Path, entries: list[Entry]) -> None:
    gone = replace(entries[0], path=tmp_path / "gone.mp4")
    with pytest.raises(SourceError, match=r"gone\.mp4: cannot be read any more: No such file"):
        build_shards(tmp_path / "shards", [gone], SETTINGS)


def test_a_recording_that_changed_is_refused(tmp_path: Path, entries: list[Entry]) -> None:
    one = entries[0]
    changed = Entry(one.line, one.path, one.span, "0" * 32, one.annotation)
    with pytest.raises(SourceError, match="has changed"):
        build_shards(tmp_path, [changed], SETTINGS)


def first(batch: list[Example]) -> Example:
    return batch[0]


def test_examples_reach_the_processes_of_a_loader(tmp_path: Path, entries: list[Entry]) -> None:
    shards = build_shards(tmp_path, entries, SETTINGS)
    items = [Item(key_of(entry, SETTINGS), entry.annotation) for entry in entries]
    data = ExampleDataset(items, shards)
    order = shuffled(len(data), seed=1, epoch=0)
    loader = DataLoader(data, sampler=order, collate_fn=first, num_workers=1)
    examples = list(loader)
    assert [example.index for example in examples] == order
    clip = data[0]
    assert clip.sound.shape == (16_000,)
    assert clip.heard.all()
    assert clip.pictures.shape == (25, 16, 16, 1)
    assert clip.at_secs.tolist() == pytest.approx([n / 25 for n in range(25)])
    assert targets([item.annotation for item in items], "digit", ("one", "two")).tolist() == [
        1,
        UNKNOWN,
        1,
    ]
    with pytest.raises(KeyError):
        ExampleDataset([Item("none", Annotation("train"))], shards)


def test_each_epoch_has_its_order() -> None:
    orders = [tuple(shuffled(50, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert tuple(shuffled(50, seed=1, epoch=0)) == orders[2]
