"""Publishes to an MQTT broker, and keeps what must arrive until the broker has it.

    publish -> [outbox] -> connection -> broker      numbered messages: kept over outages, on disk
            -> [passing] ->                          the rest: only while there is a connection
            -> picture                               retained topics, rewritten at each connection
    requests <- [inbox]  <-                          those that come while there is a connection

`run` owns the connection: it opens a new one whenever the last is lost, subscribes to requests,
writes the whole retained picture, then what waits in the outbox, oldest first and not all at once,
and from then on whatever comes.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Final

import aiomqtt

from mmstream.errors import BrokerError, SinkError, StateError
from mmstream.messages import Published, Request, base_topic
from mmstream.metrics import StageMetrics
from mmstream.sinks.homeassistant import AnnouncedPicture
from mmstream.sinks.inbox import Inbox
from mmstream.sinks.mqtt_connection import BrokerDoor, Link, first, pause_secs
from mmstream.sinks.mqtt_settings import MqttSettings, TlsSettings
from mmstream.sinks.mqtt_topics import Packet
from mmstream.sinks.outbox import REPLAY_PER_SEC, Outbox, Pace, SpooledOutbox, Waiting
from mmstream.sinks.spool import Spool

__all__ = ["MqttSettings", "MqttSink", "TlsSettings"]

CLOSE_SECS: Final = 2.0
"""How long `close` may take to deliver what waits and to say goodbye."""
DRAIN_SECS: Final = 0.5
"""How long `close` goes on delivering what is safe on disk too."""
LOOK_SECS: Final = 0.02
"""How soon after a few late messages the next may follow."""
WINDOW: Final = 16
"""Messages under way at once: waiting for each acknowledgement would cost a round trip each."""
MAX_PASSING: Final = 256
"""Messages that need not arrive (statistics, partial captions, responses) on their way to a slow
broker."""

_log = logging.getLogger(__name__)


class MqttSink:
    """The MQTT wire of docs/wire.md, over a broker that may come and go.

    Events, alerts and final captions are kept, in order, until the broker has acknowledged them;
    those that had to wait for it are marked `late`, and one may come twice with the same `seq`.
    """

    name = "mqtt"

    def __init__(
        self, settings: MqttSettings, *, node: str, boot_id: str, spool: Spool | None = None
    ) -> None:
        """Nothing is connected before `run`; until then messages wait as in an outage.

        With a `spool`, which is open, they wait on disk and outlive this process.
        """
        self.metrics = StageMetrics(self.name)
        """`n_out` counts what the broker has acknowledged, also with a refusal. Dropped: `offline`
        and `backlog` need not arrive; `outbox_full`, `refused` and `shutdown` are losses. Requests
        that nobody gets: `request_retained`, `request_unreadable`, `requests_full`."""
        self.last_error: BrokerError | None = None
        """Why there is no connection; None while there is one."""
        self._address = settings.address
        requests = f"{base_topic(node, settings.base)}/request"
        self._inbox = Inbox(requests, self.metrics, self._heard)
        self._picture = AnnouncedPicture(
            settings.discovery, settings.discovery_prefix, node=node, base=settings.base
        )
        will = self._picture.node_status("offline")
        client_id = f"{node}-{boot_id[:8]}"
        self._door = BrokerDoor(settings, client_id=client_id, will=will, inbox=self._inbox)
        self._work = asyncio.Event()
        self._outbox: Outbox | SpooledOutbox = Outbox(settings.outbox_size)
        if spool is not None:
            self._outbox = SpooledOutbox(
                spool,
                settings.outbox_size,
                wake=self._work.set,
                owe=self._owe_now,
                lose=self._note_overflow,
            )
        self._passing = Outbox(MAX_PASSING)
        self._pace = Pace(per_sec=REPLAY_PER_SEC, burst=WINDOW)
        self._look_secs: float | None = None
        """How soon to look whether more of what is late may leave."""
        self._is_leaving = False
        """`close` delivers no more of what is safe on disk."""
        self._has_answered = False
        """The broker has acknowledged something over this connection."""
        self._retained_due: dict[tuple[str, bool], Packet] = {}
        self._connected = asyncio.Event()
        self._closing = asyncio.Event()
        self._ended = asyncio.Event()
        self._deadline: asyncio.Timeout | None = None
        self._n_failures = 0
        self._n_under_way = 0
        self._is_overflowing = False
        self._is_refused = False
        self._is_deaf = False
        self._takes_passing = False
        self._logged_error = ""

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connected.is_set()

    async def publish(self, message: Published) -> None:
        """Queue a message for the broker; returns at once.

        Raises:
            SinkError: the sink is closed; the message is lost.
        """
        if self._ended.is_set():
            msg = f"the connection to the MQTT broker at {self._address} is closed"
            raise SinkError(msg)
        self.metrics.n_in += 1
        changes = self._picture.update(message)
        if message.content.must_arrive:
            self._keep(message, changes if self.connected else ())
        elif message.content.RETAINED:
            self._owe(changes)
        elif not self._takes_passing:
            self.metrics.drop("offline")
        elif self._passing.put(message) is not None:
            self.metrics.drop("backlog")
        self._work.set()

    def show(self, source: str, jpeg: bytes) -> None:
        """Publish a picture, retained: in an outage only the newest of each source is kept."""
        self._owe(self._picture.show(source, jpeg))
        self._work.set()

    def requests(self) -> AsyncIterator[Request]:
        """Those that arrive, in order, for ever; one reader takes them.

        What is sent while there is no connection never comes. One may come twice.
        """
        return self._inbox.requests()

    async def ready(self, timeout_secs: float) -> None:
        """Wait for a connection; `run` must be running.

        Raises:
            BrokerError: there is none after `timeout_secs`; the text names the broker and says why.
        """
        try:
            async with asyncio.timeout(timeout_secs):
                await self._connected.wait()
        except TimeoutError:
            silence = f"no answer from the MQTT broker at {self._address} in {timeout_secs:g} s"
            raise self.last_error or BrokerError(silence) from None

    async def run(self) -> None:
        """Serve until `close`; an outage, or a broker that refuses us, is logged and retried.

        Raises:
            StateError: called twice.
        """
        if self._deadline is not None:
            msg = "an MqttSink runs once"
            raise StateError(msg)
        try:
            limit_secs = CLOSE_SECS if self._closing.is_set() else None
            async with asyncio.timeout(limit_secs) as self._deadline:
                await self._stay_connected()
        except TimeoutError:
            _log.warning("the MQTT broker at %s is too slow for a goodbye", self._address)
        finally:
            self._end()

    async def close(self) -> None:
        """Deliver what waits, say `offline`, disconnect; takes at most `CLOSE_SECS`."""
        if self._deadline is not None and not self._closing.is_set():
            self._deadline.reschedule(asyncio.get_running_loop().time() + CLOSE_SECS)
        if isinstance(self._outbox, SpooledOutbox):
            self._outbox.hurry()
            asyncio.get_running_loop().call_later(DRAIN_SECS, self._leave)
        self._closing.set()
        self._work.set()
        if self._deadline is not None:
            await self._ended.wait()

    async def _stay_connected(self) -> None:
        while True:
            is_last_attempt = self._closing.is_set()
            try:
                await self._serve_one_connection()
            except BrokerError as error:
                self._note_outage(error)
            else:
                return
            if self._closing.is_set() and (is_last_attempt or not self._outbox):
                return
            await self._pause()

    async def _serve_one_connection(self) -> None:
        """Returns after `close`, with everything delivered.

        Raises:
            BrokerError: there is no connection, or it was lost.
        """
        lost: BaseExceptionGroup[aiomqtt.MqttError] | None = None
        async with self._door.connection() as link:
            try:
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(link.watch(), name=f"{self.name} watch")
                    await self._listen(link)
                    picture = self._begin(link)
                    await link.send_all(picture)
                    self._owe(self._picture.settled(picture))
                    group.create_task(link.unsubscribe(list(self._picture.own_topics)))
                    await self._serve(link, group)
                    await link.send_all(self._picture.farewell())
                    watching.cancel()
            except* aiomqtt.MqttError as errors:
                lost = errors
            if lost is not None:
                raise first(lost)

    async def _listen(self, link: Link) -> None:
        """A request may come before the SUBACK, so its response waits until the picture is out."""
        self._takes_passing = True
        answers = await link.listen((*self._inbox.topics, *self._picture.topics))
        refused = {topic: why for topic, why in answers.items() if topic in self._inbox.topics}
        if refused and not self._is_deaf:
            why, topics = next(iter(refused.values())), " and ".join(refused)
            deaf = "the MQTT broker at %s lets no requests come in: %s; may %s subscribe to %s?"
            _log.warning(deaf, self._address, why, link.identifier, topics)
        self._is_deaf = bool(refused)

    def _begin(self, link: Link) -> tuple[Packet, ...]:
        """The whole picture; what is published from now on comes after it."""
        late = ""
        if self._n_failures:
            self._outbox.start_over()
            late = f"; {len(self._outbox)} messages have waited for it"
        _log.info("connected to the MQTT broker at %s (%s)%s", self._address, link.protocol, late)
        self._retained_due.clear()
        self.last_error = None
        self._logged_error = ""
        self._is_refused = False
        self._has_answered = False
        self._n_under_way = 0
        self._connected.set()
        return self._picture.packets()

    async def _serve(self, link: Link, group: asyncio.TaskGroup) -> None:
        """Returns after `close`, once all is acknowledged."""
        while True:
            self._work.clear()
            self._send_waiting(link, group)
            if self._n_under_way == 0:
                if self._has_answered or not self._outbox:
                    self._n_failures = 0  # a broker that takes nothing is not to be hammered
                    self._is_overflowing = False
                if self._closing.is_set() and (self._is_leaving or not self._outbox):
                    return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_secs):
                    await self._work.wait()

    def _send_waiting(self, link: Link, group: asyncio.TaskGroup) -> None:
        """Tasks take their first step, which sends, in the order in which they are made."""

        def sent(packets: Iterable[Packet]) -> list[asyncio.Task[None]]:
            self._n_under_way += 1
            return [group.create_task(link.send(packet)) for packet in packets]

        if self._retained_due:
            due = tuple(self._retained_due.values())
            self._retained_due.clear()
            group.create_task(self._told(link, sent(due), due))
        lines = ((self._passing, self._passing.take(WINDOW)), (self._outbox, self._next()))
        for line, taken in lines:
            for waiting in taken:
                changes = filter(self._picture.shows, waiting.changes)
                sends = sent((self._picture.packet(waiting.message), *changes))
                group.create_task(self._delivered(link, sends, waiting, line))

    def _next(self) -> tuple[Waiting, ...]:
        """What must arrive; late ones at a bounded rate, until we close."""
        if self._is_leaving:
            return ()
        if self._closing.is_set():
            return self._outbox.take(WINDOW)
        n_late = self._pace.room(asyncio.get_running_loop().time())
        taken = self._outbox.take(WINDOW, n_late=n_late)
        self._pace.left(sum(one.is_late for one in taken))
        self._look_secs = LOOK_SECS if n_late < WINDOW and self._outbox else None
        return taken

    async def _acknowledged(self, link: Link, sends: list[asyncio.Task[None]]) -> None:
        for send in sends:
            await send
        self._n_under_way -= 1
        self._has_answered = True
        self._note_refusals(link)
        self._work.set()

    async def _told(
        self, link: Link, sends: list[asyncio.Task[None]], packets: tuple[Packet, ...]
    ) -> None:
        await self._acknowledged(link, sends)
        self._owe(self._picture.settled(packets))

    async def _delivered(
        self,
        link: Link,
        sends: list[asyncio.Task[None]],
        waiting: Waiting,
        line: Outbox | SpooledOutbox,
    ) -> None:
        await self._acknowledged(link, sends)
        line.pop(waiting.key)
        self.metrics.n_out += 1

    def _keep(self, message: Published, changes: tuple[Packet, ...]) -> None:
        evicted = self._outbox.put(message, changes)
        if evicted is None:
            return
        self._owe_now(evicted.changes)
        self._note_overflow()

    def _note_overflow(self) -> None:
        self.metrics.drop("outbox_full")
        if not self._is_overflowing:
            lost = "the MQTT broker at %s takes nothing; the oldest of %d waiting messages are lost"
            _log.error(lost, self._address, len(self._outbox))
        self._is_overflowing = True

    def _leave(self) -> None:
        self._is_leaving = True
        self._work.set()

    def _owe_now(self, packets: Iterable[Packet]) -> None:
        self._owe(self._picture.now(packets))

    def _owe(self, packets: Iterable[Packet]) -> None:
        """Only the newest of a topic; but what is cleared is told before, that it is offline."""
        for packet in packets:
            key = (packet.topic, packet.payload == "")
            self._retained_due.pop(key, None)  # the newest goes to the end
            self._retained_due[key] = packet

    def _heard(self, topic: str, payload: bytes, is_retained: bool) -> None:  # noqa: FBT001 - paho's
        """Home Assistant has started, or what an earlier boot has announced is still there."""
        self._owe(self._picture.heard(topic, payload, is_retained=is_retained))
        self._work.set()

    def _note_outage(self, error: BrokerError) -> None:
        self._connected.clear()
        self._takes_passing = False
        self._retained_due.clear()
        self._drop(self._passing, "offline")
        self._outbox.pause()
        self.last_error = error
        self._n_failures += 1
        if str(error) != self._logged_error:
            self._logged_error = str(error)
            _log.warning("%s; trying again until it works", error)

    def _note_refusals(self, link: Link) -> None:
        if link.n_refused == 0:
            return
        self.metrics.drop("refused", link.n_refused)
        link.n_refused = 0
        if not self._is_refused:
            lost = "the MQTT broker at %s refuses messages, which are lost: %s"
            _log.error(lost, self._address, link.refusal)
        self._is_refused = True

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_secs(self._n_failures)):
                await self._closing.wait()

    def _drop(self, line: Outbox | SpooledOutbox, reason: str) -> int:
        n_lost = line.clear()
        if n_lost:
            self.metrics.drop(reason, n_lost)
        return n_lost

    def _end(self) -> None:
        self._connected.clear()
        self._ended.set()
        self._drop(self._passing, "offline")
        n_lost = self._drop(self._outbox, "shutdown")
        if n_lost:
            lost = "%d messages are lost: the MQTT broker at %s did not take them before the end"
            _log.error(lost, n_lost, self._address)
