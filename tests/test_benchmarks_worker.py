"""A short form of `mmstream bench worker`, with a tiny model."""

from pathlib import Path

import pytest
from avp_recordings import LABELS, RATE_HZ, avp_settings, tiny

from mmstream.benchmarks import worker
from mmstream.benchmarks.worker import measure, table
from mmstream.benchmarks.worker_encoders import Senses, Window
from mmstream.benchmarks.worker_world import FPS, HEIGHT, HOP_SECS, WIDTH, cameras
from mmstream.metrics import StageMetrics
from mmstream.models.avp import TASK
from mmstream.models.avp_spec import AvpSpec
from mmstream.models.avp_stream import Encoders
from mmstream.models.checkpoint import Identity, save


def test_all_is_measured_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "keep_freed_memory", lambda: False)  # it is for good
    monkeypatch.setattr(worker, "LIVE", (2,))
    of = avp_settings()
    identity = Identity(task=TASK, rate_hz=RATE_HZ, trained=True)
    save(tmp_path / "mine", tiny(of), of, identity, "# tiny\n")
    spec = AvpSpec(weights=str(tmp_path / "mine"), events=LABELS)
    found = measure(spec, rounds=1, live_secs=0.5, sources=(1, 2))
    assert [(one.n_sources, one.max_batch) for one in found.scored] == [
        (1, 8),
        (2, 8),
        (2, 1),
        (2, 2),
    ]
    for one in found.scored:
        assert one.sources_per_core == pytest.approx(HOP_SECS * 1e3 / one.cost.cpu_ms, abs=0.1)
        assert one.real_time_factor == pytest.approx(1 / one.sources_per_core, rel=0.05)
    assert [(one.n_sources, one.keeps_memory) for one in found.encoders] == [(1, False)]
    assert all(part.cost.wall_ms > 0 for part in found.parts)
    assert [(one.n_sources, one.n_hops) for one in found.live] == [(2, 4)]
    assert found.bare[0].share > 0
    assert (found.no_cuda is None) == (len(found.bare) > 1)
    told = table(found).splitlines()
    assert sum(line.startswith("1 x") for line in told) == 3
    assert any(line.startswith("2 live sources for 0.5 s") for line in told)


def test_cameras_send_what_the_table_says() -> None:
    hops = next(cameras(2, RATE_HZ))
    assert [hop.source for hop in hops] == ["camera0", "camera1"]
    for hop in hops:
        assert hop.heard.all()
        assert hop.samples.size == HOP_SECS * RATE_HZ
        assert len(hop.frames) == round(HOP_SECS * FPS + 0.5)
        assert (hop.frames[0].image.width, hop.frames[0].image.height) == (WIDTH, HEIGHT)


def test_both_ways_encode_the_same_pictures() -> None:
    """What is recomputed is no other work than what is cached."""
    model = tiny(avp_settings())
    senses, encoders = Senses(model, 2), Encoders(model, StageMetrics("bench"))
    media = cameras(2, RATE_HZ)
    recent = [senses.take(next(media)) for _ in range(3)]
    window = Window.of(recent)
    n_tokens = sum(
        len(one.video.at_ns) for halves in recent for one in encoders.encode(halves.seen)
    )
    assert len(window.stacks) == n_tokens == 2 * round(3 * HOP_SECS * FPS + 0.25)
    assert window.frames.shape[:2] == (2, round(3 * HOP_SECS * RATE_HZ / 200) // 4 * 4)
    assert window.present.all()
