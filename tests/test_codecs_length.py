"""How long a recording is."""

from pathlib import Path

import pytest

from mmstream.codecs.length import length_ns
from mmstream.errors import SourceError


def test_as_its_container_says(data_dir: Path) -> None:
    length = length_ns(str(data_dir / "surveillance" / "one_by_one_person.mp4"))
    assert length is not None
    assert length == 139_400_000_000  # as the manifest has it


def test_what_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nosuch\.mp4"):
        length_ns(str(tmp_path / "nosuch.mp4"))
    (tmp_path / "words.mp4").write_text("no recording")
    with pytest.raises(SourceError, match=r"words\.mp4"):
        length_ns(str(tmp_path / "words.mp4"))
