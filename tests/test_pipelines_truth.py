"""The file of labelled times: what its rows mean; all that is wrong in it is said at once."""

from pathlib import Path

import pytest

from mmstream.errors import ConfigError
from mmstream.media import Span, secs_to_ns
from mmstream.pipelines.truth import Judged, read

HEADER = "# by eye\nfile\tevent\tstart_s\tend_s\tnote\n"
LABELS = ("motion", "person", "speech")


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    (folder / "a.mp4").touch()
    (folder / "b.mp4").touch()
    path = folder / "truth.tsv"
    path.write_text(header + "".join(row.replace(" ", "\t") + "\n" for row in rows))
    return path


def problems(path: Path, *only: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read(path, path.parent, LABELS, only)
    return str(raised.value).splitlines()


def span(start_secs: float, end_secs: float) -> Span:
    return Span(secs_to_ns(start_secs), secs_to_ns(end_secs))


def test_rows_are_grouped_by_file_and_label_in_order_of_time(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a.mp4 motion 5 6.25 a_car",
        "a.mp4 motion 1 2",
        "b.mp4 motion",
        "a.mp4 ?speech 0 1",
        "a.mp4 ?motion 2 3",
    )
    assert read(path, tmp_path, LABELS) == (
        Judged("a.mp4", "motion", (span(1, 2), span(5, 6.25)), (span(2, 3),)),
        Judged("b.mp4", "motion", (), ()),
        Judged("a.mp4", "speech", (), (span(0, 1),)),
    )


def test_other_labels_are_passed_over_when_only_some_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "a.mp4 motion 1 2", "nosuch.mp4 unheard_of 1 2")
    assert [one.label for one in read(path, tmp_path, LABELS, ["motion"])] == ["motion"]
    assert problems(path, "person") == [f"{path}: no row for person"]
    assert "did you mean 'person'" in problems(path, "persn")[0]


def test_everything_wrong_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a.mp4 motoin 1 2",
        "a.mp4 motoin 3 4",
        "a.mp4 motion one 2",
        "a.mp4 motion 2 1",
        "a.mp4 motion 2",
        "a.mp4 motion nan 2",
        "a.mp4 motion -1 2",
        "a.mpg motion 1 2",
        "a.mp4 ?speech",
        "a.mp4",
        "a.mp4 ? 1 2",
        "b.mp4 person 1 3",
        "b.mp4 person 2 4",
        "b.mp4 person",
        "b.mp4 ?person 2.5 2.75",
        "a.mp4 speech 1 1e300",
    )
    lines = problems(path)
    said = {int(line.removeprefix(f"{path}:").split(":")[0]): line for line in lines}
    assert set(said) == {3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18}
    assert len(lines) == len(said)
    assert "did you mean 'motion'? allowed: motion, person, speech" in said[3]
    assert "start_s" in said[5]
    assert "'one'" in said[5]
    assert "end_s 1 is not after start_s 2" in said[6]
    assert "end_s" in said[7]
    assert f"did you mean '{tmp_path / 'a.mp4'}'" in said[10]
    assert "line 14" in said[15]
    assert "line 14" in said[16]


def test_spans_that_touch_do_not_overlap(tmp_path: Path) -> None:
    path = write(tmp_path, "a.mp4 motion 1 2", "a.mp4 motion 2 3", "a.mp4 ?motion 3 4")
    assert len(read(path, tmp_path, LABELS)[0].truths) == 2


@pytest.mark.parametrize("header", ["", "a.mp4\tmotion\t1\t2\n", "file,event,start_s,end_s\n"])
def test_a_file_without_the_header_is_refused(tmp_path: Path, header: str) -> None:
    path = write(tmp_path, header=header)
    assert problems(path) == [
        f"{path}:1: the first row must be file event start_s end_s, separated by tabs"
    ]


def test_what_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.mp4 motion 1 2")
    assert "did you mean" in problems(tmp_path / "truht.tsv")[0]
    with pytest.raises(ConfigError, match=r"--media: no folder .*nosuch"):
        read(path, tmp_path / "nosuch", LABELS)
    path.write_bytes(b"file\xff")
    assert problems(path) == [f"{path}: no UTF-8 text"]
