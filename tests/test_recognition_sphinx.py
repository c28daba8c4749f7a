"""Real speech through the real process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError

from mmstream.errors import ScorerError
from mmstream.media import Floats, Take
from mmstream.recognition.sphinx import Pocketsphinx
from mmstream.recognition.sphinx_settings import PocketsphinxSettings

_TEXT = "how old is the brooklyn bridge"


@pytest.fixture(scope="module")
def sphinx() -> Iterator[Pocketsphinx]:
    made = Pocketsphinx("en-US")
    yield made
    made.close()


@pytest.fixture(scope="module")
def bridge(data_dir: Path) -> Floats:
    with av.open(data_dir / "speech" / "google_brooklyn_bridge.wav") as container:
        frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / np.float32(32768)


def _take(samples: Floats, source: str, *, is_last: bool = False, utterance: int = 0) -> Take:
    return Take(source, utterance, 5_000_000_000, 16_000, samples.copy(), is_last)


def _said(sphinx: Pocketsphinx, take: Take) -> str:
    (hypothesis,) = sphinx.recognise([take])
    return " ".join(word.text for word in hypothesis.words)


def test_growing_takes_end_in_the_words_with_times_and_confidences(
    sphinx: Pocketsphinx, bridge: Floats
) -> None:
    partials = [_said(sphinx, _take(bridge[:n], "a")) for n in range(4000, bridge.size, 4000)]
    (last,) = sphinx.recognise([_take(bridge, "a", is_last=True)])
    assert " ".join(word.text for word in last.words) == _TEXT
    assert any(partial.startswith("how old") for partial in partials)
    assert all(
        one.span.end_ns <= two.span.start_ns
        for one, two in zip(last.words, last.words[1:], strict=False)
    )
    assert last.words[0].span.start_ns >= 5_000_000_000
    assert last.words[-1].span.end_ns <= last.span.end_ns
    assert len({word.confidence for word in last.words}) > 1


def test_a_source_that_starts_anew_hears_the_same(sphinx: Pocketsphinx, bridge: Floats) -> None:
    runs = []
    for _ in range(2):
        takes = [_take(bridge, "b", is_last=True, utterance=n) for n in range(2)]
        runs.append([sphinx.recognise([take])[0].words for take in takes])
        sphinx.forget("b")
    assert runs[0] == runs[1]


def test_a_child_that_died_is_replaced_and_nothing_is_lost(bridge: Floats) -> None:
    sphinx = Pocketsphinx("en-US")
    try:
        _said(sphinx, _take(bridge[:16_000], "a"))
        os.kill(sphinx.pid, signal.SIGKILL)
        assert _said(sphinx, _take(bridge, "a", is_last=True)) == _TEXT
        assert sphinx.n_restarts == 1
    finally:
        sphinx.close()


def test_the_child_ends_when_its_parent_is_killed() -> None:
    code = (
        "from mmstream.recognition.sphinx import Pocketsphinx; s = Pocketsphinx('en-US'); "
        "print(s.pid, flush=True); import signal; signal.pause()"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    _wait_gone(child)


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while _is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} goes on"
        os.sched_yield()


def _is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_another_rate_is_refused(sphinx: Pocketsphinx) -> None:
    take = Take("a", 0, 0, 8000, np.zeros(800, np.float32))
    with pytest.raises(ScorerError, match="8000 Hz; allowed: 16000"):
        sphinx.recognise([take])


def test_another_language_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValidationError, match=r"en-US only .got 'de'.*whisper or moonshine"):
        PocketsphinxSettings(language="de")
