"""What comes in from the broker, bounded; the sink is also the `Inlet` of the stream.

Anybody who may publish may fill it: what is refused here is counted, not answered.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final

from mmstream.messages import ID_PATTERN, Request
from mmstream.metrics import StageMetrics

MAX_REQUESTS: Final = 64
"""Requests that may wait to be taken; the newest is refused."""
MAX_REQUEST_BYTES: Final = 64 * 1024
"""The longest payload."""


class Inbox:
    """Requests between their arrival and their reader, oldest first."""

    def __init__(self, topic: str, metrics: StageMetrics) -> None:
        """Empty. Refusals count as `request_retained`, `request_unreadable` and `requests_full`."""
        self.topic = topic
        """Below it lie the verbs."""
        self._metrics = metrics
        self._waiting: asyncio.Queue[Request] = asyncio.Queue(MAX_REQUESTS)

    def put(self, topic: str, payload: bytes, *, is_retained: bool) -> None:
        """Take a request in, or count why not.

        One that is retained would be carried out again at each connection. One that the broker
        marks as a duplicate is taken like any other: whoever gets such a mark "cannot assume that
        it has seen an earlier copy" (MQTT 5 and 3.1.1, section 3.3.1.1), and we have not: no
        session outlives a connection.
        """
        above, _, verb = topic.rpartition("/")
        if above != self.topic:  # amqtt sends newcomers what is retained for others' subscriptions
            return
        if is_retained:
            self._metrics.drop("request_retained")
            return
        request = _understood(verb, payload)
        if request is None:
            self._metrics.drop("request_unreadable")
            return
        try:
            self._waiting.put_nowait(request)
        except asyncio.QueueFull:
            self._metrics.drop("requests_full")

    async def requests(self) -> AsyncIterator[Request]:
        """Those that arrive, in order, for ever."""
        while True:
            yield await self._waiting.get()


def _understood(verb: str, payload: bytes) -> Request | None:
    # the answer's topic is made of the verb, and a topic must not become too long
    if len(payload) > MAX_REQUEST_BYTES or re.fullmatch(ID_PATTERN, verb) is None:
        return None
    try:
        return Request(verb, payload.decode())
    except UnicodeDecodeError:
        return None
