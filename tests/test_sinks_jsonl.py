import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import jsonschema
import pytest
from full_disks import file_size_limit
from pydantic import ValidationError
from sink_messages import alert, caption, event, health, info, published, stats

from mmstream.errors import SinkError
from mmstream.messages import Published, json_schema
from mmstream.sinks.jsonl import JsonlSettings, JsonlSink

CONTENTS = [
    info(),
    health(),
    event("e1"),
    event("e1", "end"),
    alert("a"),
    caption("final"),
    stats(),
]


def write(settings: JsonlSettings, messages: list[Published]) -> JsonlSink:
    """A whole life of a sink."""

    async def session() -> JsonlSink:
        sink = JsonlSink(settings)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(sink.run())
            for message in messages:
                await sink.publish(message)
            await sink.close()
        return sink

    return asyncio.run(session())


def test_a_line_is_the_topic_and_the_payload_of_mqtt(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    messages = [published(content, i) for i, content in enumerate(CONTENTS)]
    sink = write(JsonlSettings(path=str(path)), messages)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages, strict=True):
        assert line.endswith("}\n")
        parsed = json.loads(line)
        assert next(iter(parsed)) == "topic"
        assert parsed.pop("topic") == message.topic
        assert parsed == json.loads(message.to_json())
        jsonschema.validate(parsed, json_schema(type(message.content)))
    assert "Grüß" in "".join(lines)
    assert (sink.metrics.n_in, sink.metrics.n_out) == (7, 7)


@pytest.mark.parametrize(("append", "n_lines"), [(True, 2), (False, 1)])
def test_what_a_file_holds_is_kept_or_not(tmp_path: Path, *, append: bool, n_lines: int) -> None:
    path = tmp_path / "events.jsonl"
    settings = JsonlSettings(path=str(path), append=append)
    for seq in range(2):
        write(settings, [published(event("e"), seq)])
    lines = path.read_text().splitlines()
    assert len(lines) == n_lines
    assert json.loads(lines[-1])["seq"] == 1


def test_a_reader_sees_each_line_when_publish_returns(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    async def session() -> list[int]:
        sink = JsonlSink(JsonlSettings(path=str(path)))
        seen = []
        async with asyncio.TaskGroup() as group:
            group.create_task(sink.run())
            for seq in range(3):
                await sink.publish(published(event("e"), seq))
                seen.append(path.read_bytes().count(b"\n"))
            await sink.close()
        return seen

    assert asyncio.run(session()) == [1, 2, 3]


def test_lines_of_concurrent_publishers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    async def session() -> None:
        sink = JsonlSink(JsonlSettings(path=str(path)))
        messages = [published(caption("final", "x" * 10_000), seq) for seq in range(50)]
        await asyncio.gather(*(sink.publish(message) for message in messages))
        await sink.close()

    asyncio.run(session())
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == list(range(50))


def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    write(JsonlSettings(path="-"), [published(event("e1"), 7)])
    assert json.loads(capfd.readouterr().out)["seq"] == 7
    os.write(1, b"")  # still open


def lose(settings: JsonlSettings, use: Callable[[JsonlSink], Awaitable[None]]) -> str:
    """What the SinkError says."""

    async def session() -> None:
        sink = JsonlSink(settings)
        try:
            await use(sink)
        finally:
            await sink.close()

    with pytest.raises(SinkError) as caught:
        asyncio.run(session())
    return str(caught.value)


async def publish_one(sink: JsonlSink) -> None:
    await sink.publish(published(event("e1")))


async def get_ready(sink: JsonlSink) -> None:
    await sink.ready(10)


@pytest.mark.parametrize("use", [JsonlSink.run, publish_one, get_ready])
@pytest.mark.parametrize(
    ("place", "reason"), [("none/x.jsonl", "No such file or directory"), ("", "Is a directory")]
)
def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, place: str, reason: str, use: Callable[[JsonlSink], Awaitable[None]]
) -> None:
    path = tmp_path / place
    assert lose(JsonlSettings(path=str(path)), use) == f"cannot open {path}: {reason}"


def test_a_standard_output_that_was_closed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    text = lose(JsonlSettings(path="-"), publish_one)
    assert text == "cannot open standard output: it is closed"


def test_a_full_disk_is_an_error_that_names_the_file() -> None:
    text = lose(JsonlSettings(path="/dev/full"), publish_one)
    assert text == "cannot write to /dev/full: No space left on device"


@pytest.mark.parametrize("append", [True, False])
def test_half_a_line_is_taken_back(tmp_path: Path, *, append: bool) -> None:
    path = tmp_path / "events.jsonl"

    async def session() -> JsonlSink:
        sink = JsonlSink(JsonlSettings(path=str(path), append=append))
        await sink.publish(published(event("e1"), 0))
        with file_size_limit(path.stat().st_size + 10), pytest.raises(SinkError, match="too large"):
            await sink.publish(published(event("e1"), 1))
        await sink.publish(published(event("e1"), 2))
        await sink.close()
        return sink

    sink = asyncio.run(session())
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [0, 2]
    assert sink.metrics.dropped == {"write_failed": 1}
    assert (sink.metrics.n_in, sink.metrics.n_out) == (3, 2)


def test_a_reader_that_goes_away_is_an_error_not_a_crash() -> None:
    script = (
        "import asyncio, sys\n"
        "from sink_messages import event, published\n"
        "from mmstream.errors import SinkError\n"
        "from mmstream.sinks.jsonl import JsonlSettings, JsonlSink\n"
        "async def main():\n"
        "    print('before')  # still in Python's buffer when the sink opens\n"
        "    sink = JsonlSink(JsonlSettings(path='-'))\n"
        "    try:\n"
        "        while True:\n"
        "            await sink.publish(published(event('e1')))\n"
        "    except SinkError as error:\n"
        "        print(error, file=sys.stderr)\n"
        "    await sink.close()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"before\n"
        assert process.stdout.readline().startswith(b'{"topic":"mmstream/pi/door/event"')
        process.stdout.close()
        assert process.stderr.read() == b"cannot write to standard output: Broken pipe\n"
        assert process.wait(20) == 0


def test_a_closed_sink_takes_no_more(tmp_path: Path) -> None:
    async def publish_late(sink: JsonlSink) -> None:
        await sink.close()
        await publish_one(sink)

    path = tmp_path / "x.jsonl"
    assert lose(JsonlSettings(path=str(path)), publish_late) == f"{path} is closed"


def test_close_does_not_wait_for_a_reader_that_has_stopped(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    drained = threading.Event()

    async def session() -> None:
        sink = JsonlSink(JsonlSettings(path=str(pipe)))
        flood = published(caption("final", "x" * 200_000))
        stuck = asyncio.create_task(sink.publish(flood))
        await asyncio.wait({stuck}, timeout=0.1)
        assert not stuck.done()
        async with asyncio.timeout(10):
            await sink.close()
        assert not stuck.done()
        os.set_blocking(reader, True)
        threading.Thread(target=drain).start()
        await stuck

    def drain() -> None:
        while os.read(reader, 65536):
            pass
        drained.set()

    try:
        asyncio.run(session())
        assert drained.wait(10)
    finally:
        os.close(reader)


def test_settings_refuse_an_empty_path() -> None:
    with pytest.raises(ValidationError):
        JsonlSettings(path="")
