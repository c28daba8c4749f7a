"""How the events end that an earlier boot has left open: it died, and could not say so."""

from typing import Final

from mmstream.errors import StateError
from mmstream.media import NS_PER_SEC
from mmstream.messages import Event, NumberedStamp, Published, epoch_secs, iso_utc, utc_ns

LONGEST_NS: Final = 86_400 * NS_PER_SEC
"""An event that seems to be longer than this was seen in a recording of another time."""


def ended_by_restart(last: Published) -> Event:
    """The `end` of an event of which `last` is the last message.

    It was over at some time after that; what is known is that it was not over then.

    Raises:
        StateError: `last` is of no event that is open.
    """
    event, stamp = last.content, last.stamp
    if not isinstance(event, Event) or not isinstance(stamp, NumberedStamp) or event.type == "end":
        msg = f"a message of the topic {last.topic} leaves nothing open"
        raise StateError(msg)
    end_ns = _last_seen_ns(event, stamp)
    ended: dict[str, object] = {
        "type": "end",
        "score": 0.0,
        "ts_end": iso_utc(end_ns),
        "t_end": epoch_secs(end_ns),
        "end_reason": "restart",
    }
    return event.model_copy(update=ended)


def _last_seen_ns(event: Event, stamp: NumberedStamp) -> int:
    """In capture time: when the last message was decided, or else the end of its evidence."""
    start_ns = utc_ns(event.ts_start)
    seen_ns = max([start_ns, *(round(one.t_end * 1e9) for one in event.evidence)])
    if stamp.latency_ms is None:
        return seen_ns
    decided_ns = utc_ns(stamp.ts_emit) - round(stamp.latency_ms * 1e6)
    is_live = start_ns <= decided_ns <= start_ns + LONGEST_NS
    return decided_ns if is_live else seen_ns
