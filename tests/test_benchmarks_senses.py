"""A short form of `mmstream bench senses`."""

from pathlib import Path

import pytest

from mmstream.benchmarks.senses import CLIPS, DECODE, measure, recordings, table
from mmstream.errors import ConfigError
from mmstream.pipelines.configuration import DetectorSettings
from mmstream.pipelines.graph import labels


def test_every_detector_and_the_baseline_have_a_cost(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSTREAM_DATA", str(data_dir))
    found = measure(CLIPS[-1:], secs=1.5, rounds=1)
    (row,) = found.rows
    assert (row.secs, row.width, row.height, row.fps) == (1.5, 626, 360, 30)
    assert (found.senses, found.baseline) == (row.senses, row.baseline)
    names = [cost.name for cost in found.senses]
    assert names[0] == DECODE
    assert " ".join(names[1:]).split() == [label.name for label in labels(DetectorSettings())]
    assert all(cost.ms_per_media_sec > 0 for cost in (*found.senses, *found.baseline))
    mine, plain = (
        sum(cost.ms_per_media_sec for cost in costs) for costs in (found.senses, found.baseline)
    )
    assert found.ratio == pytest.approx(mine / plain, abs=0.001)
    assert found.streams_per_core == pytest.approx(1000 / mine, abs=0.1)
    lines = table(found).splitlines()
    for cost in (*found.senses, *found.baseline):
        told = f"{cost.name:<42}" + 2 * f"{cost.ms_per_media_sec:13.1f}"
        assert told in lines


def test_without_the_recordings_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSTREAM_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="MMSTREAM_DATA may name their folder"):
        recordings()
