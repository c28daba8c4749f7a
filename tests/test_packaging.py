"""The unit and the container say of the program what is so."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT

from mmstream.cli import EXIT_USAGE
from mmstream.runtime.session import SHUTDOWN_SECS
from mmstream.web.settings import DEFAULT_PORT

UNIT = ROOT / "packaging" / "systemd" / "mmstream.service"
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
