"""Measurements, each beside a baseline in the same run: `mmstream bench NAME [--json FILE]`."""

import json
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from mmstream.benchmarks import (
    avp_card,
    avp_thresholds,
    chaos,
    drift,
    machine,
    overhead,
    rtsp,
    senses,
    worker,
)
from mmstream.errors import ConfigError

NAMES: Final = ("avp", "chaos", "drift", "overhead", "rtsp", "senses", "worker")


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
    figures, table = _measured(name)
    print(table)
    if json_file is not None:
        record = {"benchmark": name, **machine.describe(), "figures": figures.model_dump()}
        json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _measured(name: str) -> tuple[BaseModel, str]:
    if name == "avp":
        thresholds = avp_thresholds.measure()
        return thresholds, avp_card.table(thresholds)
    if name == "chaos":
        outages = chaos.measure()
        return outages, chaos.table(outages)
    if name == "drift":
        drifts = drift.measure()
        return drifts, drift.table(drifts)
    if name == "rtsp":
        ages = rtsp.measure()
        return ages, rtsp.table(ages)
    if name == "senses":
        detectors = senses.measure()
        return detectors, senses.table(detectors)
    if name == "worker":
        scoring = worker.measure()
        return scoring, worker.table(scoring)
    costs = overhead.measure()
    return costs, overhead.table(costs)


def _touch(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror}"
        raise ConfigError(msg) from None
    if not path.is_file():
        msg = f"{path}: is no file"
        raise ConfigError(msg)
