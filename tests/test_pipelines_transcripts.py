"""The file of transcripts: what its rows mean; all that is wrong in it is said at once."""

from pathlib import Path

import pytest

from mmstream.errors import ConfigError
from mmstream.pipelines.transcripts import Transcript, is_of_words, read

HEADER = "# by ear\nfile\ttranscript\tlanguage\tnote"


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    (folder / "a.wav").touch()
    (folder / "b.wav").touch()
    path = folder / "truth.tsv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read(path, path.parent)
    return str(raised.value).splitlines()


def test_rows_are_read_by_the_names_of_their_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "a.wav\tOne, two.\ten-GB\tloud", "b.wav\tdrei")
    assert is_of_words(path)
    assert read(path, tmp_path) == (
        Transcript("a.wav", "One, two.", "en-GB"),
        Transcript("b.wav", "drei", ""),
    )
    path = write(tmp_path, "eins\tb.wav", header="transcript\tfile")
    assert read(path, tmp_path) == (Transcript("b.wav", "eins", ""),)


def test_everything_wrong_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a.wav\tone\ten-US\tfine",
        "a.wav\ttwo\ten-US",
        "b.waw\tone",
        "b.wav\t\ten-US",
        "b.wav",
        "\tone",
        "b.wav\t...",
        "b.wav\tone\ten-US\tfine\tmore",
    )
    assert [line.removeprefix(f"{path}:") for line in problems(path)] == [
        "4: a.wav has a transcript already; allowed: one row for each file",
        f"5: no file {tmp_path / 'b.waw'}; did you mean '{tmp_path / 'b.wav'}'?",
        "6: transcript is empty",
        "7: transcript is empty",
        "8: file is empty",
        "9: no word in the transcript '...'",
        "10: 5 cells; allowed: 4, one for each column",
    ]


def test_a_header_names_known_columns_once(tmp_path: Path) -> None:
    path = write(tmp_path, "a.wav\tone", header="transcript\tlangauge\ttranscript")
    twice, unknown, missing = problems(path)
    assert twice == f"{path}:1: column transcript is there twice"
    assert "1: no column 'langauge'; did you mean 'language'? allowed: file, transcript" in unknown
    assert "1: column file is missing" in missing


def test_files_that_say_nothing_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert problems(path) == [f"{path}: no row"]
    path.write_text("# nothing\n")
    assert "the first row must name the columns" in problems(path)[0]
    path.write_bytes(b"file\ttranscript\xff")
    assert not is_of_words(path)
    assert problems(path) == [f"{path}: no UTF-8 text"]
    assert "did you mean" in problems(path.with_name("truht.tsv"))[0]
    with pytest.raises(ConfigError, match="--media: no folder"):
        read(write(tmp_path, "a.wav\tone"), tmp_path / "none")


def test_a_truth_of_events_is_not_of_words(tmp_path: Path) -> None:
    assert not is_of_words(write(tmp_path, header="file\tevent\tstart_s\tend_s\ttranscript?"))
