"""`mmstream learn`: what a source is like is kept, and a run then tells what is unusual there."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from programs import MOTION_AND_LOUD, finish
from streams import ScriptedSource
from taught_world import filmed, hissing, record, save_model, tone
from typer.testing import CliRunner

from mmstream.cli import app
from mmstream.clock import ManualClock
from mmstream.errors import ConfigError, SourceError
from mmstream.media import MediaItem, Span, secs_to_ns
from mmstream.models import normal
from mmstream.models.avp_spec import AvpSpec
from mmstream.pipelines import learn
from mmstream.pipelines.embedding import Embedded
from mmstream.pipelines.learn import Lessons
from mmstream.runtime.capture import ThreadedSource
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.windows import HopSettings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and 12 s of hiss that end in 3 s of a tone."""
    folder = tmp_path_factory.mktemp("learned")
    save_model(folder / "model")
    record(folder / "hall.wav", np.concatenate((hissing(12), tone(900, 3))))
    return folder


def spec(world: Path, folder: Path) -> AvpSpec:
    return AvpSpec(weights=str(world / "model"), untrained="allow", normal=folder)


def recording(path: Path, name: str = "hall") -> ThreadedSource:
    return ThreadedSource(MediaFile(name, MediaSettings(url=str(path), pace="max"), ManualClock()))


def run(world: Path, folder: Path, source: ThreadedSource | ScriptedSource, which: Lessons) -> str:
    clock = ManualClock(utc_ns=1_700_000_000_000_000_000)
    return learn.learn(
        source, spec(world, folder), HopSettings(), which, clock=clock, progress=lambda _: None
    )


def test_a_recording_is_learned(world: Path, tmp_path: Path) -> None:
    which = learn.lessons(seconds=12, begins=(), ends=())
    said = run(world, tmp_path, recording(world / "hall.wav"), which)
    found = normal.read(tmp_path / "hall.safetensors", model=None)
    assert found.about.n_learned == 45
    assert found.about.made == "2023-11-14T22:13:20.000Z"
    assert f"hall: learned from 45 windows of 1 s, {len(found.embeddings)} kept" in said
    assert f"unusual from a distance of {found.about.threshold:.3f} on" in said


def test_only_windows_that_lie_in_the_times_count(world: Path, tmp_path: Path) -> None:
    """Of 0 to 5 s the 17 that are whole, of 6 to 12 s the 21 that begin at 6 s or later."""
    which = learn.lessons(seconds=None, begins=(0, 6), ends=(5, 12))
    run(world, tmp_path, recording(world / "hall.wav"), which)
    assert normal.read(tmp_path / "hall.safetensors", model=None).about.n_learned == 17 + 21


def test_windows_that_are_not_whole_are_not_learned(world: Path, tmp_path: Path) -> None:
    run(world, tmp_path, recording(world / "hall.wav"), Lessons())
    assert normal.read(tmp_path / "hall.safetensors", model=None).about.n_learned == 60 - 3


def test_it_stops_when_nothing_that_counts_can_come() -> None:
    passed: list[int] = []

    async def endless() -> AsyncIterator[Embedded]:
        at_secs = 100.0
        while True:
            span = Span(secs_to_ns(at_secs), secs_to_ns(at_secs + 0.25))
            yield Embedded(span, np.zeros(4, np.float32), None, None, None)
            at_secs += 0.25

    async def taken(which: Lessons) -> int:
        return len([one async for one in learn.counted(endless(), which, passed.append)])

    which = learn.lessons(seconds=2, begins=(), ends=())
    assert asyncio.run(taken(which)) == 8
    assert passed[-1] == secs_to_ns(2)
    assert asyncio.run(taken(learn.lessons(seconds=9, begins=(1,), ends=(2,)))) == 4


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [((1,), (), "one --to for each --from"), ((2,), (1,), "--from 2 --to 1"), ((-1,), (1,), "-1")],
)
def test_times_that_make_no_sense_are_refused(
    begins: Sequence[float], ends: Sequence[float], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        learn.lessons(seconds=None, begins=begins, ends=ends)


def test_too_little_is_refused_and_what_was_before_stays(world: Path, tmp_path: Path) -> None:
    run(world, tmp_path, recording(world / "hall.wav"), Lessons())
    before = (tmp_path / "hall.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="hall: 5 windows are too few"):
        run(world, tmp_path, recording(world / "hall.wav"), Lessons(until_ns=secs_to_ns(2)))
    assert (tmp_path / "hall.safetensors").read_bytes() == before


def test_a_live_source_needs_an_end(world: Path, tmp_path: Path) -> None:
    async def nothing(_: int) -> AsyncIterator[MediaItem]:
        return
        yield

    with pytest.raises(ConfigError, match="cam is live and does not end by itself; allowed: --sec"):
        run(world, tmp_path, ScriptedSource(nothing), Lessons())


def test_a_recording_that_is_not_there_is_named(world: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nosuch\.wav"):
        run(world, tmp_path, recording(tmp_path / "nosuch.wav"), Lessons())


def test_a_replay_tells_what_is_unusual(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learned from pictures of one brightness; then it gets dark for a while."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    steady = np.random.default_rng(0).normal(180, 2, 120)
    film = filmed(tmp_path / "hall.mp4", np.concatenate((steady, np.full(30, 20), steady[:30])))
    model = ["--weights", str(world / "model"), "--set", "detectors.avp.untrained=allow"]
    done = CliRunner().invoke(app, ["learn", str(film), "--seconds", "12", *model])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "mmstream" / "home" / "normal" / "hall.safetensors").is_file()
    config = tmp_path / "home.yaml"
    avp = f"avp: {{weights: {world / 'model'}, untrained: allow, events: []}}"
    config.write_text(
        "node: home\nsources: {cam: {type: synthetic}}\n"
        f"{MOTION_AND_LOUD.replace('avp: false', avp)}\n"
    )
    played = finish("replay", str(film), "--recipe", str(config))
    events = [json.loads(line) for line in played.stdout.splitlines()]
    told = [one for one in events if one["label"] == "unusual"]
    starts = [one["t_start"] for one in told if one["type"] == "start"]
    assert len(starts) == 1
    assert 11.5 <= starts[0] <= 13


def test_which_source_is_meant_must_be_said(world: Path, tmp_path: Path) -> None:
    config = tmp_path / "two.yaml"
    avp = f"{{weights: {world / 'model'}, untrained: allow}}"
    config.write_text(
        "sources: {one: {type: synthetic}, two: {type: synthetic}}\n"
        f"detectors: {{avp: {avp}}}\n"
    )
    with pytest.raises(ConfigError, match=r"which source.*one, two"):
        CliRunner().invoke(app, ["learn", str(config)], catch_exceptions=False)
    with pytest.raises(ConfigError, match=r"which source.*one, two"):
        CliRunner().invoke(app, ["learn", str(config), "--source", "x"], catch_exceptions=False)
