"""The description of the speech detector; what it hears is in test_detectors_silero.py."""

import pickle
import subprocess
import sys

from mmstream.detectors.silero import SpeechScorer
from mmstream.detectors.speech import SpeechSettings
from mmstream.media import Label


def test_the_description_is_picklable_and_builds_the_scorer() -> None:
    spec = pickle.loads(pickle.dumps(SpeechSettings()))  # noqa: S301 - our own bytes
    assert spec == SpeechSettings()
    assert spec.labels == (Label("speech", "audio", "silero"),)
    assert isinstance(spec.build("cpu"), SpeechScorer)


def test_the_description_loads_no_torch() -> None:
    program = "import sys, mmstream.pipelines.configuration; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
