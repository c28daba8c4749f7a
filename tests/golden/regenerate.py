"""Writes the golden replays anew: `python tests/golden/regenerate.py`, then look at the difference.

Inputs: three recordings of ../shared/data (see its MANIFEST.tsv) through the recipe
`surveillance` at `--speed max`. Each file says which versions wrote it. Emission fields are
left out. And what a node with one source announces to Home Assistant, in either form.

Tolerances of tests/test_golden.py, and why: the same machine gives the same bytes (tested
there too); another processor may round the last bits of float32 differently in OpenCV and
numpy, so scores may differ by 0.01 and instants by one video frame or 5 ms of sound.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import JsonValue

ROOT: Final = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from programs import finish  # noqa: E402 - found by the line above
from sink_messages import NODE, health, info, published  # noqa: E402 - likewise

from mmstream.heads.lifecycle import LabelSettings  # noqa: E402 - likewise
from mmstream.media import Label  # noqa: E402 - likewise
from mmstream.runtime.features import features_of  # noqa: E402 - likewise
from mmstream.sinks.homeassistant import Discovery, Form  # noqa: E402 - likewise

CLIPS: Final = (
    "surveillance/car_detection.mp4",
    "surveillance/pedestrians_pavement.mp4",
    "av_clips/his_girl_friday.mp4",
)
EMISSION_FIELDS: Final = ("boot_id", "ts_emit", "latency_ms", "late")
GOLDEN: Final = Path(__file__).resolve().parent
FORMS: Final[tuple[Form, ...]] = ("device", "component")
LABELS: Final = ("motion", "person", "alarm", "camera_blocked", 'Grüße "laut" 🔔')
CAPABILITIES: Final = ("events", "requests", "captions", "snapshots")
PACKAGES: Final = ("numpy", "opencv-python-headless", "av")


def golden_file(clip: str) -> Path:
    """Where the replay of a clip is kept."""
    return GOLDEN / f"{Path(clip).stem}.json"


def replay(recording: Path) -> list[JsonValue]:
    """The lines of a replay without their emission fields.

    Raises:
        ValueError: it failed; the text is what it said.
    """
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        played = finish("replay", str(recording), "--out", str(out))
        if played.returncode != 0:
            raise ValueError(played.stderr)
        lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in EMISSION_FIELDS} for line in lines]


def announced_file(form: Form) -> Path:
    """Where what is announced to Home Assistant in this form is kept."""
    return GOLDEN / f"homeassistant_{form}.json"


def announced(form: Form) -> dict[str, JsonValue]:
    """What a door with all that there is announces: by topic."""
    discovery = Discovery(form, "homeassistant", node=NODE, base="mmstream")
    node = info(front_door=LABELS).model_copy(update={"capabilities": CAPABILITIES})
    senses = {"video_fps": 25.0, "audio_rms": -41.5}
    labels = [Label(name, "av", "any") for name in LABELS]
    can_be_set = features_of(labels, {"motion": LabelSettings(on=0.7)}).message("front_door")
    discovery.update(published(node))
    discovery.update(published(can_be_set))
    discovery.update(published(health(source="front_door").model_copy(update=senses)))
    return {packet.topic: json.loads(packet.payload) for packet in discovery.packets()}


def main() -> None:
    """Write all golden files."""
    versions = {name: version(name) for name in PACKAGES}
    for clip in CLIPS:
        record = {
            "clip": clip,
            "versions": versions,
            "lines": replay(ROOT.parent / "shared/data" / clip),
        }
        golden_file(clip).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for form in FORMS:
        text = json.dumps(announced(form), indent=1, ensure_ascii=False)
        announced_file(form).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
