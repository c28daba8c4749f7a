"""What comes in from the broker, bounded; the sink is also the `Inlet` of the stream.

    request/<verb>            a request as it is
    <source>/<feature>/set    the request `set`, of somebody who knows topics only

Anybody who may publish may fill it: what is refused here is counted, not answered.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Final

from mmstream.messages import ID_PATTERN, RESERVED_SOURCES, Request
from mmstream.metrics import StageMetrics

MAX_REQUESTS: Final = 64
"""Requests that may wait to be taken; the newest is refused."""
MAX_REQUEST_BYTES: Final = 64 * 1024
"""The longest payload."""
SET: Final = "set"
"""The last level of the topics that take a value, and the verb that they stand for."""
_STATE: Final = "state"
"""`<source>/state/set` would be our own topic of a label `set`."""


class Inbox:
    """Requests between their arrival and their reader, oldest first."""

    def __init__(
        self,
        topic: str,
        metrics: StageMetrics,
        others: Callable[[str, bytes, bool], None] = lambda *_: None,
    ) -> None:
        """Empty. Refusals count as `request_retained`, `request_unreadable` and `requests_full`.

        What is no request goes to `others`: its topic, its payload, whether it is retained.
        """
        self.topic = topic
        """Below it lie the verbs."""
        self._root = topic.rpartition("/")[0]
        self._metrics = metrics
        self._others = others
        self._waiting: asyncio.Queue[Request] = asyncio.Queue(MAX_REQUESTS)

    @property
    def topics(self) -> tuple[str, ...]:
        """To subscribe to."""
        return (f"{self.topic}/+", f"{self._root}/+/+/{SET}")

    def put(self, topic: str, payload: bytes, *, is_retained: bool) -> None:
        """Take a request in, or count why not.

        One that is retained would be carried out again at each connection. One that the broker
        marks as a duplicate is taken like any other: whoever gets such a mark "cannot assume that
        it has seen an earlier copy" (MQTT 5 and 3.1.1, section 3.3.1.1), and we have not: no
        session outlives a connection.
        """
        names = self._names(topic)
        if names is None:  # amqtt sends newcomers what is retained for others' subscriptions
            self._others(topic, payload, is_retained)
            return
        if is_retained:
            self._metrics.drop("request_retained")
            return
        request = _understood(names, payload, topic)
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

    def _names(self, topic: str) -> tuple[str, ...] | None:
        """The verb, or a source and its feature; None: it is no request."""
        above, _, last = topic.rpartition("/")
        if above == self.topic:
            return (last,)
        if last != SET or not above.startswith(f"{self._root}/"):
            return None
        source, _, feature = above.removeprefix(f"{self._root}/").partition("/")
        is_ours = source in RESERVED_SOURCES or feature == _STATE or not feature or "/" in feature
        return None if is_ours else (source, feature)


def _understood(names: tuple[str, ...], payload: bytes, topic: str) -> Request | None:
    # the answer's topic is made of the verb, and a topic must not become too long
    if len(payload) > MAX_REQUEST_BYTES:
        return None
    if any(re.fullmatch(ID_PATTERN, name) is None for name in names):
        return None
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    by = f"mqtt {topic}"
    if len(names) == 1:
        return Request(names[0], text, by)
    source, feature = names
    arguments = {"feature": feature, "value": text}
    return Request(SET, json.dumps({"source": source, "arguments": arguments}), by)
