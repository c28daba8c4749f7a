import asyncio

import pytest

from mmstream.messages import Request
from mmstream.metrics import StageMetrics
from mmstream.sinks.inbox import MAX_REQUEST_BYTES, MAX_REQUESTS, Inbox

REQUESTS = "mmstream/pi/request"


def taken(inbox: Inbox, n_requests: int) -> list[Request]:
    async def take() -> list[Request]:
        arriving = inbox.requests()
        async with asyncio.timeout(10):
            return [await anext(arriving) for _ in range(n_requests)]

    return asyncio.run(take())


def test_requests_come_in_order_as_they_are() -> None:
    metrics = StageMetrics("mqtt")
    inbox = Inbox(REQUESTS, metrics)
    inbox.put(f"{REQUESTS}/health", b"", is_retained=False)
    inbox.put(f"{REQUESTS}/restart", '{"source": "Tür"}'.encode(), is_retained=False)
    assert taken(inbox, 2) == [Request("health", ""), Request("restart", '{"source": "Tür"}')]
    assert metrics.dropped == {}


def test_a_retained_request_would_be_carried_out_again_and_again() -> None:
    metrics = StageMetrics("mqtt")
    inbox = Inbox(REQUESTS, metrics)
    inbox.put(f"{REQUESTS}/restart", b"", is_retained=True)
    inbox.put(f"{REQUESTS}/health", b"", is_retained=False)
    assert taken(inbox, 1) == [Request("health", "")]
    assert metrics.dropped == {"request_retained": 1}


@pytest.mark.parametrize(
    ("verb", "payload"),
    [
        ("info", b"\xff{}"),
        ("info", b" " * (MAX_REQUEST_BYTES + 1)),
        ("", b""),
        ("in fo", b""),
        ("x" * 65, b""),
        ("info\n", b""),
    ],
    ids=["no_text", "too_long", "no_verb", "space", "long_verb", "line_end"],
)
def test_what_no_request_can_be_is_counted(verb: str, payload: bytes) -> None:
    metrics = StageMetrics("mqtt")
    inbox = Inbox(REQUESTS, metrics)
    inbox.put(f"{REQUESTS}/{verb}", payload, is_retained=False)
    inbox.put(f"{REQUESTS}/info", b" " * MAX_REQUEST_BYTES, is_retained=False)
    assert taken(inbox, 1)[0].verb == "info"
    assert metrics.dropped == {"request_unreadable": 1}


@pytest.mark.parametrize("topic", ["mmstream/pi/info", "mmstream/eye/request/info", "info"])
def test_what_lies_elsewhere_is_none_of_its_business(topic: str) -> None:
    metrics = StageMetrics("mqtt")
    inbox = Inbox(REQUESTS, metrics)
    for is_retained in (True, False):
        inbox.put(topic, b"", is_retained=is_retained)
    inbox.put(f"{REQUESTS}/health", b"", is_retained=False)
    assert taken(inbox, 1) == [Request("health", "")]
    assert metrics.dropped == {}


def test_a_flood_loses_the_newest() -> None:
    metrics = StageMetrics("mqtt")
    inbox = Inbox(REQUESTS, metrics)
    for i in range(MAX_REQUESTS + 3):
        inbox.put(f"{REQUESTS}/info", str(i).encode(), is_retained=False)
    payloads = [request.payload for request in taken(inbox, MAX_REQUESTS)]
    assert payloads == [str(i) for i in range(MAX_REQUESTS)]
    assert metrics.dropped == {"requests_full": 3}


def test_a_value_for_a_feature_is_the_request_set() -> None:
    metrics = StageMetrics("mqtt")
    inbox = Inbox(REQUESTS, metrics)
    inbox.put("mmstream/pi/door/motion/set", b"OFF", is_retained=False)
    inbox.put("mmstream/pi/door/loud_threshold/set", b"", is_retained=False)
    inbox.put(f"{REQUESTS}/set", b"{}", is_retained=False)
    first, second, third = taken(inbox, 3)
    command = first.command()
    assert (command.verb, command.source, command.transaction) == ("set", "door", "")
    assert command.arguments == {"feature": "motion", "value": "OFF"}
    assert second.command().arguments == {"feature": "loud_threshold", "value": ""}
    assert [one.by for one in (first, third)] == [
        *("mqtt mmstream/pi/door/motion/set", "mqtt mmstream/pi/request/set")
    ]
    assert metrics.dropped == {}
    assert inbox.topics == ("mmstream/pi/request/+", "mmstream/pi/+/+/set")


@pytest.mark.parametrize(
    ("topic", "payload", "is_retained", "reason"),
    [
        ("door/motion/set", b"OFF", True, "request_retained"),
        ("door/motion/set", b"\xff", False, "request_unreadable"),
        ("do or/motion/set", b"OFF", False, "request_unreadable"),
        ("door/mötion/set", b"OFF", False, "request_unreadable"),
    ],
)
def test_values_that_are_refused_are_counted(
    topic: str, payload: bytes, reason: str, *, is_retained: bool
) -> None:
    metrics = StageMetrics("mqtt")
    Inbox(REQUESTS, metrics).put(f"mmstream/pi/{topic}", payload, is_retained=is_retained)
    assert metrics.dropped == {reason: 1}


@pytest.mark.parametrize(
    "topic",
    [
        *("mmstream/pi/door/state/set", "mmstream/pi/request/motion/set", "mmstream/pi/door/set"),
        *("mmstream/eye/door/motion/set", "mmstream/pi/a/b/motion/set", "mmstream/pi/door/motion"),
    ],
)
def test_what_is_no_value_for_a_feature_is_passed_over(topic: str) -> None:
    metrics = StageMetrics("mqtt")
    inbox = Inbox(REQUESTS, metrics)
    for is_retained in (True, False):
        inbox.put(topic, b"ON", is_retained=is_retained)
    inbox.put(f"{REQUESTS}/health", b"", is_retained=False)
    assert taken(inbox, 1) == [Request("health", "")]
    assert metrics.dropped == {}
