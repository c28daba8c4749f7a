"""What may be said of a checkpoint of training, read without loading it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from mmstream.models.mmt_spec import MmtSpec

_HEADS = {"claim": {"labels": ["false", "true"]}, "Seen at": {"labels": ["Dog!"]}}


def _folder(
    folder: Path, heads: object = _HEADS, modalities: tuple[str, ...] = ("audio", "video", "text")
) -> Path:
    folder.mkdir(parents=True)
    settings = {"video": {"n_channels": 3}, "fusion": {"modalities": modalities}, "heads": heads}
    identity = {"task": "claim", "rate_hz": 16_000, "trained": True}
    text = json.dumps({"identity": identity, "settings": settings})
    (folder / "config.json").write_text(text, "utf-8")
    return folder


def _spec(folder: Path, **said: object) -> MmtSpec:
    return MmtSpec.model_validate({"weights": str(folder), "pictures": {"colour": "rgb"}, **said})


def test_labels_have_their_task_before_them(tmp_path: Path) -> None:
    spec = _spec(_folder(tmp_path / "deep" / "best"))
    told = [(one.name, one.modality, one.detector) for one in spec.labels]
    assert told == [
        ("claim_false", "av", "deep"),
        ("claim_true", "av", "deep"),
        ("seen_at_dog_", "av", "deep"),
    ]
    some = _spec(spec.folder, events=("claim_true",))
    assert [one.name for one in some.labels] == ["claim_true"]
    alone = _spec(_folder(tmp_path / "reader", modalities=("text",)))
    assert {(one.modality, one.detector) for one in alone.labels} == {("text", "reader")}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"events": ["claim"]}, "events: not known to .*: claim; allowed: claim_false, claim_true"),
        ({"thresholds": {"dog": 0.5}}, "thresholds: not known to .*: dog; allowed: claim_false"),
        ({"pictures": {}}, r"pictures\.colour: .* sees 3 channels"),
        ({"weights": "/nowhere"}, r"/nowhere/config\.json: cannot be read: No such file"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, said: dict[str, object], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        _spec(_folder(tmp_path / "m"), **said)


@pytest.mark.parametrize(
    ("heads", "error"),
    [
        ({}, "only answers questions, and nobody asks any live"),
        ({"a_b": {"labels": ["c"]}, "a": {"labels": ["b_c"]}}, "both be told as a_b_c"),
        (None, "not of an mmt model: settings.heads"),
    ],
)
def test_heads_that_cannot_be_told_are_refused(tmp_path: Path, heads: object, error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        _spec(_folder(tmp_path / "m", heads))


def test_reading_a_configuration_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from mmstream.models.mmt_spec import MmtSpec; "
        f"MmtSpec(weights={str(_folder(tmp_path / 'm'))!r}, pictures={{'colour': 'rgb'}}).labels; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
