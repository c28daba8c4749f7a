from pathlib import Path

from cameras import RtspCamera

from mmstream.benchmarks import rtsp
from mmstream.benchmarks.rtsp import RtspAges, View


def test_each_client_sees_the_camera_as_it_was_moments_ago(tmp_path: Path) -> None:
    RtspCamera(tmp_path)  # skips where there is none
    found = rtsp.measure(secs=0.4, rounds=1)
    for view in (found.opencv, found.pyav, found.mmstream):
        assert 0 < view.p50_ms <= view.p95_ms < 10_000
        assert 0 < view.first_ms < 20_000


def test_the_table_names_all_three_and_the_ratio() -> None:
    ours, opencv = (View(first_ms=7 * ms, p50_ms=ms, p95_ms=ms) for ms in (30, 60))
    found = RtspAges(secs=2, rounds=3, opencv=opencv, pyav=opencv, mmstream=ours)
    lines = rtsp.table(found).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["OpenCV", "PyAV,", "mmstream"]
    assert lines[3].split()[1:] == ["210", "30.0", "30.0"]
    assert lines[-1].endswith(" 0.50")
