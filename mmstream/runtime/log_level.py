"""How much the log says: selected while it runs, and kept like what is set of a source.

Nothing is below `warning`: who has changed what must be found later.
"""

import logging
from collections.abc import Sequence
from typing import Final, get_args

from mmstream.messages import LogLevel, iso_utc
from mmstream.store.overrides import Override

LEVELS: Final[tuple[LogLevel, ...]] = get_args(LogLevel)
NODE: Final = ""
"""The source of an override that is of the whole node; no source is called so."""
FEATURE: Final = "log_level"

_log = logging.getLogger(__name__)
_ours = logging.getLogger("mmstream")


def current() -> LogLevel:
    """What is told now."""
    least = _ours.getEffectiveLevel()
    return "debug" if least <= logging.DEBUG else "info" if least <= logging.INFO else "warning"


def select(level: LogLevel) -> None:
    """Let our own loggers tell from this level on; those of libraries stay as they are."""
    _ours.setLevel(level.upper())


def restore(overrides: Sequence[Override]) -> None:
    """As it was selected in an earlier boot, if it was."""
    for one in overrides:
        if (one.source, one.feature) != (NODE, FEATURE):
            continue
        for level in LEVELS:
            if level == one.value:
                select(level)
                who = one.by or "somebody"
                _log.warning(
                    "log level %s, as was set at %s by %s", level, iso_utc(one.set_ns), who
                )
