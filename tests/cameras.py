"""A real network camera to test against: it numbers its pictures and says when they were true."""

import os
from pathlib import Path

import pytest

from mmstream.benchmarks import camera
from mmstream.benchmarks.camera import CameraOptions, read_counter

__all__ = ["CameraOptions", "RtspCamera", "read_counter"]


class RtspCamera(camera.RtspCamera):
    """The benchmarks' camera; the test is skipped, or fails, where it cannot be had."""

    def __init__(self, folder: Path) -> None:
        reason = camera.missing()
        if reason is not None:
            if os.environ.get("MMSTREAM_REQUIRE_DATA") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        super().__init__(folder)
