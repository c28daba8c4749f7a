"""What every recipe that streams is made of."""

import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mmstream.clock import ManualClock
from mmstream.errors import ConfigError, ScorerError
from mmstream.heads.captions import CaptioningHead
from mmstream.heads.events import EventHead
from mmstream.media import NS_PER_SEC
from mmstream.messages import ModelInfo
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration
from mmstream.recognition.describer import SceneCaptioner
from mmstream.recognition.spec import SpeechCaptions
from mmstream.sinks.subtitles import SubtitlesSink
from mmstream.web.settings import WebSettings


def test_a_port_in_use_ends_only_a_run_whose_configuration_names_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = WebSettings(port=other.getsockname()[1])
        named = Configuration.model_construct(_fields_set={"web"}, sources={}, web=taken)
        with pytest.raises(ConfigError, match=f":{taken.port} is in use"):
            graph.web(named)
        default = Configuration.model_construct(_fields_set=set(), sources={}, web=taken)
        assert graph.web(default) is None
    (record,) = caplog.records
    assert f"no metrics are served: web: 127.0.0.1:{taken.port} is in use" in record.getMessage()


def test_no_web_is_no_web() -> None:
    assert graph.web(Configuration.model_construct(sources={}, web=False)) is None


def with_model(folder: Path, **worker: str) -> Configuration:
    """With files that stand for a model; its weights are none."""
    config = {
        "identity": {"task": "avp", "rate_hz": 16_000, "trained": False},
        "settings": {"events": {"labels": ["dog"]}, "told": ["dog"]},
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    return Configuration.model_validate(
        {
            "sources": {"clip": {"type": "media", "url": "clip.mp4"}},
            "detectors": {"avp": {"weights": str(folder)}},
            "worker": worker,
        }
    )


def without_model(settings: Configuration) -> Configuration:
    detectors = settings.detectors.model_copy(update={"avp": False})
    return settings.model_copy(update={"detectors": detectors})


def test_a_graph_names_its_model_by_what_is_in_its_files(tmp_path: Path) -> None:
    settings = with_model(tmp_path)
    built = graph.build(settings, ManualClock(), [])
    files = [tmp_path / name for name in ("config.json", "model.safetensors")]
    digests = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    its_id = hashlib.sha256(b"".join(digests)).hexdigest()[:16]
    assert built.models == (ModelInfo(name=tmp_path.name, id=its_id),)
    assert graph.build(settings, ManualClock(), [], reports=False).models == ()
    assert graph.build(without_model(settings), ManualClock(), []).models == ()
    files[1].unlink()
    with pytest.raises(ScorerError, match=r"model\.safetensors: cannot be read"):
        graph.build(settings, ManualClock(), [])


@pytest.mark.parametrize(
    ("device", "without"), [("auto", "cpu"), ("cpu", "cpu"), ("cuda:1", "cuda:1")]
)
def test_without_a_model_nobody_looks_for_an_accelerator(
    tmp_path: Path, device: str, without: str
) -> None:
    settings = with_model(tmp_path, device=device)
    assert graph.build(settings, ManualClock(), []).worker.device == device
    assert graph.build(without_model(settings), ManualClock(), []).worker.device == without


CLIP = {"clip": {"type": "media", "url": "clip.mp4"}}
CORNER = [[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]]
ROOF = [[0.5, 0.5], [1.0, 0.5], [1.0, 1.0]]


def captioning(**captions: object) -> Configuration:
    settings = {"sources": CLIP, "detectors": {"avp": False}, "captions": captions}
    return Configuration.model_validate(settings)


def test_captions_are_made_where_they_are_asked_for_and_said_so() -> None:
    plain = Configuration.model_validate({"sources": CLIP, "detectors": {"avp": False}})
    for settings, head in ((plain, EventHead), (captioning(), CaptioningHead)):
        built = graph.build(settings, ManualClock(), [])
        assert type(built.chains[0].head) is head
        assert ("captions" in built.capabilities) is (head is CaptioningHead)
    silent = captioning(speech=False, sounds=False, scene=False)
    assert type(graph.chain("clip", silent, ManualClock()).head) is EventHead


def test_words_are_found_after_all_detectors() -> None:
    *detectors, words = graph.build(captioning(), ManualClock(), []).specs
    assert words == SpeechCaptions()
    assert detectors == list(graph.specs(captioning().detectors, "mmstream"))
    without = graph.build(captioning(speech=False), ManualClock(), []).specs
    assert without == tuple(detectors)


def test_what_is_masked_is_not_described() -> None:
    captions = {"descriptions": {"captioner": {"weights": "blip"}, "masks": {"clip": [CORNER]}}}
    settings = Configuration.model_validate(
        {
            "sources": CLIP,
            "detectors": {"avp": False, "motion": {"masks": {"clip": [ROOF]}}},
            "captions": captions,
        }
    )
    [describing] = [
        one
        for one in graph.build(settings, ManualClock(), []).specs
        if isinstance(one, SceneCaptioner)
    ]
    assert [[list(corner) for corner in one] for one in describing.masks["clip"]] == [CORNER, ROOF]
    assert hash(describing)


@pytest.mark.parametrize(
    ("recogniser", "device"),
    [({"type": "pocketsphinx"}, "cpu"), ({"type": "whisper", "weights": "tiny"}, "auto")],
)
def test_a_network_that_hears_is_a_model(recogniser: Mapping[str, str], device: str) -> None:
    settings = captioning(speech={"recogniser": recogniser})
    assert graph.build(settings, ManualClock(), []).worker.device == device


@pytest.mark.parametrize(
    ("sources", "zero_ns"),
    [
        (("2026-11-23T10:00:00Z", "2026-11-23T09:00:00Z"), 1_795_424_400 * NS_PER_SEC),
        (("2026-11-23T10:00:00Z", None), 7_000),
    ],
)
def test_subtitles_begin_with_the_recordings_or_now(
    tmp_path: Path, sources: tuple[str | None, ...], zero_ns: int
) -> None:
    settings = Configuration.model_validate(
        {
            "sources": {
                f"s{n}": {"type": "media", "url": "clip.mp4", "epoch": epoch}
                if epoch
                else {"type": "microphone"}
                for n, epoch in enumerate(sources)
            },
            "sinks": {"subtitles": {"path": str(tmp_path / "talk.vtt")}},
        }
    )
    clock = ManualClock(utc_ns=7_000)
    [sink] = graph.sinks(settings, clock, boot_id="b", spool=None)
    assert isinstance(sink, SubtitlesSink)
    assert graph.zero_utc_ns(settings, clock) == zero_ns


def test_a_graph_is_made_without_loading_torch(tmp_path: Path) -> None:
    with_model(tmp_path)
    code = f"""
import sys
from mmstream.clock import ManualClock
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration

avp = {{"weights": {str(tmp_path)!r}}}
sources = {{"clip": {{"type": "media", "url": "clip.mp4"}}}}
asked = {{"sources": sources, "detectors": {{"avp": avp}}, "captions": {{}}}}
settings = Configuration.model_validate(asked)
made = graph.build(settings, ManualClock(), [])
print(made.models[0].name, "torch" in sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout == f"{tmp_path.name} False\n"
