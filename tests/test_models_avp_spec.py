"""Which model, which events, what was taught: read from a configuration, without torch."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from avp_recordings import RATE_HZ, avp_settings, tiny
from pydantic import ValidationError

from mmstream.errors import ScorerError
from mmstream.media import Label
from mmstream.models.avp import TASK, AvpSettings
from mmstream.models.avp_scorer import AvpScorer
from mmstream.models.avp_spec import AvpSpec
from mmstream.models.checkpoint import Identity, save


def saved(
    folder: Path,
    *,
    of: AvpSettings | None = None,
    task: str = TASK,
    trained: bool = True,
    rate_hz: int = RATE_HZ,
    half: bool = False,
) -> str:
    """Write a tiny model; gives the folder as a configuration names it."""
    of = of or avp_settings().model_copy(update={"told": ("bark",)})
    identity = Identity(task=task, rate_hz=rate_hz, trained=trained)
    save(folder, tiny(of), of, identity, "# tiny\n", half=half)
    return str(folder)


def test_it_tells_what_the_checkpoint_calls_good_enough(tmp_path: Path) -> None:
    spec = AvpSpec(weights=saved(tmp_path / "mine"))
    assert spec.labels == (Label("bark", "av", "mine"),)
    assert spec.rate_hz == RATE_HZ
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301 - our own bytes


def test_events_may_be_chosen(tmp_path: Path) -> None:
    spec = AvpSpec(weights=saved(tmp_path), events=("rain", "bell"))
    assert [label.name for label in spec.labels] == ["rain", "bell"]


def test_unknown_events_are_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="moo; allowed: bark, rain, bell"):
        AvpSpec(weights=saved(tmp_path), events=("rain", "moo"))


def test_what_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="json: cannot be read: No such file"):
        AvpSpec(weights=str(tmp_path / "nothing"))
    digits = saved(tmp_path / "digits", task="digits")
    with pytest.raises(ValidationError, match="json: not of an AVP model: identity"):
        AvpSpec(weights=digits)


def test_what_was_taught_and_learned_are_labels_too(tmp_path: Path) -> None:
    taught, normal = tmp_path / "taught", tmp_path / "normal"
    spec = AvpSpec(weights=saved(tmp_path / "m"), taught=taught, normal=normal)
    assert [label.name for label in spec.labels] == ["bark"]
    for folder, name in ((taught, "kettle"), (taught, "bark"), (normal, "cam")):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.safetensors").touch()
        (folder / f".{name}.safetensors.part").touch()
    assert [label.name for label in spec.labels] == ["bark", "kettle", "unusual"]


def test_a_node_keeps_what_it_learned_in_its_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    elsewhere = Path("elsewhere")
    spec = AvpSpec(normal=elsewhere).of_node("door")
    assert (spec.taught, spec.normal) == (
        tmp_path / "mmstream" / "door" / "taught",
        Path("elsewhere"),
    )
    monkeypatch.delenv("XDG_STATE_HOME")

    def homeless(_path: Path) -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert AvpSpec().of_node("door").taught is None


def test_it_is_not_built_from_weights_that_do_not_fit(tmp_path: Path) -> None:
    random = saved(tmp_path / "random", trained=False)
    with pytest.raises(ScorerError, match=r"weights are random.*untrained: allow"):
        AvpSpec(weights=random).build("cpu")
    slow = saved(tmp_path / "slow", rate_hz=8_000)
    with pytest.raises(ScorerError, match="slow: made for 8000 Hz, and hears 16000 Hz"):
        AvpSpec(weights=slow).build("cpu")


def test_it_is_built_from_16_bits_and_warmed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm: list[AvpScorer] = []

    def warmed(scorer: AvpScorer) -> None:
        warm.append(scorer)

    monkeypatch.setattr(AvpScorer, "warm_up", warmed)
    spec = AvpSpec(weights=saved(tmp_path, trained=False, half=True), untrained="allow")
    assert spec.build("cpu") in warm


def test_who_reads_a_configuration_does_not_load_torch() -> None:
    # The package itself loads it for transformers' sake; this module must not.
    program = (
        "import sys, types; import mmstream\n"
        "package = types.ModuleType('mmstream.models')\n"
        "package.__path__ = [mmstream.__path__[0] + '/models']\n"
        "sys.modules['mmstream.models'] = package\n"
        "import mmstream.models.avp_spec\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
