"""Pre-train from a file to its figures: real clips, interrupted, and told what is wrong."""

import json
import signal
from pathlib import Path

import pretrain_world as world
import pytest
import yaml
from typer.testing import CliRunner

from mmstream.cli import app
from mmstream.errors import ConfigError, SinkError
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, AvpSettings
from mmstream.pipelines import pretrain as recipe
from mmstream.pipelines.train_progress import Shown
from mmstream.training import state
from mmstream.training.loop import StepRecord
from mmstream.training.matching import Matched
from mmstream.training.pretrain import HISTORY, STATE, PretrainRecord

_CLIPS = ("bbaf2n", "bbaf3s", "bbaf4p")
SETTINGS = json.loads(world.settings().model_dump_json())


def write(folder: Path, **changes: object) -> Path:
    """A configuration, and the manifest of four clips, a bark and a stranger that it reads."""
    clips = [f"grid_s1/clips/{name}.mp4" for name in _CLIPS]
    rows = [f"{clip},sound=speech,train" for clip in clips[:2]]
    rows += ["esc10/audio/1-30226-A-0.ogg,sound=bark,train", f"{clips[2]},sound=speech,test"]
    (folder / "clips.csv").write_text("\n".join(["path,labels,split", *rows, ""]), "utf-8")
    stranger = ["path,labels,split", "grid_s1/clips/sbaa4n.mp4,sound=speech,test", ""]
    (folder / "strangers.csv").write_text("\n".join(stranger), "utf-8")
    of = {
        **SETTINGS,
        "data": {**SETTINGS["data"], "path": "clips.csv"},
        "unseen": {"path": "strangers.csv"},
        "optimise": {"n_epochs": 2, "n_batch": 1},
        **changes,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(of), "utf-8")
    return path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """The folder of a pre-training: interrupted on its way, and gone on with."""
    folder = tmp_path_factory.mktemp("tiny")
    config = write(folder)
    asked = ["pretrain", str(config), "--media", str(data_dir), "--out", str(folder / "out")]
    tell = recipe._tell  # noqa: SLF001 - presses Ctrl-C on its way

    def pressed(shown: Shown, record: StepRecord | PretrainRecord) -> None:
        tell(shown, record)
        if isinstance(record, PretrainRecord) and record.n_steps == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recipe, "_tell", pressed)
        stopped = CliRunner().invoke(app, asked)
    assert stopped.exit_code == 1
    again = f"go on with: mmstream pretrain {config} --media={data_dir} --out={folder}/out"
    assert again in stopped.output
    assert "avp: step 2 of 4: contrast " in stopped.output
    assert not (folder / "out" / "results.json").exists()
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "avp: step 2 of 4" not in done.output
    (folder / "said").write_text(done.stdout, "utf-8")
    return folder / "out"


def test_it_says_what_came_of_it_and_where(out: Path) -> None:
    said = (out.parent / "said").read_text("utf-8").splitlines()
    assert said[-1] == str(out / "best")
    (test,) = (line for line in said if line.startswith("test split: "))
    assert "of 1, R@1/5/10 100.0 / 100.0 / 100.0 %" in test
    assert any(line.startswith("people it has not seen: offset ") for line in said)
    record = json.loads((out / "results.json").read_text("utf-8"))
    report = recipe.Report.model_validate(record["result"])
    assert report.folder == out / "best"
    assert (report.test.n, report.unseen is not None) == (1, True)
    assert report.secs > 0
    assert {"commit", "versions"} <= record.keys()
    read = checkpoint.read(out / "best", AvpSettings, task=TASK, rate_hz=16_000)
    assert report.id == read.id
    card = (out / "best" / "card.md").read_text("utf-8")
    assert f"# best\n\n{report.n_parameters:,} weights. Sound at 16000 Hz" in card
    assert "people it has not seen" in card
    assert [json.loads(line)["n_steps"] for line in (out / HISTORY).read_text().splitlines()] == [
        2,
        4,
    ]


def test_what_is_finished_is_only_tested_again(out: Path, data_dir: Path) -> None:
    before = (out / "best" / "model.safetensors").stat().st_mtime_ns
    record = json.loads((out / "results.json").read_text("utf-8"))
    settings = recipe.read_settings(out.parent / "tiny.yaml", media=data_dir)
    report = recipe.run(settings, out, {})
    assert report == recipe.Report.model_validate(record["result"])
    assert (out / "best" / "model.safetensors").stat().st_mtime_ns == before


def test_strangers_are_known_where_chance_is_beaten() -> None:
    found = Matched(n=100, offset=0.9, recall_1=0, recall_5=0, recall_10=0)
    report = recipe.Report(
        id="a", folder=Path("best"), n_parameters=1, secs=60, test=found, unseen=found
    )
    assert report.knows_strangers
    assert "guessing" not in recipe.plain(report)
    guessed = report.model_copy(update={"unseen": found.model_copy(update={"offset": 0.15})})
    assert not guessed.knows_strangers
    assert recipe.plain(guessed).splitlines()[2].endswith("which guessing does too")
    assert not report.model_copy(update={"unseen": None}).knows_strangers


def refused(folder: Path, data_dir: Path | None, **changes: object) -> str:
    """What is said of a configuration; nothing is trained."""
    config = write(folder, **changes)
    places = ["--media", str(data_dir)] if data_dir else []
    asked = CliRunner().invoke(app, ["pretrain", str(config), *places, "--out", f"{folder}/out"])
    assert isinstance(asked.exception, ConfigError), asked.output
    assert not (folder / "out" / STATE).exists()
    return str(asked.exception).replace(f"{folder}/", "")


def test_mistakes_are_said_with_their_place(tmp_path: Path, data_dir: Path) -> None:
    said = refused(tmp_path, data_dir, optimise={"epochs": 3})
    lines = (tmp_path / "tiny.yaml").read_text("utf-8").splitlines()
    line = 1 + next(n for n, one in enumerate(lines) if "epochs: 3" in one)
    assert said.startswith(f"tiny.yaml:{line}:3: optimise.epochs: unknown key; did you mean")
    said = refused(tmp_path, data_dir, left_out=["cat"])
    assert said.startswith("tiny.yaml:1:1: ")
    assert "left_out: no such sound 'cat'" in said
    assert "optimise.n_batch" in refused(tmp_path, data_dir, optimise={"n_batch": 3})
    unknown = SETTINGS["data"] | {"path": "clips.csv", "tasks": {"sound": ["speech", "brk"]}}
    assert "clips.csv:4: labels: unknown sound 'bark'; did you mean 'brk'?" in refused(
        tmp_path, data_dir, data=unknown
    )


def test_what_is_missing_is_said_in_one_line_before_hours_are_spent(
    tmp_path: Path, data_dir: Path
) -> None:
    nowhere = tmp_path / "none"
    assert refused(tmp_path, nowhere) == "none: no such folder; --media says where recordings are"
    gone = refused(tmp_path, data_dir, unseen={"path": "gone.csv"})
    assert gone.startswith("gone.csv: ")
    assert "\n" not in gone
    lonely = tmp_path / "lonely.csv"
    lonely.write_text("path,labels,split\nesc10/audio/1-30226-A-0.ogg,sound=bark,test\n", "utf-8")
    said = refused(tmp_path, data_dir, unseen={"path": "lonely.csv"})
    assert said.startswith("unseen: no example of the split 'test' has sound and pictures for 2 s")


def test_what_cannot_be_written_is_said(
    out: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe.read_settings(out.parent / "tiny.yaml", media=data_dir)
    with state.alone(out), pytest.raises(ConfigError, match="another process works there"):
        recipe.run(settings, out, {})

    def full(*_args: object, **_named: object) -> None:
        raise OSError(28, "No space left on device", "x.json")

    monkeypatch.setattr(recipe, "match", full)
    with pytest.raises(SinkError, match=r"^x\.json: No space left on device; what is saved"):
        recipe.run(settings, out, {})


def test_a_value_may_be_set_from_outside(data_dir: Path) -> None:
    config = Path(recipe.__file__).parents[1] / "benchmarks" / "train" / "avp.yaml"
    overrides = ["left_out=[rain,rooster]", "optimise.n_epochs=20"]
    settings = recipe.read_settings(config, media=data_dir, overrides=overrides)
    assert settings.left_out == ("rain", "rooster")
    assert settings.optimise.n_epochs == 20
    with pytest.raises(ConfigError, match="n_epoch"):
        recipe.read_settings(config, media=data_dir, overrides=["optimise.n_epoch=20"])
