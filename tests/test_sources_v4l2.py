"""What `test_sources_cameras.py` does not ask: devices that are none, codes as letters."""

import os
from pathlib import Path

import pytest

from mmstream.sources import v4l2


def test_a_file_is_no_device(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    path.touch()
    device = v4l2.open_device(str(path))
    try:
        with pytest.raises(OSError, match="ioctl"):
            v4l2.capability(device)
        assert list(v4l2.pixel_formats(device, v4l2.CAPTURE | v4l2.CAPTURE_PLANES)) == []
        assert v4l2.most_fps(device, 0, v4l2.Size(640, 480)) is None
    finally:
        os.close(device)


@pytest.mark.parametrize(
    ("code", "letters"),
    [(0x47504A4D, "MJPG"), (0x56595559, "YUYV"), (0x20303159, "Y10"), (0xA0303159, "Y10")],
)
def test_a_code_is_four_letters(code: int, letters: str) -> None:
    assert v4l2.fourcc(code) == letters
