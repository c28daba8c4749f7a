"""Requests from outside, carried out one after the other and answered; a task of its own.

What they change is the sources. Where the settings of one become a chain, and what a configuration
that is read again changes, a recipe says (`Blueprint`). What people set holds over restarts where
there is a `Keeper`.
"""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from pydantic import JsonValue

from mmstream.errors import CommandError, ConfigError, StoreError, mask_credentials
from mmstream.messages import ID_PATTERN, Command, Request, Response, iso_utc
from mmstream.runtime.chain import Chain
from mmstream.runtime.features import ENABLED, Keeper, Value, shown
from mmstream.runtime.log_level import LEVELS
from mmstream.runtime.outlet import Outlet
from mmstream.runtime.roster import Roster
from mmstream.runtime.snapshots import Snapshots
from mmstream.stages import Inlet

MAX_WAITING: Final = 64
"""Requests that may wait; more wait in their inlets."""
SETTLED_SECS: Final = 2.0
"""How long an answer waits for a source that was started, to tell what became of it."""
VERBS: Final = (
    *("info", "health", "add", "remove", "enable", "disable", "restart"),
    *("set", "acknowledge", "snapshot", "reload", "log_level"),
)
MAX_LOGGED: Final = 1000
"""Characters of a line of the log that somebody outside has a say in."""
_ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "set": ("feature", "value"),
    "acknowledge": ("event",),
    "log_level": ("level",),
}
"""What these verbs need; `add` takes the settings of a source, the others nothing."""
_WORDS: Final = {"ignored": "only a restart of the program takes in"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a configuration that was read again changes."""

    removed: tuple[str, ...]
    """Sources that it no longer has."""
    changed: tuple[Chain, ...]
    """New ones, and those that take the place of what had the name."""
    ignored: tuple[str, ...]
    """Key paths that have changed and need a restart of the program."""


class Blueprint(Protocol):
    """How settings become a source; a recipe implements it. Both are called beside the loop."""

    def chain(self, name: str, settings: Mapping[str, JsonValue]) -> Chain:
        """A source from its settings as they stand in the configuration file.

        Raises:
            ConfigError: the name or the settings are wrong; the text says what is allowed.
        """
        ...

    def reread(self) -> Difference:
        """Read the configuration again and compare it with what was read before.

        Raises:
            ConfigError: it is wrong; nothing changes.
        """
        ...


class Controller:
    """Takes requests, has the roster carry them out, answers each through the outlet."""

    def __init__(
        self,
        roster: Roster,
        outlet: Outlet,
        blueprint: Blueprint | None,
        about: Callable[[], dict[str, JsonValue]],
        keeper: Keeper | None = None,
        snapshots: Snapshots | None = None,
    ) -> None:
        """Nothing is asked yet. `about` gives what `info` answers.

        Without a `keeper` the next boot knows only the configuration; without `snapshots` nobody
        gets a picture.
        """
        self._roster = roster
        self._outlet = outlet
        self._blueprint = blueprint
        self._about = about
        self._keeper = keeper
        self._snapshots = snapshots
        self._asked: asyncio.Queue[Request | None] = asyncio.Queue(MAX_WAITING)
        """None: SIGHUP asks to read the configuration again."""

    async def run(self, inlets: Sequence[Inlet]) -> None:
        """Carry out what is asked, in the order in which it came, for ever."""
        async with asyncio.TaskGroup() as group:
            for inlet in inlets:
                group.create_task(self._listen(inlet), name="inlet")
            while True:
                request = await self._asked.get()
                response = await self._carry_out(request or Request("reload", ""))
                if request is not None:
                    await self._outlet.say(response)

    def reload_soon(self) -> None:
        """Read the configuration again after all that was asked before; nobody is answered."""
        try:
            self._asked.put_nowait(None)
        except asyncio.QueueFull:
            _log.error("not read again: %d requests wait", MAX_WAITING)

    async def _listen(self, inlet: Inlet) -> None:
        try:
            async for request in inlet.requests():
                await self._asked.put(request)
        except Exception as error:  # noqa: BLE001 - no request stops the stream
            _log.debug("a defect of an inlet", exc_info=True)
            _log.error("no more requests are heard: %s", mask_credentials(_text(error)))

    async def _carry_out(self, request: Request) -> Response:
        command = Command(verb=request.verb, transaction=_transaction(request.payload))
        status: Literal["ok", "error"] = "error"
        error_text, result = None, {}
        try:
            command = request.command()
            result = await self._do(command, request.by)
            status = "ok"
        except (CommandError, ConfigError) as error:
            error_text = mask_credentials(str(error))
        except Exception as error:  # noqa: BLE001 - no request stops the stream
            _log.debug("a defect in %s", request.verb, exc_info=True)
            error_text = mask_credentials(_text(error))
        _tell(command, error_text, result, request.by)
        return Response(
            verb=request.verb,
            transaction=command.transaction,
            status=status,
            error=error_text,
            result=result,
        )

    async def _do(self, command: Command, by: str) -> dict[str, JsonValue]:
        verb, name = command.verb, command.source
        if verb not in VERBS:
            msg = f"nobody knows the request {verb!r}; allowed: {', '.join(VERBS)}"
            raise CommandError(msg)
        _check_arguments(command)
        if verb == "health":
            return self._health(name)
        if verb in ("info", "reload", "acknowledge", "log_level"):
            if name is not None:
                msg = f"{verb} is about the whole node: leave out the source"
                raise CommandError(msg)
            return await self._for_all(verb, command.arguments, by)
        if name is None:
            msg = f"{verb} needs a source; there are: {', '.join(self._roster.runners) or 'none'}"
            raise CommandError(msg)
        if verb == "set":
            feature, said = str(command.arguments["feature"]), command.arguments["value"]
            value = self._roster.features(name).understood(feature, said)
            return await self._set(name, feature, value, by)
        if verb == "snapshot":
            return await self._snapshot(name)
        return await self._change(verb, name, command.arguments, by)

    async def _for_all(
        self, verb: str, arguments: Mapping[str, JsonValue], by: str
    ) -> dict[str, JsonValue]:
        if verb == "info":
            return self._about()
        if verb == "reload":
            return await self._reload()
        if verb == "log_level":
            return await self._select_log_level(arguments["level"], by)
        return await self._acknowledge(arguments["event"], by)

    async def _change(
        self, verb: str, name: str, arguments: Mapping[str, JsonValue], by: str
    ) -> dict[str, JsonValue]:
        roster = self._roster
        if verb == "add":
            await self._add(name, arguments)
        gauge = roster.runner(name).gauge
        match verb:
            case "remove":
                await self._remove(name)
            case "disable" | "enable":
                await self._set(name, ENABLED, verb == "enable", by)
            case "restart":
                await roster.restart(name)
        if verb != "remove":
            await roster.settled(name, SETTLED_SECS)
        return {"state": gauge.state, "reason": gauge.reason}

    async def _add(self, name: str, settings: Mapping[str, JsonValue]) -> None:
        if self._blueprint is None:
            msg = "this run cannot take in sources"
            raise CommandError(msg)
        await self._roster.add(await asyncio.to_thread(self._blueprint.chain, name, settings))

    async def _remove(self, name: str) -> None:
        await self._roster.remove(name)
        if self._keeper is not None:
            with _logging(f"what was set of {name} is not forgotten"):
                await self._keeper.forget(name, None)

    async def _set(
        self, name: str, feature: str, value: Value | None, by: str
    ) -> dict[str, JsonValue]:
        """Applied, then kept, then told: whoever sees it can rely on it."""
        override = await self._roster.set(name, feature, value, by)
        persisted = False
        if self._keeper is not None:
            with _logging(f"{name}: a restart will not know how {feature} is set"):
                if override is None:
                    await self._keeper.forget(name, feature)
                else:
                    await self._keeper.keep(override)
                persisted = True
        await self._roster.tell_features(name)
        text = self._roster.features(name).text(feature)
        is_set = override is not None
        return {"feature": feature, "value": text, "is_set": is_set, "persisted": persisted}

    async def _select_log_level(self, said: JsonValue, by: str) -> dict[str, JsonValue]:
        chosen = [level for level in LEVELS if level == said]
        if not chosen:
            msg = f"level cannot be {shown(said)}; allowed: {', '.join(LEVELS)}"
            raise CommandError(msg)
        override = await self._roster.select_log_level(chosen[0], by)
        persisted = False
        if self._keeper is not None:
            with _logging("a restart will not know the log level"):
                await self._keeper.keep(override)
                persisted = True
        return {"level": chosen[0], "persisted": persisted}

    async def _acknowledge(self, event_id: JsonValue, by: str) -> dict[str, JsonValue]:
        if self._keeper is None:
            msg = "this run keeps no event log (`store: false`): nothing can be acknowledged"
            raise CommandError(msg)
        try:
            seen = await self._keeper.acknowledge(str(event_id), by)
        except StoreError as error:
            msg = f"not written down: {error}"
            raise CommandError(msg) from None
        if seen is None:
            msg = f"no event {str(event_id)[:80]!r} in the event log; give the `id` of one"
            raise CommandError(msg)
        return {
            "event": seen.event_id,
            "source": seen.source,
            "label": seen.label,
            "is_open": seen.is_open,
            "acknowledged": iso_utc(seen.at_ns),
            "by": seen.by,
        }

    async def _snapshot(self, name: str) -> dict[str, JsonValue]:
        self._roster.runner(name)  # it says which sources there are, if it is none of them
        if self._snapshots is None:
            msg = "this run takes no snapshots; allowed: `snapshots: {}` in the configuration"
            raise CommandError(msg)
        return await self._snapshots.take(name)

    def _health(self, name: str | None) -> dict[str, JsonValue]:
        roster = self._roster
        runners = roster.runners if name is None else {name: roster.runner(name)}
        return {
            one: runner.gauge.health().model_dump(mode="json", exclude={"source"})
            for one, runner in runners.items()
        }

    async def _reload(self) -> dict[str, JsonValue]:
        if self._blueprint is None:
            msg = "this run has no configuration that could be read again"
            raise CommandError(msg)
        difference = await asyncio.to_thread(self._blueprint.reread)
        before = frozenset(self._roster.runners)
        removed = [name for name in difference.removed if name in before]
        done: dict[str, list[JsonValue]] = {"added": [], "changed": [], "removed": []}
        failed = []
        for name in removed:
            try:
                await self._remove(name)
                done["removed"].append(name)
            except CommandError as error:
                failed.append(str(error))
        for chain in difference.changed:
            try:
                await self._roster.replace(chain)
                name = chain.source.name
                done["changed" if name in before else "added"].append(name)
            except CommandError as error:
                failed.append(str(error))
        result: dict[str, JsonValue] = {**done, "ignored": [*difference.ignored]}
        if failed:
            msg = f"{'; '.join(failed)} (else done: {_summary(result)})"
            raise CommandError(msg)
        return result


def _transaction(payload: str) -> str:
    """Of a request that is not understood: somebody waits for its answer. Empty: none is said."""
    try:
        fields = json.loads(payload)
        said = fields["transaction"] if isinstance(fields, dict) else ""
        return said if isinstance(said, str) and said.encode() else ""
    except (ValueError, KeyError, RecursionError):
        return ""


def _check_arguments(command: Command) -> None:
    """Raises `CommandError` where some are missing or too many."""
    if command.verb == "add":
        return
    needed = _ARGUMENTS.get(command.verb, ())
    if not needed and command.arguments:
        msg = f"{command.verb} takes no arguments"
        raise CommandError(msg)
    if command.arguments.keys() != set(needed):
        msg = f"{command.verb} needs these arguments and no others: {', '.join(needed)}"
        raise CommandError(msg)


@contextmanager
def _logging(consequence: str) -> Iterator[None]:
    """What the disk does not take is logged; the run goes on."""
    try:
        yield
    except StoreError as error:
        _log.error("%s: %s", consequence, error)


def _tell(command: Command, error: str | None, result: Mapping[str, JsonValue], by: str) -> None:
    """Log what came of a command; who changed what is seen must be found later."""
    name = command.source
    is_name = name is not None and re.fullmatch(ID_PATTERN, name) is not None
    what = command.verb if name is None else f"{command.verb} {name if is_name else shown(name)}"
    who = f" (by {by})" if by else ""
    of = {"source": name if is_name else None}
    if error is not None:
        _log.warning("%s: %s%s", what, _one_line(error), who, extra=of)
    elif command.verb in ("info", "health"):
        _log.info("%s: answered%s", what, who, extra=of)
    else:
        _log.warning("%s: %s%s", what, _summary(result), who, extra=of)


def _one_line(text: str) -> str:
    """Nobody outside may write lines of his own into the log, or control a terminal."""
    plain = "".join(one if one.isprintable() else " " for one in text.replace("\n", "; "))
    return plain if len(plain) <= MAX_LOGGED else f"{plain[:MAX_LOGGED]}..."


def _summary(result: Mapping[str, JsonValue]) -> str:
    """`added a, b; removed c`, or `offline: disabled`."""
    if "state" in result:
        return f"{result['state']}: {result['reason']}"
    if "captured" in result:
        return f"{result['kind']} of {result['captured']}, {result['bytes']} bytes"
    if "feature" in result:
        whose = "" if result["is_set"] else ", as the configuration says"
        return f"{result['feature']} {result['value']}{whose}"
    if "level" in result:
        return f"{result['level']}"
    if "acknowledged" in result:
        return f"event {result['event']} ({result['label']} of {result['source']})"
    parts = [
        f"{_WORDS.get(what, what)} {', '.join(map(str, names))}"
        for what, names in result.items()
        if isinstance(names, list) and names
    ]
    return "; ".join(parts) or "nothing has changed"


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
