"""What a manifest may say, and that all that is wrong with it is said at once."""

import json
import shutil
from pathlib import Path

import pytest

from mmstream.errors import ConfigError
from mmstream.media import Span, StreamKind, secs_to_ns
from mmstream.training.manifest import (
    Annotation,
    Entry,
    Label,
    ManifestSettings,
    class_counts,
    read_manifest,
)

HEADER = "path,start,end,labels,caption,transcript,split,group\n"
TASKS = {"digit": ("one", "two", "nine"), "colour": ("red", "blue")}
CLIP = "grid_s1/clips/bbaf2n.mp4"
OTHER = "grid_s1/clips/bbaf3s.mp4"


def read(
    path: Path, text: str, media: Path, needs: frozenset[StreamKind] = frozenset()
) -> tuple[Entry, ...]:
    path.write_text(text, "utf-8")
    return read_manifest(ManifestSettings(path=path, media=media, needs=needs, tasks=TASKS))


def refused(
    path: Path, text: str, media: Path, needs: frozenset[StreamKind] = frozenset()
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(path, text, media, needs)
    return str(caught.value).split("\n")


def test_csv_and_json_lines_say_the_same(tmp_path: Path, data_dir: Path) -> None:
    text = f'{HEADER}{CLIP},0.5,1.25,digit=two; colour=blue,"a face, close",bin blue,train,s1\n'
    (entry,) = read(tmp_path / "m.csv", text, data_dir)
    row = {
        "path": CLIP,
        "start": 0.5,
        "end": 1.25,
        "labels": {"colour": "blue", "digit": "two"},
        "caption": "a face, close",
        "transcript": "bin blue",
        "split": "train",
        "group": "s1",
    }
    (same,) = read(tmp_path / "m.jsonl", f"\n{json.dumps(row)}\n", data_dir)
    assert entry.path == (data_dir / CLIP).resolve()
    assert entry.span == Span(secs_to_ns(0.5), secs_to_ns(1.25))
    labels = (Label("colour", "blue"), Label("digit", "two"))
    assert entry.annotation == Annotation("train", labels, "a face, close", "bin blue", "s1")
    assert (same.span, same.digest, same.annotation) == (entry.span, entry.digest, entry.annotation)
    assert (entry.line, same.line) == (2, 2)


def test_the_paths_are_below_the_manifest_by_default(tmp_path: Path, data_dir: Path) -> None:
    shutil.copy(data_dir / CLIP, tmp_path / "a.mp4")
    (tmp_path / "m.csv").write_text("path,split\na.mp4,test\n", "utf-8")
    (entry,) = read_manifest(ManifestSettings(path=tmp_path / "m.csv"))
    assert entry.span is None
    assert entry.annotation == Annotation("test")


def test_all_that_is_wrong_is_said_at_once_in_order(tmp_path: Path, data_dir: Path) -> None:
    text = HEADER + "\n".join(
        (
            "grid_s1/clips/bbaf2m.mp4,,,,,,train,",
            "av_clips/pe_dog_noaudio.mp4,,,,,,train,",
            f"{CLIP},2,1,,,,train,",
            f"{CLIP},0,9,,,,train,",
            f"{CLIP},0,1,digit=tow;shape=square,,,train,",
            f"{OTHER},,,,,,trian,",
            f"{OTHER},1,,,,,train,",
            "MANIFEST.tsv,,,,,,train,",
        )
    )
    said = refused(tmp_path / "m.csv", text, data_dir, frozenset({"audio", "video"}))
    expected = (
        (2, "no such file"),
        (3, "has no audio that can be decoded"),
        (4, "end 1 is not after start 2"),
        (5, "end: 9 is beyond the recording: bbaf2n.mp4 ends at 3."),
        (6, "unknown digit 'tow'; did you mean 'two'? allowed: one, two, nine"),
        (6, "unknown task 'shape'"),
        (7, "must be train, val or test (got 'trian'); did you mean 'train'?"),
        (8, "start and end: both or none"),
        (9, "cannot be opened"),
    )
    assert len(said) == len(expected)
    for (line, text_within), one in zip(expected, said, strict=True):
        assert one.startswith(f"{tmp_path / 'm.csv'}:{line}: ")
        assert text_within in one


def test_what_leaks_between_splits_and_what_is_there_twice(tmp_path: Path, data_dir: Path) -> None:
    shutil.copy(data_dir / CLIP, tmp_path / "copy.mp4")
    text = HEADER + "\n".join(
        (
            f"{CLIP},0,1,,,,train,anna",
            f"{OTHER},0,1,,,,test,anna",
            f"{CLIP},0,1,,,,train,anna",
            f"{tmp_path / 'copy.mp4'},0.5,1.5,,,,val,",
            f"{CLIP},1.5,2,,,,test,",
        )
    )
    said = refused(tmp_path / "m.csv", text, data_dir)
    assert [one.partition(": ")[2] for one in said] == [
        "group: 'anna' is in train at line 2 and here in test",
        "the same span of the same recording as line 2",
        "split: shares time of the same recording with line 2, which is train",
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "m.csv",
            "path,split,lable\na,train,x\n",
            "2: lable: unknown column; did you mean 'labels'",
        ),
        ("m.csv", "path,split\na,b,train\n", "2: 3 cells under 2 columns"),
        ("m.csv", "path,split\n", "1: no examples"),
        ("m.csv", "path\na\n", "2: split: missing"),
        ("m.csv", "path,split,labels\na,train,two\n", "2: labels: must be task=class"),
        ("m.csv", "path,split,start,end\na,train,x,1\n", "2: start: "),
        ("m.jsonl", '{"path": "a"\n', "1: no JSON"),
        ("m.jsonl", "[1]\n", "1: "),
        ("m.txt", "", "allowed: .csv, .jsonl"),
        ("m.csv", "path,split,split\na,train,test\n", "1: split: two columns are called so"),
        ("m.csv", "path,split,\na,train,x\n", "2: a column without a name: unknown column"),
        ("m.csv", "path,split\na\0b,train\n", "2: path: 'a\\x00b' cannot be read"),
        ("m.csv", "path,split\n~ghost/a,train\n", "2: path: '~ghost/a' cannot be read: Could"),
        pytest.param("m.csv", f"path,split\n{'a' * 300},train\n", "2: path: ", id="long"),
        ("m.csv", "path,split\nloop,train\n", "2: path: "),
        (
            "m.csv",
            "path,split,start,end\na,train,1,1.0000000001\n",
            "2: end 1.0000000001 is not after start 1: an empty span",
        ),
        (
            "m.jsonl",
            '{"path": "a", "split": "train", "split": "test"}',
            "1: no JSON of a manifest: 'split' is there twice",
        ),
        pytest.param(
            "m.jsonl",
            f'{{"start": {5000 * "1"}}}',
            "1: no JSON of a manifest: Exceeds",
            id="digits",
        ),
        pytest.param(
            "m.jsonl", 100_000 * "[", "1: no JSON of a manifest: maximum recursion", id="nested"
        ),
        (
            "m.jsonl",
            '{"path": "a", "split": "train", "group": "\\ud800"}',
            "1: group: Input should be a valid string",
        ),
        ("m.jsonl", '{"path": "a", "split": "train", "start": NaN, "end": 1}', "1: start: "),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    said = refused(tmp_path / name, text, tmp_path)
    assert any(expected in one for one in said)


def test_the_same_mistake_on_many_lines_is_said_once(tmp_path: Path) -> None:
    text = "path,splt\n" + "a,train\n" * 6
    missing, unknown = refused(tmp_path / "m.csv", text, tmp_path)
    assert missing.endswith(":2: split: missing, but required (also: 3, 4, 5 and 2 more)")
    assert ":2: splt: unknown column; did you mean 'split'?" in unknown
    assert unknown.endswith("(also: 3, 4, 5 and 2 more)")


def test_what_spreadsheets_and_programs_write(tmp_path: Path, data_dir: Path) -> None:
    text = f'\n\n path,Caption ,split\n{CLIP},"a\u2028b\x85",train\n\n,,\n  \n'.lower()
    (tmp_path / "m.CSV").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (entry,) = read_manifest(ManifestSettings(path=tmp_path / "m.CSV", media=data_dir))
    assert entry.line == 4
    assert entry.annotation == Annotation("train", caption="a\u2028b")
    row = {"path": CLIP, "split": "val", "start": None, "labels": {"digit": None}, "group": " a "}
    (same,) = read(tmp_path / "m.jsonl", f"{json.dumps(row)}\r\n", data_dir)
    assert (same.span, same.annotation) == (None, Annotation("val", group="a"))


def test_a_span_that_begins_at_the_end_is_refused(tmp_path: Path, data_dir: Path) -> None:
    text = f"path,start,end,split\n{CLIP},2.9,3.05,train\n{CLIP},3.02,3.05,train\n"
    said = refused(tmp_path / "m.csv", text, data_dir)
    assert [one.partition(": ")[2] for one in said] == [
        "start: 3.02 is beyond the recording: bbaf2n.mp4 ends at 3.008"
    ]


def test_a_line_is_where_a_row_begins(tmp_path: Path, data_dir: Path) -> None:
    text = f'{HEADER}{CLIP},,,,"two\nlines",,train,\nnone.mp4,,,,,,train,\n'
    (said,) = refused(tmp_path / "m.csv", text, data_dir)
    assert said.startswith(f"{tmp_path / 'm.csv'}:4: path: no such file")


def test_classes_are_counted_by_split() -> None:
    two = (Label("digit", "two"),)
    known = [Annotation("train", two), Annotation("train", two), Annotation("test", two)]
    counts = class_counts([*known, Annotation("val")], "digit")
    assert {split: dict(each) for split, each in counts.items()} == {
        "train": {"two": 2},
        "val": {},
        "test": {"two": 1},
    }
