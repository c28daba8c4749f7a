import json
import re
from datetime import UTC, datetime

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from sink_messages import alert, caption, event, health, info, stats

from mmstream.errors import CommandError
from mmstream.messages import (
    CONTENTS,
    ID_PATTERN,
    RESERVED_SOURCES,
    Alert,
    Caption,
    Content,
    Contribution,
    Event,
    Evidence,
    Features,
    FeatureState,
    Health,
    Info,
    NumberedStamp,
    Open,
    Published,
    Request,
    Response,
    SourceInfo,
    StageReport,
    Stamp,
    Stats,
    WireBox,
    Word,
    epoch_secs,
    iso_utc,
    json_schema,
    schemas,
    slug,
    subtopic,
    utc_ns,
    wire_model,
)

START_NS = 1_795_428_000_250_000_000
SPAN = {
    "ts_start": iso_utc(START_NS),
    "t_start": epoch_secs(START_NS),
    "ts_end": iso_utc(START_NS + 10**9),
    "t_end": epoch_secs(START_NS + 10**9),
}
BOX = WireBox(x=0.1, y=0, width=0.9, height=1)
SEEN = Evidence(
    modality="video", detector="motion", label="motion", score=1, t_start=1.5, t_end=1.5, box=BOX
)
EVENT = Event.model_validate(
    {
        "id": "5f1c9a3be2d07446",
        "type": "end",
        "source": "door",
        "label": "motion",
        "kind": "video",
        "score": 0.25,
        "top_score": 0.9,
        "evidence": (SEEN,),
        "contribution": Contribution(video=1),
        "end_reason": "quiet",
    }
    | SPAN
)
CAPTION = Caption.model_validate(
    {
        "id": "c1",
        "state": "partial",
        "revision": 0,
        "source": "door",
        "text": "Grüß Gott",
        "kind": "speech",
        "words": (Word(text="Grüß", t_start=1.5, t_end=2, confidence=0.5),),
        "confidence": 0.5,
        "language": "de-AT",
    }
    | SPAN
)
MESSAGES = {
    "door/event": EVENT,
    "door/open": Open(source="door", events=(EVENT,)),
    "door/alert": Alert(
        id="a1",
        rule="visitor",
        source="door",
        severity="critical",
        events=(EVENT.id,),
        ts_start=EVENT.ts_start,
        t_start=EVENT.t_start,
    ),
    "door/caption/partial": CAPTION,
    "door/health": Health(source="door", state="stalled", reason="no frames", since="2026"),
    "info": Info(
        version="0.1.0",
        started=EVENT.ts_start,
        sources=(SourceInfo(id="door", labels=("motion",)),),
        schemas={"event": 1},
        capabilities=(),
    ),
    "door/features": Features(
        source="door",
        features=(
            FeatureState(name="motion", value="OFF", default="ON", is_set=True),
            FeatureState(
                name="motion_threshold", value=0.25, default=0.5, is_set=True, min=0.05, max=1
            ),
        ),
    ),
    "stats": Stats(
        stages={"worker": StageReport(n_in=2, n_out=1, dropped={"behind": 1})}, device="cuda:0"
    ),
    "response/health": Response(verb="health", transaction="t", status="error", error="no"),
}
EACH = pytest.mark.parametrize("content", MESSAGES.values(), ids=lambda c: type(c).__name__)


def published(content: Content) -> Published:
    stamp = Stamp(node="pi", boot_id="b", ts_emit=iso_utc(START_NS))
    if content.NUMBERED:
        stamp = NumberedStamp(**stamp.model_dump(), seq=3)
    return Published(content, stamp)


def test_there_is_a_message_of_every_kind() -> None:
    assert [type(content) for content in MESSAGES.values()] == list(CONTENTS)
    assert set(CONTENTS) == set(Content.__subclasses__())


@pytest.mark.parametrize(("topic", "content"), MESSAGES.items())
def test_topics(topic: str, content: Content) -> None:
    assert subtopic(content) == topic
    assert published(content).topic == f"mmstream/pi/{topic}"


def test_final_captions_have_a_topic_of_their_own() -> None:
    assert subtopic(CAPTION.model_copy(update={"state": "final"})) == "door/caption/final"


def test_no_source_can_take_a_topic_of_the_node() -> None:
    of_the_node = {kind.TOPIC.split("/")[0] for kind in CONTENTS} - {"{source}"}
    assert of_the_node | {"status", "request"} == RESERVED_SOURCES


@EACH
def test_a_message_fits_its_schema(content: Content) -> None:
    schema = json_schema(type(content))
    jsonschema.Draft202012Validator.check_schema(schema)
    payload = json.loads(published(content).to_json())
    jsonschema.validate(payload, schema, jsonschema.Draft202012Validator)
    for name in payload:
        lacking = {key: value for key, value in payload.items() if key != name}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(lacking, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload | {"extra": 1}, schema)


@EACH
def test_a_message_comes_back_from_its_line(content: Content) -> None:
    message = published(content)
    line = message.to_json()
    assert "\n" not in line
    back = wire_model(type(content)).model_validate_json(line)
    assert back.model_dump(mode="json") == message.payload()
    own = {name: message.payload()[name] for name in type(content).model_fields}
    assert type(content).model_validate_json(json.dumps(own)) == content


@EACH
def test_a_message_is_flat_and_its_stamp_hides_nothing(content: Content) -> None:
    message = published(content)
    stamp, said = type(message.stamp).model_fields, type(content).model_fields
    assert not set(stamp) & set(said)
    assert list(message.payload()) == [*stamp, *said]


@EACH
def test_only_what_must_not_be_lost_is_numbered(content: Content) -> None:
    assert isinstance(content, Event | Alert | Caption) == content.NUMBERED
    if content.NUMBERED:
        assert content.QOS == 1
        assert not content.RETAINED


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (event("e"), True),
        (alert("a"), True),
        (caption("final"), True),
        (caption("partial"), False),
        (stats(), False),
        (health(), False),
        (info(), False),
    ],
    ids=lambda value: getattr(value, "TOPIC", None),
)
def test_what_must_arrive(content: Content, *, expected: bool) -> None:
    assert content.must_arrive is expected


@given(st.integers(0, 2**62))
def test_an_instant_as_text_is_the_instant_to_the_millisecond(instant_ns: int) -> None:
    assert utc_ns(iso_utc(instant_ns)) == instant_ns // 1_000_000 * 1_000_000


def test_text_is_not_escaped() -> None:
    assert '"text":"Grüß Gott"' in published(CAPTION).to_json()


def test_schemas_go_by_the_names_of_their_messages() -> None:
    assert set(schemas()) == {kind.__name__.lower() for kind in CONTENTS} | {"command"}
    assert schemas()["health"] == json_schema(Health)


def test_the_schema_explains_its_fields() -> None:
    properties = json_schema(Event)["properties"]
    assert isinstance(properties, dict)
    assert properties["top_score"] == {
        "description": "The highest since the start.",
        "maximum": 1,
        "minimum": 0,
        "title": "Top Score",
        "type": "number",
    }


@pytest.mark.parametrize(
    ("payload", "is_allowed"),
    [
        ({}, True),
        ({"transaction": "t", "source": "door", "arguments": {"type": "webcam"}}, True),
        ({"source": None, "verb": "what the topic says counts"}, True),
        ({"transaction": 7}, False),
        ({"arguments": []}, False),
        ({"sauce": "door"}, False),
    ],
)
def test_the_schema_of_requests_allows_what_is_understood(
    payload: dict[str, object], *, is_allowed: bool
) -> None:
    jsonschema.Draft202012Validator.check_schema(schemas()["command"])
    request = Request("info", json.dumps(payload))
    if is_allowed:
        jsonschema.validate(payload, schemas()["command"])
        assert request.command().verb == "info"
        return
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, schemas()["command"])
    with pytest.raises(CommandError):
        request.command()


@pytest.mark.parametrize(
    ("record", "change"),
    [
        (EVENT, {"score": 1.1}),
        (EVENT, {"type": "begin"}),
        (EVENT, {"end_reason": "bored"}),
        (EVENT, {"colour": "red"}),
        (CAPTION, {"revision": -1}),
        (BOX, {"width": 1.5}),
        (Stamp(node="pi", boot_id="b", ts_emit=""), {"node": "living room"}),
        (Stamp(node="pi", boot_id="b", ts_emit=""), {"node": "a/b"}),
        (Stamp(node="pi", boot_id="b", ts_emit=""), {"node": ""}),
        (NumberedStamp(node="pi", boot_id="b", ts_emit="", seq=0), {"seq": -1}),
    ],
)
def test_records_refuse_what_is_out_of_range(record: BaseModel, change: dict[str, object]) -> None:
    fields = record.model_dump()
    assert type(record).model_validate(fields) == record
    with pytest.raises(ValidationError, match=next(iter(change))):
        type(record).model_validate(fields | change)


def test_records_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        EVENT.score = 1.0  # type: ignore[misc]  # what mypy refuses is refused at run time too


@pytest.mark.parametrize(
    ("utc_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (START_NS, "2026-11-23T10:00:00.250Z"),
        (START_NS + 999_999, "2026-11-23T10:00:00.250Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_709_251_199_999_999_999, "2024-02-29T23:59:59.999Z"),
    ],
)
def test_iso_utc(utc_ns: int, text: str) -> None:
    assert iso_utc(utc_ns) == text


@given(st.integers(0, 4 * 10**18))
def test_both_forms_of_an_instant_agree(utc_ns: int) -> None:
    read = datetime.fromisoformat(iso_utc(utc_ns))
    assert read.tzinfo == UTC
    assert 0 <= epoch_secs(utc_ns) - read.timestamp() < 0.001_001
    assert abs(epoch_secs(utc_ns) * 1e9 - utc_ns) <= 1_500


@given(st.integers(0, 4 * 10**18), st.integers(0, 10**12))
def test_later_instants_read_later(utc_ns: int, more_ns: int) -> None:
    assert iso_utc(utc_ns) <= iso_utc(utc_ns + more_ns)
    assert epoch_secs(utc_ns) <= epoch_secs(utc_ns + more_ns)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("person_speaking", "person_speaking"),
        ("Glass Breaking!", "glass_breaking"),
        ("Café / Küche", "cafe_kuche"),
        ("__a  --  b__", "a_b"),
        ("Motor vehicle (road)", "motor_vehicle_road"),
    ],
)
def test_slugs(text: str, level: str) -> None:
    assert slug(text) == level


@given(st.text())
def test_a_slug_is_a_topic_level_that_stays_as_it_is(text: str) -> None:
    try:
        level = slug(text)
    except ValueError as error:
        assert repr(text) in str(error)  # noqa: PT017 -- only some texts have none
        return
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", level)
    assert slug(level) == level
    if len(level) <= 64:
        assert re.search(ID_PATTERN, level)


@pytest.mark.parametrize("text", ["", "   ", "#/+", "猫"])
def test_what_has_no_letter_or_digit_has_no_slug(text: str) -> None:
    with pytest.raises(ValueError, match="no letter or digit"):
        slug(text)


@pytest.mark.parametrize("payload", ['{"transaction": "\\ud800"}', '{"arguments": {"a": NaN}}'])
def test_a_request_that_could_not_be_answered_is_refused(payload: str) -> None:
    with pytest.raises(CommandError, match="no JSON object"):
        Request("info", payload).command()


@pytest.mark.parametrize(("value", "text"), [("ON", "ON"), (0.25, "0.25"), (1.0, "1")])
def test_a_feature_is_one_word_on_its_own_topic(value: str | float, text: str) -> None:
    fields = {"name": "motion", "value": value, "default": value, "is_set": False}
    assert FeatureState.model_validate(fields).text() == text
