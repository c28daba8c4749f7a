"""What every recipe that streams is made of."""

import hashlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mmstream.clock import ManualClock
from mmstream.errors import ConfigError, ScorerError
from mmstream.messages import ModelInfo
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration
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


def test_a_graph_is_made_without_loading_torch(tmp_path: Path) -> None:
    with_model(tmp_path)
    code = f"""
import sys
from mmstream.clock import ManualClock
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration

avp = {{"weights": {str(tmp_path)!r}}}
sources = {{"clip": {{"type": "media", "url": "clip.mp4"}}}}
settings = Configuration.model_validate({{"sources": sources, "detectors": {{"avp": avp}}}})
made = graph.build(settings, ManualClock(), [])
print(made.models[0].name, "torch" in sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout == f"{tmp_path.name} False\n"
