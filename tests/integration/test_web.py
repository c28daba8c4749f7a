"""The program, asked over HTTP while it runs."""

import json
import signal
import time
from http.client import HTTPConnection
from pathlib import Path

from brokers import free_port
from programs import finish, start

from mmstream.cli import EXIT_USAGE

SCENE = "node: test\nsources: {room: {type: synthetic, scene: flash_beep}}\nstore: {path: log.db}\n"
PATIENCE_SECS = 40.0


def answer(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def wait_for(port: int, path: str, text: str) -> str:
    """What it answers once it is 200 and holds the text."""
    end = time.monotonic() + PATIENCE_SECS
    while True:
        try:
            status, body = answer(port, path)
        except OSError:
            status, body = 0, "nobody listens"
        if status == 200 and text in body:
            return body
        assert time.monotonic() < end, (status, body)
        time.sleep(0.1)


def test_a_run_shows_how_it_is_until_it_ends(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "config.yaml"
    config.write_text(SCENE + f"web: {{port: {port}}}\n")
    with start("run", str(config), folder=tmp_path) as process:
        report = json.loads(wait_for(port, "/readyz", "online"))
        assert report["sources"]["room"]["state"] == "online"
        wait_for(port, "/metrics", 'mmstream_events_total{label="loud",source="room"}')
        taken = finish("run", str(config), "--set", "store=false", folder=tmp_path)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert taken.returncode == EXIT_USAGE
    assert f"127.0.0.1:{port} is in use" in taken.stderr
