"""The golden replay of three real recordings, and that a replay gives the same bytes each time."""

import json
from pathlib import Path

import pytest
from pydantic import JsonValue
from regenerate import CLIPS, golden_file, replay

SCORE_TOLERANCE = 0.01
SECS_TOLERANCE = 0.05
SCORES = {"score", "top_score", "x", "y", "width", "height"}
INSTANTS = {"t_start", "t_end"}
DERIVED = {"id", "ts_start", "ts_end"}


def assert_alike(found: JsonValue, golden: JsonValue, place: str) -> None:
    """Equal in structure and words, near in numbers; what derives from an instant is left out."""
    key = place.rsplit(".", 1)[-1]
    if isinstance(golden, dict):
        assert isinstance(found, dict), place
        assert found.keys() == golden.keys(), place
        for name, value in golden.items():
            if name not in DERIVED:
                assert_alike(found[name], value, f"{place}.{name}")
    elif isinstance(golden, list):
        assert isinstance(found, list), place
        assert len(found) == len(golden), place
        for i, value in enumerate(golden):
            assert_alike(found[i], value, f"{place}[{i}]")
    elif isinstance(golden, float) and isinstance(found, float) and key in SCORES | INSTANTS:
        tolerance = SCORE_TOLERANCE if key in SCORES else SECS_TOLERANCE
        assert abs(found - golden) <= tolerance, f"{place}: {found} is not near {golden}"
    else:
        assert found == golden, place


@pytest.mark.parametrize("clip", CLIPS)
def test_a_real_recording_is_told_as_before(clip: str, data_dir: Path) -> None:
    golden = json.loads(golden_file(clip).read_text("utf-8"))
    assert_alike(replay(data_dir / clip), golden["lines"], Path(clip).stem)


def test_a_replay_gives_the_same_lines_each_time(data_dir: Path) -> None:
    clip = data_dir / CLIPS[1]
    first, second = replay(clip), replay(clip)
    assert first
    assert json.dumps(first) == json.dumps(second)
