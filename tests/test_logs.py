"""What the program says of itself: lines for people, or JSON for programs."""

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from mmstream.logs import JsonFormatter, LogFormat, TextFormatter, set_up

URL = "rtsp://amy:s3cret@door/1?token=t0ken"


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level, sys.excepthook, threading.excepthook = before


def record(message: str, *arguments: object, **more: object) -> logging.LogRecord:
    logger = logging.getLogger("mmstream.runtime.chain")
    return logger.makeRecord(
        logger.name, logging.ERROR, "", 0, message, arguments, None, extra=more
    )


def failed(text: str) -> logging.LogRecord:
    made = record("a defect")
    try:
        int(text)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_one_object_with_what_a_program_looks_for() -> None:
    made = record("%s: %s", "door", "gone", source="door")
    made.created = 1_795_428_000.2504
    assert json.loads(JsonFormatter().format(made)) == {
        "ts": "2026-11-23T10:00:00.250Z",
        "level": "ERROR",
        "logger": "mmstream.runtime.chain",
        "source": "door",
        "message": "door: gone",
    }


def test_what_is_of_no_source_names_none() -> None:
    assert "source" not in json.loads(JsonFormatter().format(record("hello")))


def test_it_is_one_line_whatever_it_says() -> None:
    line = JsonFormatter().format(record('a\nb\u2028"c"\x00 Grüß \udc80'))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == 'a\nb\u2028"c"\x00 Grüß \udc80'


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter("mmstream: %(message)s")])
def test_no_credentials_in_messages_and_tracebacks(formatter: logging.Formatter) -> None:
    said = formatter.format(record("%s: refused", URL)) + formatter.format(failed(URL))
    assert "s3cret" not in said
    assert "t0ken" not in said
    assert "door/1" in said


def test_a_traceback_is_part_of_its_object() -> None:
    line = json.loads(JsonFormatter().format(failed("why")))
    assert (
        line["exception"].splitlines()[-1]
        == "ValueError: invalid literal for int() with base 10: 'why'"
    )


@pytest.mark.usefixtures("_logging_as_before")
def test_everything_goes_to_standard_error_once(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogFormat.TEXT)
    set_up(LogFormat.JSON)
    logging.getLogger("mmstream.x").error("ours")
    logging.getLogger("uvicorn.error").error("theirs")
    logging.getLogger("mmstream.x").info("nobody asked")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", stacklevel=1)
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert not out
    assert [line["logger"] for line in lines] == ["mmstream.x", "uvicorn.error", "py.warnings"]


@pytest.mark.usefixtures("_logging_as_before")
def test_a_defect_in_a_thread_is_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogFormat.JSON)
    error = ValueError("why")
    threading.excepthook(threading.ExceptHookArgs((ValueError, error, None, None)))
    sys.excepthook(ValueError, error, None)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines] == ["CRITICAL", "CRITICAL"]
    assert all("ValueError: why" in line["exception"] for line in lines)


@pytest.mark.usefixtures("_logging_as_before")
def test_people_get_lines(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogFormat.TEXT)
    logging.getLogger("mmstream.x").warning("%s: gone", "door")
    assert capsys.readouterr().err == "mmstream: door: gone\n"
