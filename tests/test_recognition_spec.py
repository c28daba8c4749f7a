import pickle

import pytest
from pydantic import ValidationError

from mmstream.models.speech_settings import MoonshineSettings
from mmstream.recognition.spec import SpeechCaptions
from mmstream.recognition.sphinx_settings import PocketsphinxSettings


def test_with_nothing_said_it_is_pocketsphinx() -> None:
    spec = SpeechCaptions.model_validate({})
    assert spec.recogniser == PocketsphinxSettings()
    assert spec.labels == ()
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301 - our own bytes


def test_a_recogniser_is_told_by_its_type() -> None:
    told = {"recogniser": {"type": "moonshine", "weights": "somewhere/moonshine"}}
    spec = SpeechCaptions.model_validate(told)
    assert spec.recogniser == MoonshineSettings(weights="somewhere/moonshine")


@pytest.mark.parametrize("told", [{"pause_secs": 0.1}, {"recogniser": {"type": "parrot"}}])
def test_what_cannot_be_is_refused(told: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"pause_secs|pocketsphinx"):
        SpeechCaptions.model_validate(told)
