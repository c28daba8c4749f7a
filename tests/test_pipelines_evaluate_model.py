"""A trained model asked about manifests of strangers, wrong ones included."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner
from word_table import TABLE, write_table

from mmstream.cli import app
from mmstream.errors import ConfigError, MmstreamError, SinkError
from mmstream.media import Span
from mmstream.pipelines import evaluate_model
from mmstream.training.recordings import Piece, PieceSettings, read_pieces

COLOURS = "colour: [blue, red]"
TWO_TASKS = (
    TABLE.replace(
        "tasks: {word: &words [bin, set]}", f"tasks: {{word: &words [bin, set], {COLOURS}}}"
    )
    .replace("tasks: {word: *words}", f"tasks: {{word: *words, {COLOURS}}}")
    .replace("heads: {", "heads: {colour: {labels: [blue, red], n_dims: 8}, ")
)
LAST = "grid_s1/clips/sbah1a.mp4,0.61,0.91,word=set,test,sbah1a"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """The folder of a model of two tasks; its table and manifest are in the folder above."""
    folder = tmp_path_factory.mktemp("words")
    config = write_table(folder, TWO_TASKS)
    words = folder / "words.csv"
    told = re.sub(r"(word=\w+),", r"\1;colour=blue,", words.read_text("utf-8"))
    words.write_text(told, "utf-8")
    asked = ["train", str(config), "--media", str(data_dir), "--out", str(folder), "--row", "both"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    return folder / "both"


def manifest(folder: Path, *rows: str) -> Path:
    path = folder / "asked.csv"
    path.write_text("\n".join(("path,start,end,labels,split,group", *rows)), "utf-8")
    return path


def refused(trained: Path, path: Path, media: Path) -> str:
    with pytest.raises(MmstreamError) as caught:
        evaluate_model.run(trained, path, media)
    return str(caught.value)


def test_only_what_is_tested_is_decoded(
    trained: Path, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def noted(
        path: Path, spans: Sequence[Span | None], settings: PieceSettings
    ) -> Iterator[tuple[int, Piece]]:
        decoded.append(path.name)
        return read_pieces(path, spans, settings)

    monkeypatch.setattr("mmstream.training.shards.read_pieces", noted)
    train = "grid_s1/clips/bbaf2n.mp4,0.95,1.18,word=bin,train,bbaf2n"
    said = evaluate_model.run(trained, manifest(tmp_path, train, LAST), data_dir)
    assert decoded == ["sbah1a.mp4"]
    # Nothing is known of its colour.
    assert [(one.task, len(one)) for one in said] == [("word", 1)]


def test_all_that_is_wrong_with_a_manifest_is_said(
    trained: Path, tmp_path: Path, data_dir: Path
) -> None:
    rows = [LAST.replace("set", "sit"), "none.mp4,,,word=bin,test,", LAST.replace("test", "train")]
    said = refused(trained, manifest(tmp_path, *rows), data_dir).splitlines()
    place = f"{tmp_path}/asked.csv"
    assert said[0].startswith(f"{place}:2: labels: unknown word 'sit'; did you mean 'set'?")
    assert said[1].startswith(f"{place}:3: path: no such file: ")
    assert said[2] == f"{place}:4: group: 'sbah1a' is in test at line 2 and here in train"
    assert len(said) == 5
    nowhere = refused(trained, manifest(tmp_path, LAST, "none.mp4,,,,test,"), tmp_path / "none")
    assert nowhere == f"{tmp_path}/none: no such folder; --media says where recordings are"


def test_nothing_that_can_be_said(trained: Path, tmp_path: Path, data_dir: Path) -> None:
    none = manifest(tmp_path, LAST.replace("test", "val"))
    assert refused(trained, none, data_dir) == f"{none}: no examples in the split 'test'"
    unlabelled = refused(trained, manifest(tmp_path, LAST.replace("word=set", "")), data_dir)
    assert unlabelled == "colour: no example of the split has a known class"


def test_another_rate_of_the_sound_is_refused(
    trained: Path, tmp_path: Path, data_dir: Path
) -> None:
    config = trained / "best" / "config.json"
    text = config.read_text("utf-8")
    config.write_text(text.replace("16000", "32000"), "utf-8")
    try:
        said = refused(trained, manifest(tmp_path, LAST), data_dir)
    finally:
        config.write_text(text, "utf-8")
    assert "32000" in said
    assert "16000" in said


def test_figures_are_not_written_over_the_model(
    trained: Path, tmp_path: Path, data_dir: Path
) -> None:
    config = trained / "best" / "config.json"
    text = config.read_text("utf-8")
    asked = ["evaluate", str(trained), "--manifest", str(manifest(tmp_path, LAST))]
    said = CliRunner().invoke(app, [*asked, "--media", str(data_dir), "--json", str(config)])
    assert isinstance(said.exception, ConfigError)
    assert f"{config}: is read here" in str(said.exception)
    assert config.read_text("utf-8") == text


def test_a_full_disk_is_said(
    trained: Path, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", full)
    with pytest.raises(SinkError, match="cannot be written: No space left on device"):
        evaluate_model.run(trained, manifest(tmp_path, LAST), data_dir)


def test_who_is_no_checkpoint_is_refused(tmp_path: Path, data_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.json: cannot be read"):
        evaluate_model.run(tmp_path, tmp_path / "none.csv", data_dir)
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"training\.json: not the settings of a training"):
        evaluate_model.run(tmp_path, tmp_path / "none.csv", data_dir)
