"""Where and on what a measurement was made."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from mmstream import __version__
from mmstream.clock import SystemClock
from mmstream.messages import iso_utc

PACKAGES: Final = (
    "numpy",
    "scipy",
    "torch",
    "transformers",
    "accelerate",
    "av",
    "opencv-python-headless",
    "silero-vad",
    "pydantic",
    "aiomqtt",
)


def describe() -> dict[str, JsonValue]:
    """Machine, versions, commit and date."""
    return {
        "date": iso_utc(SystemClock().utc_ns()),
        "commit": _commit(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "n_cores": os.cpu_count(),
        },
        "versions": {
            "python": sys.version.split()[0],
            "mmstream": __version__,
            **{name: version(name) for name in PACKAGES},
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    """The commit of the source tree; None where it is not one (a wheel)."""
    folder = Path(__file__).resolve().parent
    try:
        asked = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked.stdout.strip()
