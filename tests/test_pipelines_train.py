"""Train from a table to its report: real clips, interrupted, continued, told what is wrong."""

import json
import resource
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # it has none
    EventAccumulator,
)
from typer.testing import CliRunner
from word_table import TABLE, write_table

from mmstream.benchmarks import machine
from mmstream.cli import EXIT_FAILED, app
from mmstream.errors import ConfigError, SinkError
from mmstream.pipelines import evaluate_model, train
from mmstream.pipelines.train_plan import Plan, check, read_data
from mmstream.pipelines.train_progress import showing
from mmstream.training import history, state
from mmstream.training.dataset import Example, ExampleDataset
from mmstream.training.report_events import EventLog
from mmstream.training.results import Figures, TableResult
from mmstream.training.state import alone

N_TEST = 4
FOLDS = """\
  fold: {seed: 1, data: {path: fold.csv}, test: {snr_db: [-10]}}
  audio-fold:
    data: {path: fold.csv}
    model: {video: null, fusion: {type: concat, modalities: [audio], n_dims: 8}}
    test: {snr_db: [-10]}
pools:
  sound: {rows: [audio, audio-fold]}
  folds: {rows: [both, fold], against: [sound]}
"""


class Killed(Exception):  # noqa: N818 - stands for a process that is gone
    pass


def write_folds(folder: Path) -> Path:
    """The table with a second fold, which is tested on four words that the first is trained on."""
    config = write_table(folder, TABLE + FOLDS)
    text = (folder / "words.csv").read_text("utf-8").replace(",test,", ",train,")
    for word in ("bbaf2n", "bbaf3s", "sbaa4n", "sbaa5s"):
        text = text.replace(f",train,{word}\n", f",test,{word}\n")
    (folder / "fold.csv").write_text(text, "utf-8")
    return config


def plan(config: Path, data: Path, names: Sequence[str] = (), *, out: Path) -> Plan:
    return check(config, names, media=data, folder=out, command="mmstream train words.yaml")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """The folder of a table that was trained; the table beside it."""
    folder = tmp_path_factory.mktemp("words")
    config = write_folds(folder)
    report = train.run(plan(config, data_dir, out=folder / "out"), {"commit": "abc"})
    assert report is not None
    assert report.page == folder / "out" / "report.html"
    return folder / "out"


def results(out: Path) -> TableResult:
    record = json.loads((out / "results.json").read_text("utf-8"))
    assert record.pop("commit") == "abc"
    return TableResult.model_validate(record)


def test_every_row_is_trained_tested_and_reported(done: Path) -> None:
    table = results(done)
    assert table.conditions("word") == (
        "test",
        "-10 dB",
        "without audio",
        "sound of another word",
        "again",
    )
    audio, both, fold, _ = table.rows
    assert [one.condition for one in audio.figures] == ["test", "-10 dB"]
    assert {one.n for one in both.figures} == {N_TEST}
    assert (both.n_epochs, both.seed, both.device) == (2, 0, "cpu")
    assert both.of("word", "test") == figures_of("test", both.of("word", "again"))
    hidden, whole = both.of("word", "without audio"), both.of("word", "test")
    assert hidden is not None
    assert whole is not None
    assert hidden.gates == {"audio": 0.0, "video": 1.0}
    assert 0 < whole.gates["audio"] < 1
    assert [(one.against, one.condition) for one in both.versus] == [
        ("audio", "test"),
        ("audio", "-10 dB"),
    ]
    assert (fold.seed, fold.checkpoint == both.checkpoint) == (1, False)
    for name in ("report.html", "table.md", "table-word.png", "both/curves.png"):
        assert (done / name).stat().st_size > 1000 or name == "table.md"
    assert "| without audio | word |" in (done / "both" / "best" / "card.md").read_text("utf-8")


def test_a_pool_is_the_test_of_its_rows_as_one(done: Path) -> None:
    table = results(done)
    sound, folds = table.pools
    of = {one.name: one for one in table.tested}
    for condition in ("test", "-10 dB"):
        both, fold, pool = (of[name].of("word", condition) for name in ("both", "fold", "folds"))
        assert both is not None
        assert fold is not None
        assert pool is not None
        assert (pool.n, pool.accuracy) == (2 * N_TEST, (both.accuracy + fold.accuracy) / 2)
        mean = (both.cross_entropy + fold.cross_entropy) / 2
        assert pool.cross_entropy == pytest.approx(mean)
    assert folds.minutes == of["both"].minutes + of["fold"].minutes
    assert [one.condition for one in folds.versus] == ["test", "-10 dB"]
    for one in folds.versus:
        mine, theirs = folds.of("word", one.condition), sound.of("word", one.condition)
        assert mine is not None
        assert theirs is not None
        assert one.comparison.difference == mine.accuracy - theirs.accuracy
    assert (done / "folds" / "confusion-word.png").exists()
    assert "both, fold as one" in (done / "report.html").read_text("utf-8")


def figures_of(condition: str, one: Figures | None) -> Figures | None:
    return one and one.model_copy(update={"condition": condition})


def test_what_is_finished_is_not_trained_or_asked_again(done: Path, data_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.safetensors")}
    page = (done / "report.html").read_bytes()
    report = train.run(plan(done.parent / "words.yaml", data_dir, out=done), {"commit": "abc"})
    assert report is not None
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*.safetensors")} == before
    assert (done / "report.html").read_bytes() == page


def test_a_model_is_asked_about_another_manifest(done: Path, data_dir: Path) -> None:
    config = done.parent / "words.yaml"
    (said,) = evaluate_model.run(done / "both", config.with_name("words.csv"), data_dir)
    both = results(done).rows[1].of("word", "test")
    assert both is not None
    assert (len(said), said.accuracy) == (N_TEST, both.accuracy)
    assert said.cross_entropy == pytest.approx(both.cross_entropy)
    (task,) = evaluate_model.tasks([said])
    assert sum(map(sum, task.confusion)) == N_TEST
    no_test = done.parent / "no_test.csv"
    rows = config.with_name("words.csv").read_text("utf-8").splitlines()
    no_test.write_text("\n".join(row for row in rows if ",test," not in row), "utf-8")
    with pytest.raises(ConfigError, match="no examples in the split 'test'"):
        evaluate_model.run(done / "both" / "best", no_test, data_dir)


def test_evaluate_prints_and_writes_what_a_model_said(
    done: Path, tmp_path: Path, data_dir: Path
) -> None:
    manifest, files = done.parent / "words.csv", (tmp_path / "said.json", tmp_path / "said.png")
    asked = ["evaluate", str(done / "both"), "--manifest", str(manifest), "--media", str(data_dir)]
    written = ["--json", str(files[0]), "--png", str(files[1]), "--markdown"]
    said = CliRunner().invoke(app, [*asked, *written])
    assert said.exit_code == 0, said.output
    header, _, row = said.output.strip().splitlines()
    assert header.startswith("| task | n | accuracy | standard error |")
    both = results(done).rows[1].of("word", "test")
    assert both is not None
    assert row.startswith(f"| word | {N_TEST} | {100 * both.accuracy:.1f} |")
    record = json.loads(files[0].read_text("utf-8"))
    assert Figures.model_validate(record["tasks"][0]["figures"]).n == N_TEST
    assert record["tasks"][0]["classes"] == ["bin", "set"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    for wrong in (["evaluate", str(done / "both")], [*asked, "--label", "loud"]):
        refused = CliRunner().invoke(app, wrong)
        assert isinstance(refused.exception, ConfigError)
        assert "a trained model needs --manifest" in str(refused.exception)
    asked[1] = str(tmp_path)
    nobody = CliRunner().invoke(app, asked)
    assert "training.json: cannot be read" in str(nobody.exception)


def test_other_data_in_the_same_folder_is_refused(done: Path, data_dir: Path) -> None:
    """Its rows are finished, but with more examples than there are now."""
    words = done.parent / "words.csv"
    text = words.read_text("utf-8")
    header, _, *rest = text.splitlines(keepends=True)
    words.write_text("".join([header, *rest]), "utf-8")
    try:
        with pytest.raises(ConfigError, match="other settings or other data"):
            train.run(plan(done.parent / "words.yaml", data_dir, out=done), {})
    finally:
        words.write_text(text, "utf-8")


def test_nothing_is_tested_before_every_row_is_trained(
    done: Path, tmp_path: Path, data_dir: Path
) -> None:
    out = copied(done, tmp_path / "out", "audio")
    assert train.run(plan(done.parent / "words.yaml", data_dir, ["both"], out=out), {}) is None
    assert len(history.read(out / "both" / "history.jsonl")) == 2
    assert not (out / "audio").exists()
    assert not list(out.rglob("predictions"))
    assert not (out / "report.html").exists()


def copied(done: Path, folder: Path, *names: str) -> Path:
    """The folder of the finished table without those files and folders, and without its test."""
    ignored = shutil.ignore_patterns("predictions", "report.html", *names)
    return Path(shutil.copytree(done, folder, ignore=ignored))


def test_rows_that_others_train_meanwhile_are_tested_too(
    done: Path, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, config = copied(done, tmp_path / "out", "audio", "both"), done.parent / "words.yaml"
    add = EventLog.add

    def finished(self: EventLog, record: history.EpochRecord) -> None:
        add(self, record)
        if not (out / "both").exists():
            shutil.copytree(done / "both", out / "both")

    monkeypatch.setattr(EventLog, "add", finished)
    report = train.run(plan(config, data_dir, ["audio"], out=out), {})
    assert report is not None
    assert [one.name for one in report.table.rows] == ["audio", "both", "fold", "audio-fold"]


def test_a_row_is_trained_by_one_process_at_a_time(
    done: Path, tmp_path: Path, data_dir: Path
) -> None:
    out, config = copied(done, tmp_path / "out", "audio"), done.parent / "words.yaml"
    with alone(out / "audio"), pytest.raises(ConfigError, match="audio: another process works"):
        train.run(plan(config, data_dir, ["audio"], out=out), {})
    assert not (out / "audio" / "events").exists()


def test_another_training_is_found_before_hours_are_spent(
    done: Path, tmp_path: Path, data_dir: Path
) -> None:
    """The first row is to be trained, the others are there with other settings."""
    out = copied(done, tmp_path / "out", "audio")
    longer = (TABLE + FOLDS).replace("n_epochs: 2", "n_epochs: 3")
    for name in ("words.csv", "noise.csv", "fold.csv"):
        shutil.copy(done.parent / name, tmp_path)
    config = tmp_path / "words.yaml"
    config.write_text(longer, "utf-8")
    with pytest.raises(ConfigError) as refused:
        train.run(plan(config, data_dir, out=out), {})
    said = str(refused.value).splitlines()
    assert [line.partition(": holds a training with other")[0] for line in said] == [
        str(out / name) for name in ("both", "fold", "audio-fold")
    ]
    assert not (out / "audio").exists()


def test_a_full_disk_is_said_and_gone_on_from(done: Path, tmp_path: Path, data_dir: Path) -> None:
    """There is room for the weights, and none for what the optimiser keeps."""
    out, config = copied(done, tmp_path / "out", "audio", "both"), done.parent / "words.yaml"
    weights = (done / "audio" / "best" / "model.safetensors").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * weights, hard))
    try:
        with pytest.raises(SinkError, match=f"^{out}: .*File too large.*; what is saved below"):
            train.run(plan(config, data_dir, ["audio"], out=out), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert train.run(plan(config, data_dir, ["audio"], out=out), {}) is None
    same = [(one / "audio" / "best" / "model.safetensors").read_bytes() for one in (out, done)]
    assert same[0] == same[1]


def test_an_epoch_that_was_not_kept_is_in_the_events_once(
    done: Path, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its line was written, before where it stands was."""
    out, config = copied(done, tmp_path / "out", "audio", "both"), done.parent / "words.yaml"
    save = state.save

    def killed(path: Path, what: state.State) -> None:
        if what.position.epoch == 2:
            raise Killed
        save(path, what)

    with monkeypatch.context() as patched:
        patched.setattr(state, "save", killed)
        with pytest.raises(Killed):
            train.run(plan(config, data_dir, ["audio"], out=out), {})
    assert len(history.read(out / "audio" / "history.jsonl")) == 2
    assert train.run(plan(config, data_dir, ["audio"], out=out), {}) is None
    read = EventAccumulator(str(out / "audio" / "events"))
    read.Reload()
    assert [one.step for one in read.Scalars("loss/train")] == [1, 2]


def test_no_row_is_called_like_the_folder_of_recordings(tmp_path: Path, data_dir: Path) -> None:
    text = TABLE.replace("  audio:\n", "  shards:\n", 1).replace(
        "[audio]\n      o", "[shards]\n      o"
    )
    config = write_table(tmp_path, text)
    with pytest.raises(ConfigError, match=r"words\.yaml: shards: no name for rows and pools"):
        plan(config, data_dir, out=tmp_path / "out")


def test_the_test_split_is_not_read_before_every_row_is_trained(
    done: Path, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copied(done, tmp_path / "out", "audio", "both", "fold", "audio-fold")
    read: list[str] = []
    get, add = ExampleDataset.__getitem__, EventLog.add

    def got(self: ExampleDataset, index: int) -> Example:
        example = get(self, index)
        read.append(example.annotation.split)
        return example

    def added(self: EventLog, record: history.EpochRecord) -> None:
        add(self, record)
        read.append("epoch")

    monkeypatch.setattr(ExampleDataset, "__getitem__", got)
    monkeypatch.setattr(EventLog, "add", added)
    assert train.run(plan(done.parent / "words.yaml", data_dir, out=out), {}) is not None
    n_trained = len(read) - read[::-1].index("epoch")
    assert read[:n_trained].count("epoch") == 4 * 2
    assert set(read[:n_trained]) == {"train", "val", "epoch"}
    assert set(read[n_trained:]) == {"test"}


def test_ctrl_c_says_how_to_go_on_and_loses_nothing(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = write_table(tmp_path), tmp_path / "out"
    asked = ["train", str(config), "--media", str(data_dir), "--out", str(out), "--row", "audio"]
    add = EventLog.add

    def interrupted(self: EventLog, record: history.EpochRecord) -> None:
        add(self, record)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(EventLog, "add", interrupted)
        stopped = CliRunner().invoke(app, asked)
    assert stopped.exit_code == EXIT_FAILED
    again = f"go on with: mmstream train {config} --media={data_dir} --out={out} --row=audio"
    assert again in stopped.output
    first = (out / "audio" / "history.jsonl").read_text("utf-8")
    assert first.count("\n") == 1
    finished = CliRunner().invoke(app, asked)
    assert finished.exit_code == 0, finished.output
    assert "rows are left" in finished.output
    assert (out / "audio" / "history.jsonl").read_text("utf-8").startswith(first)
    assert len(history.read(out / "audio" / "history.jsonl")) == 2


def test_all_that_is_wrong_is_said_before_anything_is_decoded(
    tmp_path: Path, data_dir: Path
) -> None:
    config = write_table(tmp_path)
    words, noise = tmp_path / "words.csv", tmp_path / "noise.csv"
    words.write_text(
        words.read_text("utf-8") + "grid_s1/clips/none.mp4,,,word=sit,train,\n", "utf-8"
    )
    noise.write_text("path,split\nesc10/labels.tsv,tst\n", "utf-8")
    with pytest.raises(ConfigError) as refused:
        plan(config, data_dir, ["bth"], out=tmp_path / "out")
    said = str(refused.value).replace(f"{tmp_path}/", "")
    assert "--row bth: no such row; did you mean 'both'? allowed: audio, both" in said
    with pytest.raises(ConfigError) as refused:
        plan(config, tmp_path / "none", out=tmp_path / "out")
    assert str(refused.value) == (
        f"{tmp_path}/none: no such folder; --media says where recordings are"
    )
    with pytest.raises(ConfigError) as refused:
        plan(config, data_dir, out=tmp_path / "out")
    said = str(refused.value).replace(f"{tmp_path}/", "")
    n_lines = len(words.read_text("utf-8").splitlines())
    assert f"words.csv:{n_lines}: path: no such file" in said
    assert f"words.csv:{n_lines}: labels: unknown word 'sit'; did you mean 'set'?" in said
    assert "noise.csv:2: split: must be train, val or test (got 'tst')" in said
    assert not list((tmp_path / "out" / "shards").iterdir())


BEGINNINGS = """\
  begun: {start_from: nowhere}
  too: {start_from: nowhere, frozen: true}
"""


def test_a_checkpoint_that_is_missing_is_said_before_anything_is_decoded(
    tmp_path: Path, data_dir: Path
) -> None:
    config = write_table(tmp_path, TABLE + BEGINNINGS)
    with pytest.raises(ConfigError) as refused:
        plan(config, data_dir, out=tmp_path / "out")
    assert str(refused.value) == (
        f"rows.begun.start_from: {tmp_path}/nowhere/config.json: cannot be read: "
        "No such file or directory"
    )
    plan(config, data_dir, ["both"], out=tmp_path / "out")


def test_a_row_learns_from_its_share_and_is_tested_like_the_others(
    tmp_path: Path, data_dir: Path
) -> None:
    few = "rows:\n  few: {share: 0.5, seed: 2}\n"
    config = write_table(tmp_path, TABLE.replace("rows:\n", few))
    rows = plan(config, data_dir, ["few", "both"], out=tmp_path / "out")
    with showing() as begin:
        data = read_data(rows, begin)
    sizes = {
        name: [len(one.own.examples[split]) for split in ("train", "val", "test")]
        for name, one in data.items()
    }
    assert sizes == {"both": [8, 2, 4], "few": [4, 2, 4]}


def test_the_record_says_what_it_was_trained_with() -> None:
    versions = machine.describe()["versions"]
    assert isinstance(versions, dict)
    assert {"torch", "transformers", "accelerate"} <= versions.keys()


def test_a_mistake_in_the_table_is_said_with_its_place(tmp_path: Path) -> None:
    config = tmp_path / "words.yaml"
    config.write_text(TABLE.replace("n_epochs", "epochs"), "utf-8")
    asked = CliRunner().invoke(app, ["train", str(config)])
    assert isinstance(asked.exception, ConfigError)
    assert f"{config}:13:12: optimise.epochs: unknown key; did you mean 'n_epochs'?" in str(
        asked.exception
    )


POOLS = """\
  untold: {data: {path: untold.csv}}
  seed1: {seed: 1, test: {hidden: []}}
pools:
  a: {rows: [audio, both]}
  b: {rows: [both, untold], against: [a]}
  c: {rows: [both, seed1]}
"""


def test_what_the_data_lack_is_said_before_anything_is_trained(
    tmp_path: Path, data_dir: Path
) -> None:
    config = write_table(
        tmp_path,
        TABLE.replace("  audio:\n", "  audio:\n    data: {path: fewer.csv}\n", 1) + POOLS,
    )
    lines = (tmp_path / "words.csv").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "fewer.csv").write_text("".join(lines[:-1]), "utf-8")
    (tmp_path / "untold.csv").write_text("".join([lines[0], *lines[1:6]]), "utf-8")
    with pytest.raises(ConfigError) as refused:
        train.run(plan(config, data_dir, out=tmp_path / "out"), {})
    assert str(refused.value).splitlines() == [
        "rows.untold.data: no examples in the split 'test'",
        "rows.both.test.against: audio is tested on other examples",
        "pools.a: its rows have other heads or modalities than each other",
        "pools.a: its rows share test examples, which would count several times",
        "pools.b.against: a is tested on other examples",
        "pools.c: its rows share test examples, which would count several times",
    ]
