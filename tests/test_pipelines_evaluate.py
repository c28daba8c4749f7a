"""Evaluate: labelled recordings through a configuration, from the command line to the picture."""

import json
import signal
from pathlib import Path

import pytest
from media_factory import FLASH_NS, make_flash_beep
from programs import finish

from mmstream.cli import EXIT_FAILED, EXIT_USAGE
from mmstream.clock import SystemClock
from mmstream.config import load
from mmstream.errors import ConfigError
from mmstream.media import NS_PER_SEC
from mmstream.pipelines import chart, evaluate, scoreboard
from mmstream.pipelines.configuration import Configuration, find
from mmstream.pipelines.evaluate import Report

HEADER = "file\tevent\tstart_s\tend_s\n"
FROM_RUN_TO_RUN = ("date", "commit", "machine", "versions")


def flashes(folder: Path) -> Path:
    """Three flashes and beeps, and their truth."""
    made = make_flash_beep(folder / "clip.mp4", n_flashes=3)
    rows = [
        f"clip.mp4\t{label}\t{at_ns / NS_PER_SEC}\t{(at_ns + FLASH_NS) / NS_PER_SEC}\n"
        for label in ("loud", "motion")
        for at_ns in made.instants_ns
    ]
    path = folder / "truth.tsv"
    path.write_text(HEADER + "".join(rows))
    return path


def judge(truth: Path, media: Path, *only: str) -> Report:
    recipe = load(find("surveillance"), Configuration, ["detectors.speech=false"])
    clock = SystemClock()
    judged = evaluate.check(recipe, truth, media, only, clock)
    return evaluate.run(recipe, judged, media, clock, slack_secs=0.5)


def test_known_flashes_and_beeps_are_found_where_they_are(tmp_path: Path) -> None:
    report = judge(flashes(tmp_path), tmp_path)
    assert [one.label for one in report.labels] == ["motion", "loud"]
    for one in report.labels:
        assert (one.n_hits, one.n_misses, one.n_false_alarms) == (3, 0, 0)
        assert one.start_error is not None
        assert one.delay is not None
        assert one.start_error.abs_p95_s <= 0.05
        assert 0 <= one.delay.median_s <= 0.3
    assert report.media_s == pytest.approx(9.5, abs=0.1)


def test_a_wrong_truth_is_told_by_name(tmp_path: Path) -> None:
    truth = flashes(tmp_path)
    rows = truth.read_text().splitlines(keepends=True)
    truth.write_text("".join([rows[0], *rows[2:4], "clip.mp4\tloud\t0.5\t1\n"]))
    report = judge(truth, tmp_path)
    (loud,) = report.labels
    assert (loud.n_hits, loud.n_misses, loud.n_false_alarms) == (2, 1, 1)
    assert loud.false_alarms[0].start_s == pytest.approx(2.52, abs=0.05)
    text = scoreboard.plain(report)
    false, missed = text.partition("False alarms:")[2].split("Missed:")
    assert "loud: clip.mp4 2.5" in false
    assert "loud: clip.mp4 0.50-1.00 s" in missed


def test_times_after_the_end_of_a_recording_are_refused(tmp_path: Path) -> None:
    truth = flashes(tmp_path)
    truth.write_text(HEADER + "clip.mp4\tloud\t500\t501\n")
    with pytest.raises(ConfigError, match=r"clip.mp4: loud starts at 500 s.*9\.5"):
        judge(truth, tmp_path)


def test_real_recordings(tmp_path: Path, data_dir: Path) -> None:
    truth = tmp_path / "truth.tsv"
    truth.write_text(
        HEADER
        + "surveillance/car_detection.mp4\tmotion\t4.5\t8.5\n"
        + "surveillance/car_detection.mp4\tmotion\t14.5\t18.5\n"
        + "surveillance/car_detection.mp4\tmotion\t25\t28\n"
        + "surveillance/garden_brightness_change.avi\tmotion\n"
        + "av_clips/his_girl_friday.mp4\talarm\n"
        + "av_clips/his_girl_friday.mp4\t?loud\t0\t6.2\n"
    )
    report = judge(truth, data_dir)
    motion, loud, alarm = report.labels
    assert (motion.n_files, motion.n_hits, motion.n_false_alarms) == (2, 3, 0)
    assert motion.start_error is not None
    assert motion.start_error.abs_p95_s < 0.8
    assert alarm.judged_s == pytest.approx(6.17, abs=0.02)
    assert loud.n_false_alarms == 0
    assert loud.judged_s == 0


def test_the_command_writes_the_same_figures_each_time(tmp_path: Path) -> None:
    truth = flashes(tmp_path)
    records = []
    for name in ("one", "two"):
        asked = ("--json", f"{name}.json", "--png", f"{name}.png", "--label", "loud")
        ran = finish("evaluate", str(truth), *asked, folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr == ""
        assert "False alarms: none" in ran.stdout
        record = json.loads((tmp_path / f"{name}.json").read_text())
        records.append({key: record[key] for key in record if key not in FROM_RUN_TO_RUN})
        assert record["machine"]["n_cores"] >= 1
    assert records[0] == records[1]
    assert [one["n_hits"] for one in records[0]["labels"]] == [3]
    pictures = [(tmp_path / f"{name}.png").read_bytes() for name in ("one", "two")]
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[0] == pictures[1]


def test_mistakes_are_lines_and_no_traceback(tmp_path: Path) -> None:
    truth = flashes(tmp_path)
    truth.write_text(HEADER + "clip.mp4\tlowd\t1\t2\nclip.mpg\tloud\t1\t2\n")
    ran = finish("evaluate", str(truth))
    assert ran.returncode == EXIT_USAGE
    assert f"{truth}:2: no label 'lowd'" in ran.stderr
    assert f"{truth}:3: no file" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_files_are_refused_before_minutes_are_spent(tmp_path: Path) -> None:
    truth = flashes(tmp_path)
    clip, figures = tmp_path / "clip.mp4", tmp_path / "figures.json"
    (tmp_path / "link.json").symlink_to(clip)
    for taken in (truth, clip, tmp_path / "link.json"):
        with pytest.raises(ConfigError, match="is read here, as truth, recording or model"):
            evaluate.check_outputs([figures, taken], [truth, clip])
    with pytest.raises(ConfigError, match="asked for twice"):
        evaluate.check_outputs([figures, tmp_path / "." / "figures.json"], [truth])
    with pytest.raises(ConfigError, match="cannot be written"):
        evaluate.check_outputs([tmp_path / "nosuch" / "figures.json"], [truth])
    with pytest.raises(ConfigError, match="cannot be written"):
        evaluate.check_outputs([tmp_path], [truth])
    assert truth.read_text().startswith(HEADER)
    assert not figures.exists()
    figures.write_text("of before")
    evaluate.check_outputs([figures], [truth])
    assert figures.read_text() == "of before"


@pytest.mark.parametrize("option", ["--json", "--png"])
def test_a_full_disk_is_one_line(tmp_path: Path, option: str) -> None:
    ran = finish("evaluate", str(flashes(tmp_path)), "--label", "motion", option, "/dev/full")
    assert ran.returncode == EXIT_FAILED
    assert ran.stderr == "mmstream: /dev/full: cannot be written: No space left on device\n"


def test_what_is_no_recording_is_a_failure(tmp_path: Path) -> None:
    truth = flashes(tmp_path)
    (tmp_path / "clip.mp4").write_text("no film")
    (tmp_path / "other.mp4").write_text("nor this")
    truth.write_text(truth.read_text() + "other.mp4\tloud\n")
    ran = finish("evaluate", str(truth))
    assert ran.returncode == EXIT_FAILED
    assert [line.split(": ")[:3] for line in ran.stderr.splitlines()] == [
        ["mmstream", str(tmp_path / name), "cannot be opened"] for name in ("clip.mp4", "other.mp4")
    ]


class Interrupted(SystemClock):
    """Ctrl-C comes while the first recording is read."""

    n_asked = 0

    def monotonic_ns(self) -> int:
        """As the clock."""
        self.n_asked += 1
        if self.n_asked == 30:
            signal.raise_signal(signal.SIGINT)
        return super().monotonic_ns()


def test_ctrl_c_ends_it_without_figures(tmp_path: Path) -> None:
    recipe = load(find("surveillance"), Configuration, ["detectors.speech=false"])
    judged = evaluate.check(recipe, flashes(tmp_path), tmp_path, ("loud",), SystemClock())
    clock = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(recipe, judged, tmp_path, clock, slack_secs=0.5)
    assert clock.n_asked >= 30


def test_many_recordings_are_drawn_worst_first(tmp_path: Path) -> None:
    report = judge(flashes(tmp_path), tmp_path, "loud")
    (right,) = report.timelines
    wrong = right.model_copy(
        update={
            "file": "wrong.mp4",
            "truths": tuple(t.model_copy(update={"found": False}) for t in right.truths),
        }
    )
    many = [right.model_copy(update={"file": f"{i}.mp4"}) for i in range(chart.MAX_RECORDINGS + 5)]
    drawn, n_left = chart.recordings(report.model_copy(update={"timelines": (*many, wrong)}))
    assert [len(rows) for rows in drawn] == [1] * chart.MAX_RECORDINGS
    assert drawn[-1][0].file == "wrong.mp4"
    assert n_left == 6


def test_markdown_has_a_column_for_every_figure(tmp_path: Path) -> None:
    lines = scoreboard.markdown(judge(flashes(tmp_path), tmp_path)).splitlines()
    table = lines[: lines.index("")]
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| motion | 1 | 0.2 | 3 | 3 | 0 | 0 |")
