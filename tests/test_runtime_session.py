"""A run as a process: it ends in time and says so, whatever hangs."""

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from brokers import Mosquitto
from programs import MOTION_AND_LOUD, ROOT, finish, start

SCENE = "node: test\nsources: {room: {type: synthetic, scene: flash_beep}"
IN_TIME_SECS = 3.0


def config(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(f"{text}\nweb: false\n{MOTION_AND_LOUD}\n")
    return str(path)


def interrupt(process: subprocess.Popen[str]) -> str:
    """Ctrl-C: it must end well in time; gives what it said on stderr."""
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(10)
    assert time.monotonic() - before < IN_TIME_SECS
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.returncode == 0, errors
    return errors


def wait_for_line(process: subprocess.Popen[str], part: str) -> None:
    assert process.stdout is not None
    assert any(part in line for line in process.stdout)


def test_the_view_goes_quiet_when_nobody_reads_it(tmp_path: Path) -> None:
    with start("run", config(tmp_path, SCENE + "}")) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.readline() == "mmstream: nothing more is shown: Broken pipe\n"
        assert interrupt(process) == ""


def test_a_reader_that_stops_reading_does_not_hold_up_the_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # nobody opens it
    with start(
        "run", config(tmp_path, f"{SCENE}}}\nsinks: {{jsonl: {{path: {pipe}}}}}")
    ) as process:
        wait_for_line(process, " start ")
        assert "messages were not delivered" in interrupt(process)


def test_sighup_reads_the_configuration_again_and_a_wrong_one_changes_nothing(
    tmp_path: Path,
) -> None:
    def changed(text: str) -> str:
        """What it says of a configuration that is read again."""
        config(tmp_path, text)
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        return process.stderr.readline()

    yard = "yard: {type: synthetic, scene: %s}}"
    with start("run", config(tmp_path, SCENE + "}")) as process:
        try:
            wait_for_line(process, " start ")
            added = changed(f"{SCENE}, {yard % 'flash_beep'}")
            assert added == "mmstream: reload: added yard\n"
            wait_for_line(process, "yard ")
            assert "yard" in changed(f"{SCENE}, {yard % 'nonsense'}")
            swapped = changed(SCENE.replace("room", "hall") + "}")
            assert swapped == "mmstream: reload: added hall; removed room, yard\n"
            interrupt(process)
        finally:
            process.kill()


def test_it_ends_when_its_terminal_is_closed(tmp_path: Path) -> None:
    path = config(tmp_path, SCENE + "}")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "main", "run", path])  # noqa: S606 - no shell is meant
    try:
        seen = b""
        while b" start " not in seen and b"online" not in seen:
            seen += os.read(terminal, 65536)
        before = time.monotonic()
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
        assert time.monotonic() - before < IN_TIME_SECS
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.broker
@pytest.mark.parametrize(("store", "told"), [("{}", "wait on disk"), ("false", "are lost")])
def test_a_frozen_broker_and_a_source_that_hangs_in_open_do_not_hold_up_the_end(
    tmp_path: Path, store: str, told: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, Mosquitto(tmp_path) as broker:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x"
        text = f"{SCENE}, mute: {{type: network, url: '{url}'}}}}\nstore: {store}\n"
        text += f"sinks: {{mqtt: {{host: 127.0.0.1, port: {broker.port}}}}}"
        with start("run", config(tmp_path, text)) as process:
            wait_for_line(process, " start ")
            broker.freeze()
            assert f"messages {told}" in interrupt(process)


def test_strict_fails_as_soon_as_the_run_is_over(tmp_path: Path, data_dir: Path) -> None:
    media = data_dir / "surveillance/car_detection.mp4"
    text = f"node: test\nsources: {{clip: {{type: media, url: {media}, pace: max}}}}\n"
    text += "sinks: {mqtt: {host: 127.0.0.1, port: 9}}"
    before = time.monotonic()
    ended = finish("run", config(tmp_path, text), "--strict")
    assert time.monotonic() - before < 8  # it waits 10 s for a broker while sources run
    assert ended.returncode == 3, ended.stderr
    assert "cannot reach the MQTT broker at 127.0.0.1:9" in ended.stderr
