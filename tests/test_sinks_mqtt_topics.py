import json
from collections.abc import Iterable
from typing import Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sink_messages import (
    NODE,
    alert,
    caption,
    event,
    features,
    health,
    info,
    published,
    response,
    stats,
)

from mmstream.messages import Content, Features, HealthState, Open, json_schema
from mmstream.sinks.mqtt_topics import Packet, RetainedPicture

ROOT = f"mmstream/{NODE}"
LABELS = ("motion", "Person speaking")
IDS = {"door": ("a", "b"), "yard": ("c",)}


def picture(base: str = "mmstream") -> RetainedPicture:
    return RetainedPicture(node=NODE, base=base)


def by_topic(packets: Iterable[Packet]) -> dict[str, str]:
    return {packet.topic: packet.encoded().decode() for packet in packets}


def told(*contents: Content) -> dict[str, str]:
    """Every retained topic after these contents."""
    now = picture()
    for content in contents:
        now.update(published(content))
    return by_topic(now.packets())


def open_ids(payloads: dict[str, str], source: str = "door") -> list[str]:
    return [one["id"] for one in json.loads(payloads[f"{ROOT}/{source}/open"])["events"]]


@pytest.mark.parametrize(
    ("content", "topic", "qos", "retain"),
    [
        (event("e"), "door/event", 1, False),
        (alert("a"), "door/alert", 1, False),
        (caption("partial"), "door/caption/partial", 1, False),
        (caption("final"), "door/caption/final", 1, False),
        (health(), "door/health", 1, True),
        (info(), "info", 1, True),
        (stats(), "stats", 0, False),
        (response(), "response/health", 1, False),
        (features(), "door/features", 1, True),
    ],
)
@pytest.mark.parametrize("base", ["mmstream", "home/eyes"])
def test_a_message_goes_where_the_wire_says(
    content: Content, topic: str, qos: int, base: str, *, retain: bool
) -> None:
    message = published(content)
    packet = picture(base).packet(message)
    assert packet.topic == f"{base}/{NODE}/{topic}"
    assert (packet.qos, packet.retain) == (qos, retain)
    assert json.loads(packet.payload) == message.payload()


def test_before_anything_is_known_the_node_is_online() -> None:
    assert told() == {f"{ROOT}/status": "online"}


def test_info_writes_every_state_of_every_source() -> None:
    payloads = told(info(door=("motion", "Person speaking"), yard=()))
    assert list(payloads) == [
        f"{ROOT}/status",
        f"{ROOT}/info",
        f"{ROOT}/door/open",
        f"{ROOT}/door/state/motion",
        f"{ROOT}/door/state/person_speaking",
        f"{ROOT}/yard/open",
    ]
    assert payloads[f"{ROOT}/door/state/motion"] == "OFF"
    assert open_ids(payloads) == open_ids(payloads, "yard") == []


def test_info_again_does_not_close_what_is_open() -> None:
    payloads = told(info(), event("e"), info())
    assert payloads[f"{ROOT}/door/state/motion"] == "ON"
    assert payloads[f"{ROOT}/door/state/loud"] == "OFF"
    assert open_ids(payloads) == ["e"]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("connecting", "offline"),
        ("online", "online"),
        ("degraded", "online"),
        ("stalled", "offline"),
        ("offline", "offline"),
    ],
)
def test_health_says_whether_a_source_is_online(state: HealthState, status: str) -> None:
    payloads = told(health(state))
    assert payloads[f"{ROOT}/door/status"] == status
    assert json.loads(payloads[f"{ROOT}/door/health"])["state"] == state


def test_open_is_a_whole_message_of_its_own() -> None:
    start = event("e")
    payload = json.loads(told(start)[f"{ROOT}/door/open"])
    jsonschema.validate(payload, json_schema(Open))
    assert payload["source"] == "door"
    assert payload["events"] == [start.model_dump(mode="json")]
    assert "seq" not in payload


def test_open_events_are_told_in_the_order_in_which_they_began() -> None:
    later = event("later")
    dated_back = event("earlier").model_copy(update={"t_start": later.t_start - 1})
    assert open_ids(told(later, dated_back)) == ["earlier", "later"]


def test_an_event_changes_what_follows_from_it_and_no_more() -> None:
    now = picture()
    now.update(published(info()))
    steps = [event("a"), event("b"), event("a", "update"), event("a", "end"), event("b", "end")]
    changes = [
        [(packet.topic.removeprefix(f"{ROOT}/door/"), packet.payload) for packet in packets]
        for packets in (now.update(published(step)) for step in steps)
    ]
    assert [[topic for topic, _ in step] for step in changes] == [
        ["open", "state/motion"],
        ["open"],
        ["open"],
        ["open"],
        ["open", "state/motion"],
    ]
    assert changes[0][1] == ("state/motion", "ON")
    assert changes[4][1] == ("state/motion", "OFF")
    assert now.update(published(alert("a"))) == now.update(published(stats())) == ()


def test_the_end_of_an_unknown_event_leaves_the_label_off() -> None:
    payloads = told(event("of an earlier boot", "end"))
    assert payloads[f"{ROOT}/door/state/motion"] == "OFF"
    assert open_ids(payloads) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from([(source, e) for source, ids in IDS.items() for e in ids]),
            st.sampled_from(["start", "update", "end"]),
            st.sampled_from(LABELS),
        )
    )
)
def test_the_picture_is_the_sum_of_its_changes_and_true(
    steps: list[tuple[tuple[str, str], Literal["start", "update", "end"], str]],
) -> None:
    now, broker = picture(), {f"{ROOT}/status": "online"}
    is_open: dict[tuple[str, str], str] = {}
    messages = [published(info(door=LABELS, yard=LABELS))]
    labels: dict[tuple[str, str], str] = {}
    for (source, event_id), kind, label in steps:
        known = labels.setdefault((source, event_id), label)  # an event keeps its label
        messages.append(published(event(event_id, kind, source=source, label=known)))
        if kind == "end":
            is_open.pop((source, event_id), None)
        else:
            is_open[source, event_id] = known
    for message in messages:
        broker |= by_topic(now.update(message))
    assert by_topic(now.packets()) == broker
    for source in IDS:
        assert sorted(open_ids(broker, source)) == sorted(e for s, e in is_open if s == source)
        for label, level in zip(LABELS, ("motion", "person_speaking"), strict=True):
            state = broker[f"{ROOT}/{source}/state/{level}"]
            assert (state == "ON") == ((source, label) in {(s, k) for (s, _), k in is_open.items()})


def test_farewell_turns_every_source_and_last_the_node_offline() -> None:
    now = picture()
    now.update(published(health(source="attic")))
    now.update(published(info(door=(), yard=(), attic=())))
    topics = [packet.topic for packet in now.farewell()]
    assert topics == [f"{ROOT}/{name}/status" for name in ("door", "yard", "attic")] + [
        f"{ROOT}/status"
    ]
    assert all(
        (packet.payload, packet.qos, packet.retain) == ("offline", 1, True)
        for packet in now.farewell()
    )


def cleared(picture: RetainedPicture) -> set[str]:
    return {packet.topic for packet in picture.packets() if packet.payload == ""}


def test_a_source_that_info_no_longer_names_is_cleared_until_the_broker_has_it() -> None:
    now = picture()
    for content in (info(door=("motion",), yard=()), health(), event("e"), health("offline")):
        now.update(published(content))
    changes = now.update(published(info(yard=())))
    door = {f"{ROOT}/door/{name}" for name in ("status", "health", "open", "state/motion")}
    assert {packet.topic for packet in changes if packet.payload == ""} == door
    assert all(packet.retain and packet.qos == 1 for packet in changes)
    assert cleared(now) == door
    now.delivered(now.packets())
    assert {packet.topic for packet in now.packets()} == {
        f"{ROOT}/{name}" for name in ("status", "info", "yard/open")
    }
    assert [packet.topic for packet in now.farewell()] == [
        f"{ROOT}/yard/status",
        f"{ROOT}/status",
    ]


def test_what_is_said_late_about_a_removed_source_does_not_bring_it_back() -> None:
    now = picture()
    now.update(published(info(door=("motion",), yard=())))
    now.update(published(info(yard=())))
    before = now.packets()
    for content in (health("offline"), event("e"), event("e", "end"), event("never ends")):
        assert now.update(published(content)) == ()
    assert now.packets() == before
    now.update(published(info(yard=())))
    back = by_topic(now.update(published(info(door=("motion",), yard=()))))
    assert f"{ROOT}/door/health" not in back
    assert back[f"{ROOT}/door/state/motion"] == "OFF"
    assert open_ids(back) == []


def test_what_is_said_early_about_a_new_source_shows_with_its_info() -> None:
    now = picture()
    now.update(published(info(yard=())))
    for content in (health("connecting"), health(), event("e")):
        assert now.update(published(content)) == ()
    back = by_topic(now.update(published(info(door=("motion",), yard=()))))
    assert back[f"{ROOT}/door/status"] == "online"
    assert back[f"{ROOT}/door/state/motion"] == "ON"
    assert open_ids(back) == ["e"]


def test_a_source_that_is_back_before_the_broker_knew_is_not_cleared() -> None:
    now = picture()
    now.update(published(info()))
    under_way = now.update(published(info(yard=())))
    now.update(published(info()))
    now.delivered(under_way)
    payloads = {packet.topic: packet.payload for packet in now.packets()}
    assert payloads[f"{ROOT}/door/state/motion"] == "OFF"
    assert payloads[f"{ROOT}/yard/open"] == ""


def test_how_a_source_is_set_has_a_topic_per_feature() -> None:
    payloads = told(info(), features())
    assert payloads[f"{ROOT}/door/motion"] == "ON"
    assert payloads[f"{ROOT}/door/motion_threshold"] == "0.5"
    jsonschema.validate(json.loads(payloads[f"{ROOT}/door/features"]), json_schema(Features))


def test_only_what_is_set_otherwise_is_written_again() -> None:
    now = picture()
    now.update(published(info()))
    assert len(now.update(published(features()))) == 3
    changes = now.update(published(features(motion="OFF")))
    assert [(one.topic, one.qos, one.retain) for one in changes] == [
        (f"{ROOT}/door/features", 1, True),
        (f"{ROOT}/door/motion", 1, True),
    ]
    assert changes[1].payload == "OFF"


def test_a_source_that_is_gone_leaves_no_features() -> None:
    now = picture()
    for content in (info(door=(), yard=()), features("door"), features("yard"), info(yard=())):
        changes = now.update(published(content))
    cleared = {one.topic.removeprefix(f"{ROOT}/") for one in changes if not one.payload}
    assert {"door/features", "door/motion", "door/motion_threshold"} <= cleared
    assert not [topic for topic in cleared if topic.startswith("yard/")]
    now.delivered(now.packets())
    assert now.update(published(features("door"))) == ()  # set aside until it is there


def test_a_snapshot_is_retained_as_it_is_until_its_source_is_gone() -> None:
    now = picture()
    now.update(published(info(door=(), yard=())))
    assert now.show("door", b"\xff\xd8old") == (
        Packet(f"{ROOT}/door/snapshot", b"\xff\xd8old", qos=0, retain=True),
    )
    (newest,) = now.show("door", b"\xff\xd8new")
    assert newest.encoded() == b"\xff\xd8new"
    assert [p.payload for p in now.packets() if p.topic.endswith("snapshot")] == [newest.payload]
    assert now.show("gone", b"\xff\xd8") == ()
    gone = by_topic(now.update(published(info(yard=()))))
    assert gone[f"{ROOT}/door/snapshot"] == ""


@pytest.mark.parametrize("name", ["x/#", "+", "a\ud800", "a" * 70_000, ""])
def test_what_anybody_may_have_retained_makes_no_topic_that_cannot_be_published(name: str) -> None:
    now = picture()
    listed = json.dumps({"features": [{"name": "motion"}, {"name": name}]}).encode()
    now.left(f"{ROOT}/ghost/features", listed)
    now.update(published(info(door=("motion",))))
    cleared = {packet.topic for packet in now.without_ghosts()}
    names = ("features", "status", "health", "open", "snapshot", "motion")
    assert cleared == {f"{ROOT}/ghost/{one}" for one in names}
    assert now.without_ghosts() == ()
