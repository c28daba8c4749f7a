"""Requests from outside, carried out one after the other and answered; a task of its own.

What they change is the sources. Where the settings of one become a chain, and what a configuration
that is read again changes, a recipe says (`Blueprint`).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from pydantic import JsonValue

from mmstream.errors import CommandError, ConfigError, mask_credentials
from mmstream.messages import Command, Request, Response
from mmstream.runtime.chain import Chain
from mmstream.runtime.outlet import Outlet
from mmstream.runtime.roster import Roster
from mmstream.stages import Inlet

MAX_WAITING: Final = 64
"""Requests that may wait; more wait in their inlets."""
SETTLED_SECS: Final = 2.0
"""How long an answer waits for a source that was started, to tell what became of it."""
VERBS: Final = ("info", "health", "add", "remove", "enable", "disable", "restart", "reload")
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
    ) -> None:
        """Nothing is asked yet. `about` gives what `info` answers."""
        self._roster = roster
        self._outlet = outlet
        self._blueprint = blueprint
        self._about = about
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
        command = Command(verb=request.verb)
        status: Literal["ok", "error"] = "error"
        error_text, result = None, {}
        try:
            command = request.command()
            result = await self._do(command)
            status = "ok"
        except (CommandError, ConfigError) as error:
            error_text = mask_credentials(str(error))
        except Exception as error:  # noqa: BLE001 - no request stops the stream
            _log.debug("a defect in %s", request.verb, exc_info=True)
            error_text = mask_credentials(_text(error))
        _tell(command, error_text, result)
        return Response(
            verb=request.verb,
            transaction=command.transaction,
            status=status,
            error=error_text,
            result=result,
        )

    async def _do(self, command: Command) -> dict[str, JsonValue]:
        verb, name = command.verb, command.source
        if verb not in VERBS:
            msg = f"nobody knows the request {verb!r}; allowed: {', '.join(VERBS)}"
            raise CommandError(msg)
        if command.arguments and verb != "add":
            msg = f"{verb} takes no arguments"
            raise CommandError(msg)
        if verb == "health":
            return self._health(name)
        if verb in ("info", "reload"):
            if name is not None:
                msg = f"{verb} is about the whole node: leave out the source"
                raise CommandError(msg)
            return self._about() if verb == "info" else await self._reload()
        if name is None:
            msg = f"{verb} needs a source; there are: {', '.join(self._roster.runners) or 'none'}"
            raise CommandError(msg)
        return await self._change(verb, name, command.arguments)

    async def _change(
        self, verb: str, name: str, arguments: Mapping[str, JsonValue]
    ) -> dict[str, JsonValue]:
        roster = self._roster
        if verb == "add":
            await self._add(name, arguments)
        gauge = roster.runner(name).gauge
        match verb:
            case "remove":
                await roster.remove(name)
            case "disable":
                await roster.disable(name)
            case "enable":
                await roster.enable(name)
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
                await self._roster.remove(name)
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


def _tell(command: Command, error: str | None, result: Mapping[str, JsonValue]) -> None:
    """Log what came of a command; who changed what is seen must be found later."""
    what = command.verb if command.source is None else f"{command.verb} {command.source}"
    of = {"source": command.source}
    if error is not None:
        _log.warning("%s: %s", what, error.replace("\n", "; "), extra=of)
    elif command.verb in ("info", "health"):
        _log.info("%s: answered", what, extra=of)
    else:
        _log.warning("%s: %s", what, _summary(result), extra=of)


def _summary(result: Mapping[str, JsonValue]) -> str:
    """`added a, b; removed c`, or `offline: disabled`."""
    if "state" in result:
        return f"{result['state']}: {result['reason']}"
    parts = [
        f"{_WORDS.get(what, what)} {', '.join(map(str, names))}"
        for what, names in result.items()
        if isinstance(names, list) and names
    ]
    return "; ".join(parts) or "nothing has changed"


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
