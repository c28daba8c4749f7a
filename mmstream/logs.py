"""What the program says of itself on standard error: lines for people, or one JSON object a line.

    {"ts":"2026-11-23T10:00:00.250Z","level":"ERROR","logger":"mmstream.runtime.chain",
     "source":"door","message":"door: cannot be opened: Connection refused"}

`source` is there where a record has one (`extra={"source": name}`), `exception` where there is one.
Credentials are masked in both, whatever a record or a traceback holds. What C libraries print
themselves (ALSA, FFmpeg) passes us by.
"""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType

from mmstream.errors import mask_credentials


class LogFormat(StrEnum):
    """For whom the log is."""

    TEXT = "text"
    JSON = "json"


def set_up(log_format: LogFormat) -> None:
    """Let all loggers of this process write to standard error this way, and in no other."""
    handler = logging.StreamHandler()
    is_json = log_format is LogFormat.JSON
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter("mmstream: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    if is_json:  # as lines of text these would be none that a program can read
        logging.captureWarnings(capture=True)
        sys.excepthook = _log_defect
        threading.excepthook = _log_defect_of_thread


class TextFormatter(logging.Formatter):
    """A line for people; what follows it, such as a traceback, stands below."""

    def format(self, record: logging.LogRecord) -> str:
        """The record without credentials."""
        return mask_credentials(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object in ASCII: no locale and no newline in a message breaks the line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record without credentials."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "ts": when.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
        }
        source = getattr(record, "source", None)
        if isinstance(source, str):
            line["source"] = source
        line["message"] = mask_credentials(record.getMessage())
        if record.exc_info:
            line["exception"] = mask_credentials(self.formatException(record.exc_info))
        return json.dumps(line, separators=(",", ":"))


def _log_defect(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logging.getLogger("mmstream").critical("a defect", exc_info=(kind, error, trace))


def _log_defect_of_thread(seen: threading.ExceptHookArgs) -> None:
    error = seen.exc_value or seen.exc_type()
    exc_info = (seen.exc_type, error, seen.exc_traceback)
    logging.getLogger("mmstream").critical("a defect in a thread", exc_info=exc_info)
