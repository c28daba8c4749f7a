"""The MQTT sink against a real mosquitto: the wire, outages, credentials, TLS."""

import asyncio
import gc
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jsonschema
import pytest
from brokers import (
    HOST,
    Certificates,
    Heard,
    Listener,
    Mosquitto,
    answering,
    listening,
    running,
    say,
    until,
    wait_until,
)
from pydantic import JsonValue
from sink_messages import (
    BOOT_ID,
    NODE,
    alert,
    caption,
    event,
    features,
    health,
    info,
    published,
    stats,
)

from mmstream.errors import BrokerError
from mmstream.messages import (
    Alert,
    Caption,
    Content,
    Event,
    Health,
    Info,
    Open,
    Request,
    Response,
    Stats,
    json_schema,
)
from mmstream.sinks.inbox import MAX_REQUEST_BYTES
from mmstream.sinks.mqtt import MqttSettings, MqttSink

pytestmark = pytest.mark.broker

ROOT = f"mmstream/{NODE}"
PASSWORD = "sesame-4711"  # noqa: S105 - the tests look for it where it must not be
N_STREAMED = 400
DYNAMIC_SECURITY = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so"
SCHEMAS: dict[str, type[Content]] = {
    "event": Event,
    "open": Open,
    "alert": Alert,
    "caption": Caption,
    "health": Health,
    "info": Info,
    "stats": Stats,
}


@pytest.fixture(autouse=True)
def _logs_hold_no_secret_and_no_noise(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    yield
    gc.collect()
    for record in caplog.get_records("call"):
        assert PASSWORD not in f"{record.getMessage()} {record.__dict__}"
        assert record.name == "mmstream.sinks.mqtt", record


def made(port: int, **more: object) -> MqttSink:
    settings = MqttSettings.model_validate({"port": port, "discovery": "off", **more})
    return MqttSink(settings, node=NODE, boot_id=BOOT_ID)


def schema_of(topic: str) -> type[Content] | None:
    """What a topic carries; None for those that are one word."""
    names = topic.removeprefix(f"{ROOT}/").split("/")
    if "state" in names or names[-1] == "status":
        return None
    return next(kind for name, kind in SCHEMAS.items() if name in names)


def payloads(heard: list[Heard], topic: str) -> list[dict[str, JsonValue]]:
    return [json.loads(one.payload) for one in heard if one.topic == f"{ROOT}/{topic}"]


def seqs(heard: list[Heard]) -> list[JsonValue]:
    return [one["seq"] for one in payloads(heard, "door/event")]


def has_sent(sink: MqttSink, n_messages: int) -> bool:
    return sink.metrics.n_out >= n_messages


def test_every_message_is_what_the_schema_says_and_a_late_joiner_has_the_picture(
    tmp_path: Path,
) -> None:
    contents = [
        *(info(), health(), event("a"), event("b", label="Person speaking"), alert("x")),
        *(event("a", "update"), event("a", "end"), caption("partial"), caption("final"), stats()),
    ]

    async def session(broker: Mosquitto) -> tuple[list[Heard], dict[str, str], dict[str, str]]:
        sink = made(broker.port)
        async with listening(broker.port) as early, running(sink):
            await sink.ready(10)
            for seq, content in enumerate(contents):
                await sink.publish(published(content, seq))
            await until(lambda: len(early.heard) == 22, "all is delivered")
            async with listening(broker.port) as late:
                await until(lambda: len(late.heard) == 8, "all that is retained")
                assert all(one.retain for one in late.heard)
                picture = late.retained()
            await sink.close()
            await until(lambda: early.retained()[f"{ROOT}/status"] == "offline", "the goodbye")
            return early.heard, picture, early.retained()

    with Mosquitto(tmp_path) as broker:
        heard, picture, end = asyncio.run(session(broker))
        assert f"as {NODE}-{BOOT_ID} (p5, c1, k21)" in broker.log
    for one in heard:
        kind = schema_of(one.topic)
        if kind is None:
            assert one.payload in {"online", "offline", "ON", "OFF"}
        else:
            jsonschema.validate(json.loads(one.payload), json_schema(kind))
    assert {schema_of(one.topic) for one in heard} == {None, *SCHEMAS.values()}
    opened = json.loads(picture.pop(f"{ROOT}/door/open"))
    assert [one["id"] for one in opened["events"]] == ["b"]
    assert json.loads(picture.pop(f"{ROOT}/info"))["boot_id"] == BOOT_ID
    assert json.loads(picture.pop(f"{ROOT}/door/health"))["state"] == "online"
    assert picture == {
        f"{ROOT}/status": "online",
        f"{ROOT}/door/status": "online",
        f"{ROOT}/door/state/motion": "OFF",
        f"{ROOT}/door/state/loud": "OFF",
        f"{ROOT}/door/state/person_speaking": "ON",
    }
    assert end[f"{ROOT}/door/status"] == "offline"


def test_nothing_numbered_is_lost_when_the_broker_is_killed_mid_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A durable listener hears every number, in order; what comes twice is the same again.

    mosquitto itself forgets what it has acknowledged and not passed on, so it is made to write
    every change to disk, and is killed when the listener has everything.
    """
    to_disk = ["max_inflight_messages 0", "autosave_on_changes true", "autosave_interval 1"]

    async def stream(sink: MqttSink) -> None:
        for seq in range(N_STREAMED):
            await sink.publish(published(event(f"e{seq}"), seq))
            await asyncio.sleep(0.001)

    async def session(broker: Mosquitto) -> tuple[list[Heard], MqttSink]:
        async with listening(broker.port, name="durable") as listener:
            broker.save()
            sink = made(broker.port)
            async with running(sink):
                await sink.ready(10)
                streaming = asyncio.create_task(stream(sink))
                for n_heard in (N_STREAMED // 8, N_STREAMED // 2):
                    await until(partial(has_sent, sink, n_heard), "some are sent")
                    await until(
                        lambda: len(set(seqs(listener.heard))) >= sink.metrics.n_out, "and heard"
                    )
                    broker.kill()
                    await until(lambda: not sink.connected, "the sink has noticed")
                    await asyncio.to_thread(broker.start)
                await streaming
                await until(lambda: (N_STREAMED - 1) in seqs(listener.heard), "the last one")
            return listener.heard, sink

    with Mosquitto(tmp_path, is_persistent=True, extra=to_disk) as broker:
        heard, sink = asyncio.run(session(broker))
    events = payloads(heard, "door/event")
    first_time = list(dict.fromkeys(one["seq"] for one in events))
    assert first_time == list(range(N_STREAMED))
    for one in events:
        assert one["id"] == f"e{one['seq']}"
    assert 0 < sum(bool(one["late"]) for one in events) < len(events)
    assert sink.metrics.n_out == N_STREAMED
    assert "too slow" not in caplog.text
    assert sink.metrics.dropped == {}


def test_a_broker_that_has_forgotten_everything_is_told_the_whole_picture(tmp_path: Path) -> None:
    async def session(broker: Mosquitto) -> dict[str, str]:
        sink = made(broker.port)
        async with running(sink):
            for seq, content in enumerate((info(), health(), event("a"))):
                await sink.publish(published(content, seq))
            await until(lambda: sink.metrics.n_out == 1, "the event is acknowledged")
            broker.kill()  # while nothing is under way
            await until(lambda: not sink.connected, "the sink has noticed")
            await sink.publish(published(event("b", label="loud"), 3))
            await sink.publish(published(event("a", "end"), 4))
            await asyncio.to_thread(broker.start)
            async with listening(broker.port) as listener:
                await sink.ready(10)
                await until(lambda: f"{ROOT}/door/event" in listener.retained(), "the replay")
                assert [one["late"] for one in payloads(listener.heard, "door/event")][-1:] == [
                    True
                ]
                return listener.retained()

    with Mosquitto(tmp_path) as broker:
        told = asyncio.run(session(broker))
    assert told[f"{ROOT}/status"] == told[f"{ROOT}/door/status"] == "online"
    assert told[f"{ROOT}/door/state/motion"] == "OFF"
    assert told[f"{ROOT}/door/state/loud"] == "ON"
    assert [one["id"] for one in json.loads(told[f"{ROOT}/door/open"])["events"]] == ["b"]


def test_a_wrong_password_is_said_once_and_works_once_the_broker_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def session(broker: Mosquitto) -> None:
        sink = made(broker.port, username="pi", password=PASSWORD)
        async with running(sink):
            await sink.publish(published(event("e")))
            with pytest.raises(BrokerError) as caught:
                await sink.ready(1.5)
            address = f"{HOST}:{broker.port}"
            text = f"the MQTT broker at {address} refused us: Not authorized (code 135)"
            assert str(caught.value) == text
            warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
            assert warnings == [f"{text}; trying again until it works"]
            assert broker.log.count("not authorised") > 1
            broker.kill()
            broker.let_in({"pi": PASSWORD})
            await asyncio.to_thread(broker.start)
            await sink.ready(10)
            await until(lambda: sink.metrics.n_out == 1, "the event is acknowledged")

    with Mosquitto(tmp_path, users={"pi": "another"}) as broker:
        asyncio.run(session(broker))


@pytest.mark.parametrize(("protocol", "logged"), [("3.1.1", "p2"), ("5", "p5")])
def test_a_protocol_can_be_asked_for(tmp_path: Path, protocol: str, logged: str) -> None:
    async def session(broker: Mosquitto) -> None:
        sink = made(broker.port, protocol=protocol)
        async with running(sink):
            await sink.publish(published(event("e")))
            await until(lambda: sink.metrics.n_out == 1, "the event is acknowledged")

    with Mosquitto(tmp_path) as broker:
        asyncio.run(session(broker))
        assert f"as {NODE}-{BOOT_ID} ({logged}, c1, k21)" in broker.log


def test_tls_with_a_certificate_on_both_sides(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)
    tls = {"ca": certificates.ca, "certificate": certificates.certificate("client")}

    async def session(broker: Mosquitto) -> None:
        sink = made(broker.port, host="localhost", tls={**tls, "key": certificates.key("client")})
        async with running(sink):
            await sink.publish(published(event("e")))
            await until(lambda: sink.metrics.n_out == 1, "the event is acknowledged")

    with Mosquitto(tmp_path, tls=certificates) as broker:
        asyncio.run(session(broker))


@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")  # paho leaves it
@pytest.mark.parametrize(
    ("tls", "reason"),
    [
        ({}, "certificate verify failed"),
        ({"ca": "ca.crt"}, "tlsv13 alert certificate required"),
        (None, "; is `tls` as it wants it?"),
    ],
    ids=["strange_authority", "no_certificate", "no_tls"],
)
def test_what_is_wrong_with_tls_is_said(
    tmp_path: Path, tls: dict[str, str] | None, reason: str
) -> None:
    certificates = Certificates.make(tmp_path)

    async def session(broker: Mosquitto) -> str:
        paths = None if tls is None else {key: tmp_path / name for key, name in tls.items()}
        sink = made(broker.port, tls=paths)
        async with running(sink):
            await until(lambda: sink.last_error is not None, "the first attempt has failed")
            return str(sink.last_error)

    with Mosquitto(tmp_path, tls=certificates) as broker:
        text = asyncio.run(session(broker))
    assert text.startswith(f"cannot reach the MQTT broker at {HOST}:{broker.port}: ")
    assert reason in text


def test_the_will_is_published_when_the_process_dies(tmp_path: Path) -> None:
    script = (
        "import asyncio\n"
        "from sink_messages import health, published\n"
        "from mmstream.sinks.mqtt import MqttSettings, MqttSink\n"
        "async def main(port):\n"
        "    sink = MqttSink(MqttSettings(port=port), node='pi', boot_id='b')\n"
        "    await sink.publish(published(health()))\n"
        "    await sink.run()\n"
        "asyncio.run(main({port}))\n"
    )
    with Mosquitto(tmp_path) as broker:
        status = f"{ROOT}/status"
        command = [sys.executable, "-c", script.replace("{port}", str(broker.port))]
        path = os.pathsep.join(folder for folder in sys.path if folder)
        with Listener(broker.port) as listener:
            with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as process:
                wait_until(lambda: listener.retained().get(status) == "online", "online")
                process.kill()
            wait_until(lambda: listener.retained().get(status) == "offline", "the will")
        with Listener(broker.port) as late:
            wait_until(lambda: late.retained().get(status) == "offline", "the will is retained")


def test_a_broker_that_freezes_does_not_hold_up_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def session(broker: Mosquitto) -> MqttSink:
        sink = made(broker.port)
        async with running(sink):
            await sink.publish(published(event("e"), 0))
            await until(lambda: sink.metrics.n_out == 1, "the first is acknowledged")
            broker.freeze()
            for seq in range(1, 40):
                await sink.publish(published(event("e", "update"), seq))
        return sink

    with Mosquitto(tmp_path) as broker:
        sink = asyncio.run(session(broker))
    assert sink.metrics.dropped == {"shutdown": 39}
    assert "39 messages are lost" in caplog.text


def test_a_half_open_connection_is_found_within_one_and_a_half_times_the_keepalive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keepalive_secs = 5  # the least there is

    async def session(broker: Mosquitto) -> None:
        async with running(made(broker.port, keepalive_secs=keepalive_secs)):
            await until(lambda: "connected to the MQTT broker" in caplog.text, "connected")
            broker.freeze()  # and nothing is said that it would have to acknowledge
            async with asyncio.timeout(1.5 * keepalive_secs):
                await until(lambda: "lost the MQTT broker" in caplog.text, "found")

    caplog.set_level(logging.INFO)
    with Mosquitto(tmp_path) as broker:
        asyncio.run(session(broker))


def test_what_a_broker_does_not_let_us_publish_is_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = tmp_path / "acl"
    rules.write_text(f"topic read #\ntopic write {ROOT}/status\n")

    async def session(broker: Mosquitto) -> None:
        sink = made(broker.port)
        async with running(sink):
            await sink.ready(10)
            for seq in range(3):
                await sink.publish(published(alert("a"), seq))
            await until(lambda: sink.metrics.dropped["refused"] == 3, "all are refused")

    with Mosquitto(tmp_path, extra=[f"acl_file {rules}"]) as broker:
        asyncio.run(session(broker))
    [error] = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert re.search(r"refuses messages, which are lost: Not authorized; may pi-.* publish", error)


def test_what_is_larger_than_a_broker_takes_is_not_sent_but_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def session(broker: Mosquitto) -> None:
        sink = made(broker.port)
        async with running(sink):
            await sink.ready(10)
            await sink.publish(published(alert("a" * 4000), 0))
            await sink.publish(published(alert("b"), 1))
            await until(lambda: sink.metrics.n_out == 2, "both are done with")
            assert sink.metrics.dropped == {"refused": 1}

    with Mosquitto(tmp_path, extra=["max_packet_size 4000"]) as broker:
        asyncio.run(session(broker))
    [error] = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert re.search(r"lost: mmstream/\S+/alert has 4\d+ bytes, it takes 4000", error)


@pytest.mark.parametrize(("protocol", "logged"), [("3.1.1", "p2"), ("5", "p5")])
def test_requests_are_answered_and_after_a_restart_of_the_broker_as_well(
    tmp_path: Path, protocol: str, logged: str
) -> None:
    answer = f"{ROOT}/response/health"

    async def session(broker: Mosquitto) -> tuple[MqttSink, list[str]]:
        sink, responses = made(broker.port, protocol=protocol), []
        async with running(sink), answering(sink) as requests:
            await sink.ready(10)
            for payload in ("first", "second"):
                async with listening(broker.port) as listener:
                    await asyncio.to_thread(say, broker.port, f"{ROOT}/request/health", payload)
                    await until(lambda: answer in listener.retained(), "the response")
                    responses.append(listener.retained()[answer])
                if payload == "first":
                    broker.kill()
                    await until(lambda: not sink.connected, "the sink has noticed")
                    await asyncio.to_thread(broker.start)
                    await sink.ready(10)
            assert requests == [Request("health", "first"), Request("health", "second")]
        return sink, responses

    with Mosquitto(tmp_path) as broker:
        sink, responses = asyncio.run(session(broker))
        assert broker.log.count(f"as {NODE}-{BOOT_ID} ({logged}, c1, k21)") == 2
    for response, payload in zip(responses, ("first", "second"), strict=True):
        jsonschema.validate(json.loads(response), json_schema(Response))
        assert json.loads(response)["transaction"] == payload
    assert sink.metrics.dropped == {}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_is_no_live_request_is_counted_and_the_rest_goes_on(
    tmp_path: Path, protocol: str
) -> None:
    async def session(broker: Mosquitto) -> MqttSink:
        request = f"{ROOT}/request"
        await asyncio.to_thread(say, broker.port, f"{request}/restart", "kept", "-r")
        sink = made(broker.port, protocol=protocol)
        async with running(sink), answering(sink) as requests:
            await sink.ready(10)
            for topic, payload in (
                (f"{request}/no text", b"x"),
                (f"{request}/info", b"\xff"),
                (f"{request}/info", b" " * (MAX_REQUEST_BYTES + 1)),
                (f"{request}/info/deeper", b"x"),
                (f"{request}/info", b"{}"),
            ):
                await asyncio.to_thread(say, broker.port, topic, payload)
            await until(lambda: bool(requests), "the last one")
            assert requests == [Request("info", "{}")]
        return sink

    with Mosquitto(tmp_path) as broker:
        sink = asyncio.run(session(broker))
    assert sink.metrics.dropped == {"request_retained": 1, "request_unreadable": 3}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_that_does_not_let_us_subscribe_is_told_everything_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    """mosquitto's ACL files let everybody subscribe and pass nothing on; its plugin refuses."""
    access = {"publishClientSend": True, "publishClientReceive": True, "unsubscribe": True}
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"defaultACLAccess": {**access, "subscribe": False}}))
    plugin = ["per_listener_settings false", f"plugin {DYNAMIC_SECURITY}"]

    async def session(broker: Mosquitto) -> None:
        sink = made(broker.port, protocol=protocol)
        async with running(sink):
            for i in range(2):
                await sink.ready(10)
                await sink.publish(published(event("e"), i))
                await until(partial(has_sent, sink, i + 1), "the event is acknowledged")
                broker.kill()
                await until(lambda: not sink.connected, "the sink has noticed")
                await asyncio.to_thread(broker.start)
            await sink.ready(10)

    with Mosquitto(tmp_path, extra=[*plugin, f"plugin_opt_config_file {rules}"]) as broker:
        asyncio.run(session(broker))
    said = [r.getMessage() for r in caplog.records if "requests" in r.getMessage()]
    why = {"5": "Not authorized", "3.1.1": "Unspecified error"}[protocol]
    address = f"{HOST}:{broker.port}"
    question = f"may {NODE}-{BOOT_ID} subscribe to {ROOT}/request/+ and {ROOT}/+/+/set?"
    assert said == [f"the MQTT broker at {address} lets no requests come in: {why}; {question}"]


def test_a_source_that_is_removed_is_cleared_once_and_for_good(tmp_path: Path) -> None:
    yard = ("status", "health", "open", "state/motion")

    async def session(broker: Mosquitto) -> tuple[list[Heard], dict[str, str]]:
        sink = made(broker.port)
        async with running(sink):
            await sink.publish(published(info(door=("loud",), yard=("motion",))))
            await sink.publish(published(health(source="yard")))
            await sink.ready(10)
            async with listening(broker.port) as listener:
                await until(lambda: len(listener.heard) == 8, "the picture")
                await sink.publish(published(health("offline", source="yard")))
                await sink.publish(published(info(door=("loud",))))
                await sink.publish(published(health("offline", source="yard")))  # too late
                await sink.publish(published(alert("a")))
                await until(lambda: f"{ROOT}/door/alert" in listener.retained(), "what follows")
                told = listener.heard[8:]
            broker.kill()
            await until(lambda: not sink.connected, "the sink has noticed")
            await asyncio.to_thread(broker.start)
            async with listening(broker.port) as listener:
                await sink.ready(10)
                await sink.close()
                await until(lambda: len(listener.heard) == 6, "picture and goodbye")
                return told, listener.retained()

    with Mosquitto(tmp_path) as broker:
        told, later = asyncio.run(session(broker))
    ends = [one.topic for one in told if one.payload == ""]
    assert sorted(ends) == sorted(f"{ROOT}/yard/{name}" for name in yard)
    status = [one.payload for one in told if one.topic == f"{ROOT}/yard/status"]
    assert status == ["offline", ""]
    assert set(later) == {
        f"{ROOT}/{name}"
        for name in ("status", "info", "door/status", "door/open", "door/state/loud")
    }


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_source_that_is_removed_while_the_broker_is_away_is_cleared(
    tmp_path: Path, protocol: str
) -> None:
    async def session(broker: Mosquitto) -> dict[str, str]:
        sink = made(broker.port, protocol=protocol)
        async with running(sink):
            await sink.publish(published(info(door=("loud",), yard=("motion",))))
            await sink.publish(published(health(source="yard")))
            await sink.publish(published(event("e", source="yard")))
            await until(lambda: sink.metrics.n_out == 1, "the event is acknowledged")
            broker.save()
            broker.kill()
            await until(lambda: not sink.connected, "the sink has noticed")
            await sink.publish(published(event("e", "end", source="yard"), 1))
            await sink.publish(published(health("offline", source="yard")))
            await sink.publish(published(info(door=("loud",))))
            await asyncio.to_thread(broker.start)
            await sink.ready(10)
            await until(lambda: sink.metrics.n_out == 2, "the end is acknowledged")
        async with listening(broker.port) as late:
            await until(lambda: len(late.heard) == 5, "all that is retained")
            return late.retained()

    with Mosquitto(tmp_path, is_persistent=True) as broker:
        kept = asyncio.run(session(broker))
    assert [topic for topic in kept if "yard" in topic] == []
    assert kept[f"{ROOT}/status"] == "offline"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_source_that_an_earlier_boot_had_is_cleared(tmp_path: Path, protocol: str) -> None:
    async def first_boot(broker: Mosquitto) -> None:
        sink = made(broker.port, protocol=protocol)
        async with running(sink):
            await sink.publish(published(info(door=("loud",), yard=("motion",))))
            for source in ("door", "yard"):
                await sink.publish(published(health(source=source)))
                await sink.publish(published(features(source=source)))
            await sink.ready(10)
            async with listening(broker.port) as listener:
                await until(lambda: f"{ROOT}/yard/features" in listener.retained(), "all is told")

    def living(listener: Listener) -> set[str]:
        return {topic for topic, payload in listener.retained().items() if payload}

    async def second_boot(broker: Mosquitto) -> set[str]:
        sink = made(broker.port, protocol=protocol)
        async with listening(broker.port) as listener, running(sink):
            await until(lambda: f"{ROOT}/yard/health" in listener.retained(), "what was left")
            await sink.publish(published(info(door=("loud",))))
            await sink.ready(10)
            await until(lambda: not [t for t in living(listener) if "yard" in t], "no ghosts")
            return living(listener)

    with Mosquitto(tmp_path) as broker:
        asyncio.run(first_boot(broker))
        kept = asyncio.run(second_boot(broker))
    assert {f"{ROOT}/door/{name}" for name in ("status", "health", "features")} <= kept


def test_the_access_rules_of_the_page_let_only_the_desk_ask(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
    rules = tmp_path / "acl"
    rules.write_text(re.findall(r"^```\n(user .*?)^```$", page, re.MULTILINE | re.DOTALL)[0])

    async def session(broker: Mosquitto) -> list[Request]:
        sink = made(broker.port, username="mmstream", password=PASSWORD)
        async with running(sink), answering(sink) as requests:
            await sink.ready(10)
            for user in ("viewer", "desk"):
                flags = ("-u", user, "-P", PASSWORD)
                await asyncio.to_thread(say, broker.port, f"{ROOT}/request/info", user, *flags)
            await until(lambda: bool(requests), "the one of the desk")
            await until(lambda: sink.metrics.n_out == 1, "its response is acknowledged")
            return requests

    users = dict.fromkeys(("mmstream", "desk", "viewer"), PASSWORD)
    with Mosquitto(tmp_path, users=users, extra=[f"acl_file {rules}"]) as broker:
        assert asyncio.run(session(broker)) == [Request("info", "desk")]
