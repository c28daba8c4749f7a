"""Runs the command line as a user would, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOTION_AND_LOUD = (
    "detectors: {presence: false, person: false, face: false, speech: false, alarm: false, "
    "condition: false, person_speaking: false, impact: false, avp: false}"
)
"""For configurations of tests that are not about detectors: the rest takes seconds to load."""


def start(*arguments: str, folder: Path | None = None) -> subprocess.Popen[str]:
    """`mmstream ARGUMENTS`, with pipes on both outputs."""
    return subprocess.Popen(
        [sys.executable, "-m", "main", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`mmstream ARGUMENTS` until it ends."""
    with start(*arguments, folder=folder) as process:
        out, err = process.communicate(timeout=50)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)
