"""How a configuration changes while it runs: sources added by request, the file read again."""

from collections.abc import Callable, Iterator, Mapping

from pydantic import JsonValue, ValidationError

from mmstream.clock import Clock
from mmstream.config import Settings
from mmstream.detectors.masks import Polygon
from mmstream.errors import ConfigError, mask_credentials
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration
from mmstream.runtime.chain import Chain
from mmstream.runtime.control import Difference


class ConfiguredSources:
    """Makes the chains of sources that come later (`mmstream.runtime.control.Blueprint`).

    Only sources change while it runs. All else stays as it was at the start, and what the file says
    otherwise is named as ignored. Sources that a request has added are none of the file's business.
    """

    def __init__(
        self, settings: Configuration, clock: Clock, load: Callable[[], Configuration]
    ) -> None:
        """It runs with `settings`; `load` reads them anew and raises `ConfigError`."""
        self._settings = settings
        self._read = settings
        """The file as it was read last; it runs with only the sources of that."""
        self._known = set(settings.sources)
        self._clock = clock
        self._load = load

    def masks(self, source: str) -> tuple[Polygon, ...] | None:
        """What nobody is to see of a source: what the file says now, and what it said at the start.

        None: the source is not of this making, and nobody knows.
        """
        if source not in self._known:
            return None
        at_start, now = self._settings.detectors, self._read.detectors
        return tuple(dict.fromkeys((*at_start.masks(source), *now.masks(source))))

    def chain(self, name: str, settings: Mapping[str, JsonValue]) -> Chain:
        """The chain of a source with the settings given, as `sources.<name>` would have them.

        Raises:
            ConfigError: they are wrong; one line per problem, without values.
        """
        try:
            asked = Configuration.model_validate({"sources": {name: dict(settings)}})
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False)
            lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems]
            raise ConfigError(mask_credentials("\n".join(lines))) from None
        return self._made(name, asked)

    def reread(self) -> Difference:
        """What the file says otherwise than it did when it was last read.

        Raises:
            ConfigError: something in it is wrong; everything stays as it is.
        """
        before, now = self._settings, self._load()
        self._read = now
        removed = tuple(name for name in before.sources if name not in now.sources)
        changed = tuple(
            self._made(name, now)
            for name, settings in now.sources.items()
            if before.sources.get(name) != settings
        )
        self._settings = before.model_copy(update={"sources": now.sources})
        return Difference(removed, changed, tuple(_differing(self._settings, now)))

    def _made(self, name: str, asked: Configuration) -> Chain:
        self._known.add(name)
        runs = self._settings.model_copy(update={"sources": asked.sources})
        return graph.chain(name, runs, self._clock)


def _differing(before: Settings, now: Settings, path: str = "") -> Iterator[str]:
    """The key paths at which two settings differ."""
    further = (*(before.model_extra or ()), *(now.model_extra or ()))
    for key in dict.fromkeys((*type(before).model_fields, *further)):
        old, new = getattr(before, key, None), getattr(now, key, None)
        if old == new:
            continue
        if isinstance(old, Settings) and isinstance(new, type(old)):
            yield from _differing(old, new, f"{path}{key}.")
        else:
            yield path + key
