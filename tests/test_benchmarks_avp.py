"""What `mmstream bench avp` makes of tracks, truth and checkpoints."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from mmstream.benchmarks import avp_thresholds
from mmstream.benchmarks.avp_card import BEGIN, END, card_table, table, with_table
from mmstream.benchmarks.avp_choice import Thresholds, choose, decide, left_out
from mmstream.benchmarks.avp_listening import Track, listen, log_odds
from mmstream.benchmarks.avp_sweep import THRESHOLDS, Counts, Swept, matched, sweep
from mmstream.benchmarks.avp_thresholds import HEARD, TRUTH, main, measure, write
from mmstream.errors import ConfigError
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import NS_PER_SEC, Span, secs_to_ns
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, Avp, AvpSettings
from mmstream.models.avp_spec import AvpSpec
from mmstream.pipelines.tally import score
from mmstream.pipelines.truth import Judged, read

TIMING = LabelSettings(for_secs=0.25, within_secs=0.5)
HOP_SECS = 0.25


def _track(file: str, likely: Mapping[str, Sequence[float]]) -> Track:
    """A recording in which each label is as likely as is said, hop by hop."""
    n_hops = len(next(iter(likely.values())))
    hop_ns = secs_to_ns(HOP_SECS)
    spans = tuple(Span(n * hop_ns, (n + 1) * hop_ns) for n in range(n_hops))
    odds = [[log_odds(p[n]) for p in likely.values()] for n in range(n_hops)]
    return Track(file, tuple(likely), spans, np.array(odds, np.float32))


def _judged(file: str, label: str, *spans: tuple[float, float]) -> Judged:
    truths = tuple(Span(secs_to_ns(start), secs_to_ns(end)) for start, end in spans)
    return Judged(file, label, truths, ())


def _loud(*, hops: range, of: int, p: float) -> list[float]:
    return [p if n in hops else 0.02 for n in range(of)]


def _at(threshold: float) -> int:
    return THRESHOLDS.index(threshold)


def test_each_threshold_says_what_is_above_it_for_long_enough() -> None:
    likely = _loud(hops=range(4, 8), of=40, p=0.92)
    likely[20:24] = [0.61] * 4
    likely[32] = float("nan")
    swept = sweep(
        "rain", [_track("a", {"rain": likely})], [_judged("a", "rain", (1.0, 2.0))], TIMING
    )
    assert swept.counts(_at(0.5), [0]) == Counts(1, 1, 1, 1, 10 * NS_PER_SEC)
    assert swept.counts(_at(0.8), [0]) == Counts(1, 1, 1, 0, 10 * NS_PER_SEC)
    assert swept.counts(_at(0.95), [0]) == Counts(1, 0, 0, 0, 10 * NS_PER_SEC)
    slow = LabelSettings(for_secs=1.25, within_secs=2.0)
    late = sweep("rain", [_track("a", {"rain": likely})], [_judged("a", "rain", (1.0, 2.0))], slow)
    assert late.counts(_at(0.5), [0]).n_hits == 0


def test_what_cannot_be_told_is_not_judged() -> None:
    track = _track("a", {"rain": [0.9] * 16})
    unclear = Judged("a", "rain", (), (Span(0, 3 * NS_PER_SEC),))
    swept = sweep("rain", [track], [unclear, _judged("a", "dog_bark")], TIMING)
    assert swept.files == ("a",)
    assert swept.counts(_at(0.5), [0]) == Counts(0, 0, 0, 0, NS_PER_SEC)


@given(st.lists(st.floats(0.001, 0.999) | st.just(float("nan")), min_size=8, max_size=24))
@example([float("nan"), 0.5, 0.75, 0.5, 0.5, 0.5, float("nan"), 0.75])  # at a threshold itself
def test_every_threshold_counts_what_the_events_of_it_are(likely: list[float]) -> None:
    track = _track("a", {"rain": likely})
    judged = _judged("a", "rain", (0.5, 1.5))
    swept = sweep("rain", [track], [judged], TIMING)
    for at in range(0, len(THRESHOLDS), 3):
        wanted = score("rain", [matched(track, judged, THRESHOLDS[at], TIMING)])
        counts = swept.counts(at, [0])
        assert (counts.n_true, counts.n_hits, counts.n_false) == (
            wanted.n_true,
            wanted.n_hits,
            wanted.n_false_alarms,
        )
        assert counts.judged_ns == secs_to_ns(wanted.judged_s)
        assert counts.n_right == wanted.n_events - wanted.n_false_alarms


def _swept(files: Sequence[str], *rows: tuple[int, int, int]) -> Swept:
    """A row of hits and false alarms of each file, from its first to its last good threshold.

    Below the first there are 9 false alarms in the file; from the last on the truth is missed.
    """
    numbers = np.zeros((len(THRESHOLDS), len(files), 5), np.int64)
    numbers[:, :, 4] = 60 * NS_PER_SEC
    for nth, (n_true, first, last) in enumerate(rows):
        numbers[:, nth, 0] = n_true
        numbers[:last, nth, 1:3] = n_true
        numbers[:first, nth, 3] = 9
    return Swept("rain", tuple(files), numbers)


def test_the_threshold_stands_in_the_middle_of_the_best() -> None:
    swept = _swept(["a", "b"], (1, 4, 15), (1, 6, 20))
    assert choose(swept, [0, 1]) == 6 + (15 - 6) // 2
    assert choose(swept, [1]) == 6 + (20 - 6) // 2
    assert choose(_swept(["a", "b"], (1, 4, 5), (0, 9, 9)), [0, 1]) is None


def test_a_few_false_alarms_are_a_lesser_evil_than_a_miss() -> None:
    many = [f"f{n}" for n in range(10)]
    swept = _swept(many, *[(1, 4, 15)] * 9, (1, 4, 10))
    swept.numbers[:10, 0, 3] = 1
    assert choose(swept, range(10)) == 4 + (10 - 4) // 2
    swept.numbers[:10, 0, 3] = 2
    assert choose(swept, range(10)) == 10 + (15 - 10) // 2, "12 false in an hour are too many"


def test_each_recording_is_judged_without_itself() -> None:
    # Alone, the first two would take 5..10, and the third 12..20, where they are missed.
    swept = _swept(["a", "b", "c"], (1, 5, 10), (1, 5, 10), (1, 12, 20))
    # For a and b nothing is good; c is judged by 7, where there are still false alarms.
    assert left_out(swept) == Counts(3, 1, 1, 9, 180 * NS_PER_SEC)


def test_clips_of_one_take_do_not_choose_for_each_other() -> None:
    one, same, other = (f"esc10/audio/5-{name}-1.ogg" for name in ("1-A", "1-B", "2-A"))
    alike = _swept([one, same], (1, 5, 10), (1, 5, 10))
    assert left_out(alike).n_hits == 0
    assert left_out(replace(alike, files=(one, other))).n_hits == 2


@cache
def _decided() -> Thresholds:
    """`rain` is heard well, `dog_bark` in one of two, `chainsaw` instead of rain, and speech."""
    tracks, judged = [], []
    for n in range(6):
        file = f"esc10/audio/5-{n}-A-1.ogg" if n < 5 else "street.wav"
        here, dog = _loud(hops=range(8, 20), of=400, p=0.9), _loud(hops=range(4), of=400, p=0.9)
        likely = {
            "rain": here,
            "dog_bark": dog if n % 2 else [0.02] * 400,
            "chainsaw": here,
            "speech": here,
        }
        tracks.append(_track(file, likely))
        judged += [_judged(file, label, (2.0, 5.0)) for label in ("rain", "speech")]
        judged += [_judged(file, "dog_bark", (0.0, 1.0)), _judged(file, "chainsaw")]
    return decide("0" * 16, tracks, judged)


def test_events_are_told_that_are_good_enough() -> None:
    found = _decided()
    rain, dog, chainsaw, speech = found.choices
    assert rain.told
    assert 0.02 < rain.threshold < 0.9
    assert (rain.esc10.n_hits, rain.others.n_hits, rain.left_out.recall) == (5, 1, 1.0)
    assert (dog.told, dog.everywhere.recall) == (False, 0.5)
    assert (chainsaw.told, chainsaw.everywhere.n_true) == (False, 0)
    assert not speech.told
    assert speech.left_out.recall == 1.0
    assert (found.n_esc10, found.n_others, found.media_s) == (5, 1, 600.0)
    assert found.timing.mean_left_out_f1 == max(one.mean_left_out_f1 for one in found.timings)


def test_an_event_is_not_told_that_one_take_alone_speaks_for() -> None:
    files = [f"esc10/audio/5-1-{clip}-1.ogg" for clip in "AB"]
    likely = {"rain": _loud(hops=range(8, 20), of=400, p=0.9)}
    found = decide(
        "0" * 16,
        [_track(file, likely) for file in files],
        [_judged(file, "rain", (2.0, 5.0)) for file in files],
    )
    (rain,) = found.choices
    assert (rain.everywhere.recall, rain.everywhere.precision) == (1.0, 1.0)
    assert (rain.told, rain.reason) == (False, "not good enough when left out")


def test_the_card_tells_the_figures_and_what_they_are_worth() -> None:
    found = _decided()
    section, rain = card_table(found), found.choices[0]
    assert section.startswith("Told by default: `rain`.\n")
    assert f"| rain | yes | {rain.threshold:g} | 1/1 | 5/5 | 0 | 0 | 1.00 | 1.00 | 0.0 |" in section
    assert "**optimistic**" in section
    assert "0.17 hours: one false alarm is 6.0 per hour" in section
    assert "dog_bark: no threshold is good enough; missed 5-0-A-1 (rain)" in section
    assert "speech: left to the detector of the same name" in section
    assert "mean left-out F1" in table(found)


def test_the_section_of_a_card_is_replaced_and_nothing_else() -> None:
    card = with_table("# Model\n\nIts data.\n", "first")
    assert card == f"# Model\n\nIts data.\n\n{BEGIN}\nfirst\n{END}\n"
    assert with_table(f"{card}\nMore.\n", "next") == f"{card}\nMore.\n".replace("first", "next")
    assert with_table("", "only") == f"{BEGIN}\nonly\n{END}\n"


def _checkpoint(folder: Path, labels: Sequence[str], thresholds: Mapping[str, float]) -> Avp:
    """An untrained one, in 16 bits."""
    torch.manual_seed(0)
    body = {"type": "transformer", "n_chunk": 5, "n_context": 5, "n_layers": 1, "n_heads": 2}
    front = {"type": "log_mel", "n_hop": 200, "n_mels": 16}
    settings = AvpSettings.model_validate(
        {
            "audio": {"front_end": front, "n_dims": 8, "widths": [4], "body": body},
            "video": {"n_channels": 1, "n_dims": 8, "widths": [4], "n_seen": 2},
            "seen": {"width": 16, "height": 16},
            "fusion": {"type": "concat", "modalities": ["audio", "video"], "n_dims": 8},
            "events": {"kind": "any", "labels": labels, "n_dims": 8},
            "thresholds": thresholds,
        }
    )
    model = Avp(settings).half()
    identity = checkpoint.Identity(task=TASK, rate_hz=16_000, trained=False)
    checkpoint.save(folder, model, settings, identity, "# Card\n")
    return model


def _read(folder: Path) -> checkpoint.Checkpoint[AvpSettings]:
    return checkpoint.read(folder, AvpSettings, task=TASK, rate_hz=16_000, untrained="allow")


def test_what_was_decided_is_written_into_the_checkpoint(tmp_path: Path) -> None:
    found = _decided()
    labels = [*(one.label for one in found.choices), "other"]
    _checkpoint(tmp_path, labels, {"other": 0.7})
    before = _read(tmp_path)
    new_id = write(tmp_path, found)
    after = _read(tmp_path)
    assert after.id == new_id != before.id
    assert after.settings.told == ("rain",)
    wanted = {one.label: one.threshold for one in found.choices} | {"other": 0.7}
    assert after.settings.thresholds == wanted
    assert {name: (w.dtype, w.tolist()) for name, w in after.weights.items()} == {
        name: (w.dtype, w.tolist()) for name, w in before.weights.items()
    }
    assert (tmp_path / "card.md").read_text() == with_table("# Card\n", card_table(found))
    assert write(tmp_path, found) == new_id


def test_listening_takes_the_thresholds_of_the_checkpoint_back(
    data_dir: Path, tmp_path: Path
) -> None:
    files = ["av_clips/realshort.mp4", "audio_events/mdn_trex_roar.mp3"]
    own = {"rain": 0.9, "rooster": 0.2}
    _checkpoint(tmp_path / "plain", ["rooster", "rain"], {})
    _checkpoint(tmp_path / "own", ["rooster", "rain"], own)
    plain, shifted = (
        listen(AvpSpec(weights=str(tmp_path / name), untrained="allow"), its, data_dir, files)
        for name, its in (("plain", {"rain": 0.5, "rooster": 0.5}), ("own", own))
    )
    assert [track.file for track in plain] == files
    assert [len(track.spans) for track in plain] == [5, 9]
    for one, other in zip(plain, shifted, strict=True):
        assert one.labels == ("rain", "rooster")
        assert np.isfinite(one.log_odds).all()
        np.testing.assert_allclose(one.log_odds, other.log_odds, atol=1e-4)


def test_a_checkpoint_without_these_events_cannot_be_judged(tmp_path: Path) -> None:
    _checkpoint(tmp_path, ["sirens", "other"], {})
    with pytest.raises(ConfigError, match="hears none of baby_cry, chainsaw"):
        measure(AvpSpec(weights=str(tmp_path), untrained="allow"))


def test_a_folder_without_a_checkpoint_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nowhere"), "--write"]) == 1
    assert str(tmp_path / "nowhere") in capsys.readouterr().err


def test_the_truth_is_of_every_recording_with_sound_and_of_fold_5(data_dir: Path) -> None:
    judged = read(TRUTH, data_dir, HEARD)
    rows = (data_dir / "esc10" / "labels.tsv").read_text().splitlines()
    columns = rows[0].split("\t")
    clips = [dict(zip(columns, row.split("\t"), strict=True)) for row in rows[1:]]
    classes = {
        f"esc10/audio/{clip['file']}": clip["class"] for clip in clips if clip["fold"] == "5"
    }
    media = {
        str(path.relative_to(data_dir))
        for folder in ("audio_events", "av_clips")
        for path in (data_dir / folder).iterdir()
    }
    wanted = (media - {"av_clips/pe_dog_noaudio.mp4"}) | classes.keys()
    assert {(one.file, one.label) for one in judged} == {
        (file, label) for file in wanted for label in HEARD
    }
    happen = {one.file: one.label for one in judged if one.truths and one.file in classes}
    assert happen == classes


def test_the_command_prints_writes_and_keeps_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _decided()
    monkeypatch.setattr(avp_thresholds, "measure", lambda _: found)
    _checkpoint(tmp_path, [one.label for one in found.choices], {})
    before, path = _read(tmp_path).id, tmp_path / "found.json"
    assert main([str(tmp_path), "--json", str(path)]) == 0
    assert _read(tmp_path).id == before
    record = json.loads(path.read_text())
    assert Thresholds.model_validate(record["figures"], strict=False) == found
    assert {"benchmark", "commit", "machine"} <= record.keys()
    assert main([str(tmp_path), "--write"]) == 0
    assert _read(tmp_path).settings.told == ("rain",)
    assert table(found) in capsys.readouterr().out
