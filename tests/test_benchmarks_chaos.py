"""What `mmstream bench chaos` counts: each kind of wrong is seen, and nothing else is."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sink_messages import event, published

from mmstream.benchmarks.chaos_picture import Line, secs_until_true
from mmstream.benchmarks.chaos_proxy import Number, Splitter, Tap
from mmstream.benchmarks.chaos_verdict import Message, Records, judge

BOOT, NEXT = "boot-1", "boot-2"


def message(seq: int, event_id: str, step: str, *, boot_id: str = BOOT) -> Message:
    said = published(event(event_id, step), seq)  # type: ignore[arg-type]  # one of three words
    return Message.of({**said.payload(), "boot_id": boot_id})


LIFE = [message(seq, "e", step) for seq, step in enumerate(("start", "update", "end"))]


def records(heard: Sequence[Message], on_disk: Sequence[Message] = LIFE) -> Records:
    return Records(on_disk, frozenset(), said=on_disk, heard=heard, acknowledged=frozenset())


def wrong(found: Records) -> dict[str, int]:
    """What is not as it should be; `said` is how many there were."""
    return {name: n for name, n in judge(found).model_dump().items() if n and name != "said"}


def test_what_arrives_as_it_was_said_is_right() -> None:
    assert wrong(records(LIFE)) == {}
    assert judge(records(LIFE)).said == 3


@pytest.mark.parametrize(
    ("heard", "counts"),
    [
        (LIFE[:1] + LIFE[2:], {"lost": 1, "gaps": 1}),
        (LIFE[:2], {"lost": 1, "stuck": 1}),
        ([], {"lost": 3}),
        ([*LIFE, LIFE[1]], {"repeated": 1}),
        ([LIFE[0], LIFE[2], LIFE[1]], {"disordered": 2}),
        ([*LIFE, message(3, "e", "end")], {"duplicates": 1, "altered": 1}),
        ([*LIFE, message(1, "f", "update")], {"duplicates": 1, "altered": 1, "disordered": 1}),
        ([*LIFE[:2], replace(LIFE[2], rest={})], {"altered": 1}),
        ([*LIFE[:2], replace(LIFE[2], is_late=True)], {"late": 1}),
    ],
)
def test_each_wrong_is_counted(heard: list[Message], counts: dict[str, int]) -> None:
    assert wrong(records(heard)) == counts


def test_what_is_missing_is_told_apart() -> None:
    """By who had it last: the disk, the broker, nobody after a `kill -9`."""
    short = records(LIFE[:2])
    last = frozenset({LIFE[2].number})
    assert wrong(replace(short, waiting=last)) == {"waiting": 1, "stuck": 1}
    assert wrong(replace(short, acknowledged=last)) == {"forgotten": 1, "stuck": 1}
    unspooled = replace(short, on_disk=LIFE[:2])
    assert wrong(unspooled) == {"lost": 1, "stuck": 1}
    assert wrong(replace(unspooled, killed=frozenset({BOOT}))) == {"unspooled": 1, "stuck": 1}


def test_a_boot_comes_after_the_one_before_it() -> None:
    restart = message(0, "e", "end", boot_id=NEXT)
    said = [*LIFE[:2], restart]
    assert wrong(records(said, said)) == {}
    assert wrong(records([restart, *LIFE[:2]], said)) == {"disordered": 2}


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 1 << 14
    low, high = len(body) & 0x7F, len(body) >> 7
    return bytes([first, low | 0x80, high] if high else [first, low]) + body


def publish(mid: int, seq: int) -> bytes:
    payload = json.dumps({"boot_id": BOOT, "seq": seq, "rest": "x" * 200}).encode()
    return packet(0x32, b"\0\3a/b" + mid.to_bytes(2) + b"\0" + payload)


@pytest.mark.parametrize("n_bytes", [1, 7, 10_000])
def test_the_wire_is_read_however_it_is_cut(n_bytes: int) -> None:
    data = publish(1, 0) + packet(0xC0, b"") + publish(2, 1)
    splitter = Splitter()
    chunks = [data[at : at + n_bytes] for at in range(0, len(data), n_bytes)]
    packets = [one for chunk in chunks for one in splitter.push(chunk)]
    assert [(one.kind, one.qos) for one in packets] == [(3, 1), (12, 0), (3, 1)]


def accepted(tap: Tap, answer: bytes) -> bool:
    tap.answered(packet(0x20, answer))
    return tap.accepted_ns is not None


def test_only_what_the_broker_has_taken_is_acknowledged() -> None:
    acknowledged: set[Number] = set()
    tap = Tap(acknowledged)
    assert accepted(tap, b"\0\x87\0") is False
    assert accepted(tap, b"\0\0\0") is True
    for seq in range(4):
        tap.asked(publish(seq + 1, seq))
    tap.answered(packet(0x40, b"\0\1"))
    tap.answered(packet(0x40, b"\0\2\x10\0"))  # nobody listens: it has it all the same
    tap.answered(packet(0x40, b"\0\3\x87\0"))
    assert acknowledged == {Number(BOOT, 0), Number(BOOT, 1)}


def said(at_ns: int, event_id: str, step: str) -> Line:
    message = published(event(event_id, step), 0)  # type: ignore[arg-type]  # one of three words
    return Line("program", at_ns, "door/event", json.dumps(message.payload()))


def retained(at_ns: int, topic: str, payload: str) -> Line:
    return Line("broker", at_ns, topic, payload)


def opened(at_ns: int, *ids: str) -> Line:
    return retained(at_ns, "door/open", json.dumps({"events": [{"id": one} for one in ids]}))


def test_retained_topics_are_true_once_all_of_them_are_written_anew() -> None:
    lines = [said(1, "e", "start")]
    old = [retained(2, "status", "online"), opened(2, "e"), retained(2, "door/state/motion", "ON")]
    anew = [replace(line, at_ns=10**9 + n) for n, line in enumerate(old)]
    since = {"since_ns": 10**9 - 5, "until_ns": 10**10}
    assert secs_until_true(lines, old, **since) is None
    assert secs_until_true(lines, [*old, *anew], **since) == 7e-9
    assert secs_until_true(lines, [*old, *anew[:2]], **since) is None
    late = [said(1, "e", "start"), said(3, "e", "end")]
    assert secs_until_true(late, [*old, *anew], **since) is None
