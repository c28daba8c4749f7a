"""Real speech through the live path of a configuration, beside its transcript."""

import json
from pathlib import Path

import pytest
from programs import finish

from mmstream.cli import EXIT_USAGE
from mmstream.clock import SystemClock
from mmstream.config import load
from mmstream.errors import ConfigError, SourceError
from mmstream.pipelines import evaluate_words, word_table
from mmstream.pipelines.configuration import Configuration, find
from mmstream.pipelines.evaluate_words import Heard, NotJudged, Overall, Recording, Report
from mmstream.pipelines.word_errors import mean_wer, total, word_errors

HEADER = "file\ttranscript\tlanguage\n"
TODAY = "speech/google_today.wav\tToday, Sir!\ten-GB\n"
GERMAN = "speech/picovoice_de.wav\tDie Werbung vermittelt einen falschen Eindruck.\tde\n"


def recipe(*overrides: str) -> Configuration:
    return load(find("captioning"), Configuration, overrides)


def truth(folder: Path, *rows: str) -> Path:
    path = folder / "truth.tsv"
    path.write_text(HEADER + "".join(rows))
    return path


def test_the_command_judges_words_and_writes_them(data_dir: Path, tmp_path: Path) -> None:
    path = truth(tmp_path, TODAY, GERMAN)
    ran = finish(
        "evaluate", str(path), "--media", str(data_dir), "--json", "f.json", folder=tmp_path
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert 'google_today.wav: "today" for "Today, Sir!"' in ran.stdout
    assert "understands en-US only: speech/picovoice_de.wav (de)" in ran.stdout
    record = json.loads((tmp_path / "f.json").read_text())
    assert (record["recipe"], record["truth"]) == ("captioning", "truth.tsv")
    assert record["machine"]["n_cores"] >= 1
    assert [one["file"] for one in record["not_judged"]] == ["speech/picovoice_de.wav"]
    (one,) = record["recordings"]
    assert one["duration_s"] == pytest.approx(0.59, abs=0.15)
    for way in ("live", "raw"):
        assert one[way]["text"] == "today"
        assert (one[way]["errors"]["n_deletions"], one[way]["errors"]["wer"]) == (1, 0.5)
        assert record[way]["mean_wer"] == record[way]["errors"]["wer"] == 0.5


def test_mistakes_are_lines_and_no_traceback(data_dir: Path, tmp_path: Path) -> None:
    path = truth(tmp_path, "speech/google_tody.wav\ttoday\n", "speech/google_today.wav\t\n")
    ran = finish("evaluate", str(path), "--media", str(data_dir))
    assert ran.returncode == EXIT_USAGE
    assert f"{path}:2: no file" in ran.stderr
    assert f"{path}:3: transcript is empty" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_only_what_words_need_runs(data_dir: Path, tmp_path: Path) -> None:
    more = "captions.descriptions={captioner: {weights: none}}"
    judged = evaluate_words.check(recipe(more), truth(tmp_path, TODAY), data_dir, SystemClock())
    captions = judged.recipe.captions
    assert captions is not False
    assert (captions.sounds, captions.scene, captions.descriptions) == (False, False, False)
    detectors = judged.recipe.detectors
    assert {name for name, value in detectors if value is not False} == {"speech"}


def test_a_recipe_or_a_truth_without_words_to_judge_is_refused(
    data_dir: Path, tmp_path: Path
) -> None:
    clock, path = SystemClock(), truth(tmp_path, GERMAN)
    with pytest.raises(ConfigError, match=r"no row in a language of pocketsphinx; allowed: en-US"):
        evaluate_words.check(recipe(), path, data_dir, clock)
    with pytest.raises(ConfigError, match=r"captions is false.*allowed: --recipe captioning"):
        evaluate_words.check(recipe("captions=false"), path, data_dir, clock)
    with pytest.raises(ConfigError, match=r"captions\.speech is false"):
        evaluate_words.check(recipe("captions.speech=false"), path, data_dir, clock)
    path = truth(tmp_path, "a.wav\tone\n", "b.wav\ttwo\n")
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"no sound")
    with pytest.raises(SourceError) as raised:
        evaluate_words.check(recipe(), path, tmp_path, clock)
    assert [name in str(raised.value) for name in ("a.wav", "b.wav")] == [True, True]


def heard(said: str, text: str) -> Heard:
    return Heard(text=text, errors=word_errors(said, text))


def recording(said: str, live: str, raw: str) -> Recording:
    return Recording(
        file=f"{said[:3]}.wav",
        duration_s=1,
        transcript=said,
        live=heard(said, live),
        raw=heard(said, raw),
    )


def overall(*its: Heard) -> Overall:
    errors = [one.errors for one in its]
    return Overall(errors=total(errors), mean_wer=mean_wer(errors))


def test_the_table_has_both_figures_live_and_raw() -> None:
    its = (
        recording("one two three four", "one two tree four", "one two"),
        recording("yes", "yes", "yes indeed"),
    )
    report = Report(
        recogniser="whisper",
        language="en",
        media_s=2,
        live=overall(*(one.live for one in its)),
        raw=overall(*(one.raw for one in its)),
        recordings=its,
        not_judged=(NotJudged(file="d.wav", language="de"),),
    )
    lines = word_table.markdown(report).splitlines()
    assert lines[2:6] == [
        "| one.wav | 4 | 1 | 0 | 0 | 25.0 % | 50.0 % |",
        "| yes.wav | 1 | 0 | 0 | 0 | 0.0 % | 100.0 % |",
        "| all words | 5 | 1 | 0 | 0 | 20.0 % | 60.0 % |",
        "| mean of 2 |  |  |  |  | 12.5 % | 75.0 % |",
    ]
    assert '* one.wav: "one two tree four" for "one two three four"' in lines
    assert lines[-1] == "Not judged: whisper understands en only: d.wav (de)"
    first, *rows = word_table.plain(report).splitlines()[:5]
    assert {len(row) for row in rows} == {len(first)}
    assert rows[0].split() == ["one.wav", "4", "1", "0", "0", "25.0", "%", "50.0", "%"]
