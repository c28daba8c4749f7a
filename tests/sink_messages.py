"""Messages for the tests of sinks."""

from typing import Literal

from mmstream.media import NS_PER_SEC
from mmstream.messages import (
    Alert,
    Caption,
    Content,
    Contribution,
    Event,
    Features,
    FeatureState,
    Health,
    HealthState,
    Info,
    NumberedStamp,
    Published,
    Response,
    SourceInfo,
    Stamp,
    Stats,
    epoch_secs,
    iso_utc,
)

NODE = "pi"
BOOT_ID = "3c0e5a81"
T_NS = 1_795_428_000 * NS_PER_SEC


def event(
    event_id: str,
    kind: Literal["start", "update", "end"] = "start",
    *,
    source: str = "door",
    label: str = "motion",
) -> Event:
    is_over = kind == "end"
    return Event(
        id=event_id,
        type=kind,
        source=source,
        label=label,
        kind="video",
        score=0.5,
        top_score=0.75,
        ts_start=iso_utc(T_NS),
        t_start=epoch_secs(T_NS),
        ts_end=iso_utc(T_NS + NS_PER_SEC) if is_over else None,
        t_end=epoch_secs(T_NS + NS_PER_SEC) if is_over else None,
        contribution=Contribution(video=1),
        end_reason="quiet" if is_over else None,
    )


def alert(alert_id: str) -> Alert:
    return Alert(
        id=alert_id,
        rule="visitor",
        source="door",
        severity="warning",
        events=("e1",),
        ts_start=iso_utc(T_NS),
        t_start=epoch_secs(T_NS),
    )


def caption(state: Literal["partial", "final"], text: str = "Grüß Gott") -> Caption:
    return Caption(
        id="c1",
        state=state,
        revision=0,
        source="door",
        text=text,
        kind="speech",
        ts_start=iso_utc(T_NS),
        t_start=epoch_secs(T_NS),
        ts_end=iso_utc(T_NS),
        t_end=epoch_secs(T_NS),
        confidence=0.5,
        language="de",
    )


def health(state: HealthState = "online", source: str = "door") -> Health:
    return Health(source=source, state=state, reason="it says so", since=iso_utc(T_NS))


def info(**sources: tuple[str, ...]) -> Info:
    """Source ids and their labels; a door that knows motion and loud unless told otherwise."""
    labels = sources or {"door": ("motion", "loud")}
    return Info(
        version="0.1.0",
        started=iso_utc(T_NS),
        sources=tuple(SourceInfo(id=name, labels=known) for name, known in labels.items()),
        schemas={"event": 1},
        capabilities=(),
    )


def stats() -> Stats:
    return Stats(stages={}, device="cpu")


def response(verb: str = "health", transaction: str = "t7") -> Response:
    return Response(verb=verb, transaction=transaction, status="ok")


def published(content: Content, seq: int = 0) -> Published:
    """Stamped; with `seq` where the content is numbered and no partial caption."""
    ts_emit = iso_utc(T_NS)
    if content.NUMBERED:
        is_partial = isinstance(content, Caption) and content.state == "partial"
        number = None if is_partial else seq
        stamp = NumberedStamp(node=NODE, boot_id=BOOT_ID, ts_emit=ts_emit, seq=number)
        return Published(content, stamp)
    return Published(content, Stamp(node=NODE, boot_id=BOOT_ID, ts_emit=ts_emit))


def features(source: str = "door", *, motion: Literal["ON", "OFF"] = "ON") -> Features:
    """A switch and a number."""
    switch = FeatureState(name="motion", value=motion, default="ON", is_set=motion == "OFF")
    number = FeatureState(
        name="motion_threshold", value=0.5, default=0.5, is_set=False, min=0.05, max=1
    )
    return Features(source=source, features=(switch, number))
