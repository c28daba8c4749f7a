"""What every test may use: the shared recordings, and a guard against blocking the event loop."""

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from blockbuster import BlockBuster, blockbuster_ctx

ROOT = Path(__file__).resolve().parent.parent

hypothesis.settings.register_profile("mmstream", deadline=None)  # no test is about how long it took
hypothesis.settings.load_profile("mmstream")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real recordings, with MANIFEST.tsv."""
    folder = Path(os.environ.get("MMSTREAM_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "MANIFEST.tsv").is_file():
        reason = f"no recordings at {folder}; MMSTREAM_DATA may name another place"
        if os.environ.get("MMSTREAM_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard() -> None:
    """A shell's background jobs ignore it, and what they start does too, such as these tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _event_logs_are_the_tests_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mmstream run` keeps what happened; no test may find what another has left."""
    folder = tmp_path_factory.getbasetemp() / "state" / secrets.token_hex(8)  # made when needed
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))


@pytest.fixture(autouse=True)
def _loop_is_never_blocked() -> Iterator[BlockBuster]:
    with blockbuster_ctx("mmstream") as blockbuster:
        yield blockbuster
