"""Measurements, each beside a baseline in the same run: `mmstream bench NAME [--json FILE]`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel

from mmstream.benchmarks import (
    avp_card,
    avp_thresholds,
    captions,
    captions_live,
    chaos,
    drift,
    machine,
    overhead,
    rtsp,
    senses,
    worker,
)
from mmstream.errors import ConfigError

F = TypeVar("F", bound=BaseModel)


def _both(measure: Callable[[], F], table: Callable[[F], str]) -> tuple[BaseModel, str]:
    figures = measure()
    return figures, table(figures)


_MEASURED: Final[Mapping[str, Callable[[], tuple[BaseModel, str]]]] = {
    "avp": lambda: _both(avp_thresholds.measure, avp_card.table),
    "captions": lambda: _both(captions.measure, captions.table),
    "captions-live": lambda: _both(captions_live.measure, captions_live.table),
    "chaos": lambda: _both(chaos.measure, chaos.table),
    "drift": lambda: _both(drift.measure, drift.table),
    "overhead": lambda: _both(overhead.measure, overhead.table),
    "rtsp": lambda: _both(rtsp.measure, rtsp.table),
    "senses": lambda: _both(senses.measure, senses.table),
    "worker": lambda: _both(worker.measure, worker.table),
}
NAMES: Final = tuple(_MEASURED)


def run(name: str, json_file: Path | None) -> None:
    """Run a benchmark, print its table and, if asked, write its figures with machine and commit.

    Raises:
        ConfigError: there is no such benchmark, or the file cannot be written.
    """
    if name not in NAMES:
        msg = f"no benchmark {name!r}; there are: {', '.join(NAMES)}"
        raise ConfigError(msg)
    if json_file is not None:
        _touch(json_file)  # before minutes are spent
    figures, table = _MEASURED[name]()
    print(table)
    if json_file is not None:
        record = {"benchmark": name, **machine.describe(), "figures": figures.model_dump()}
        json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _touch(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror}"
        raise ConfigError(msg) from None
    if not path.is_file():
        msg = f"{path}: is no file"
        raise ConfigError(msg)
