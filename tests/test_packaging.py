"""The unit and the container say of the program what is so."""

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from programs import ROOT

from mmstream.cli import EXIT_USAGE
from mmstream.models.avp import AvpSettings
from mmstream.models.avp_spec import AvpSpec
from mmstream.pipelines import models
from mmstream.runtime.session import SHUTDOWN_SECS
from mmstream.web.settings import DEFAULT_PORT

UNIT = ROOT / "packaging" / "systemd" / "mmstream.service"
MOST_BYTES = 15_000_000
"""Of avp-small, all files together."""
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(UNIT, "utf-8")
    return unit["Service"]


def test_a_mistake_in_the_configuration_is_not_tried_again() -> None:
    assert service()["Restart"] == "on-failure"
    assert int(service()["RestartPreventExitStatus"]) == EXIT_USAGE


def test_the_program_has_ended_before_it_is_killed() -> None:
    assert float(service()["TimeoutStopSec"]) > 2 * SHUTDOWN_SECS


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze")
    text = UNIT.read_text("utf-8").replace("/opt/mmstream/bin/mmstream", sys.executable)
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    told = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")


def test_the_container_asks_for_its_health_where_it_is_by_default() -> None:
    assert f"127.0.0.1:{DEFAULT_PORT}/healthz" in DOCKERFILE
    assert f"EXPOSE {DEFAULT_PORT}" in DOCKERFILE


def test_all_that_is_copied_into_the_container_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert "mmstream" in names
    for name in names:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


def test_the_model_in_the_wheel_is_small_trained_in_half_precision_and_has_a_card() -> None:
    folder = AvpSpec().folder
    assert folder.is_dir(), f"{folder}: the trained avp-small has to be put there"
    files = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert set(files) == {"model.safetensors", "config.json", "card.md"}
    assert sum(files.values()) <= MOST_BYTES
    kept = models.read(folder).checkpoint
    assert kept.identity.trained
    assert isinstance(kept.settings, AvpSettings)
    assert kept.settings.told
    assert {str(w.dtype) for w in kept.weights.values() if w.is_floating_point()} == {
        "torch.float16"
    }
    card = (folder / "card.md").read_text("utf-8")
    assert all(label in card for label in kept.settings.events.labels)


def test_the_wheel_has_all_that_is_data() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["mmstream"]
    packed = {file for pattern in patterns for file in (ROOT / "mmstream").glob(pattern)}
    data = {"avp_small", "configs", "schemas", "sources"}
    there = {file for name in data for file in (ROOT / "mmstream" / name).glob("*.*")}
    assert {file for file in there if file.suffix != ".py"} <= packed
