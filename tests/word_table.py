"""The example of docs/training.md: tiny nets on a dozen words of real clips, with real rain."""

import re
from pathlib import Path
from typing import Final

from programs import ROOT

_FILES: Final = dict(
    re.findall(
        r"^`(\S+)`\n\n```\w+\n(.*?)^```$",
        (ROOT / "docs" / "training.md").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)
TABLE: Final = _FILES["words.yaml"]


def write_table(folder: Path, text: str = TABLE) -> Path:
    """The table, with its manifests beside it."""
    for name in ("words.csv", "noise.csv"):
        (folder / name).write_text(_FILES[name], "utf-8")
    path = folder / "words.yaml"
    path.write_text(text, "utf-8")
    return path
