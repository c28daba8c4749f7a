import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream import errors
from mmstream.errors import MmstreamError, mask_credentials


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("rtsp://admin:secret@cam/stream", "rtsp://***@cam/stream"),
        ("rtsp://admin@cam/stream", "rtsp://***@cam/stream"),
        ("mqtt://:secret@broker", "mqtt://***@broker"),
        ("rtsp://admin:p@ss@cam/stream", "rtsp://***@cam/stream"),
        ("rtsp://admin:12/34@cam/stream", "rtsp://***@cam/stream"),
        ("rtsp://admin:a?b#c@cam/stream", "rtsp://***@cam/stream"),
        (
            "rtsp://a:b@one/x is not rtsp://c:d@two/y",
            "rtsp://***@one/x is not rtsp://***@two/y",
        ),
        ("http://cam/snap?user=me&password=secret&size=2", None),
        ("rtsp://cam/user=me&PASSWORD=secret&channel=1", None),
        ("http://cam/snap?api_key=secret", "http://cam/snap?api_key=***"),
        ("http://cam/live?sig=secret&auth=secret", "http://cam/live?sig=***&auth=***"),
        ("'http://cam/?token=secret': refused", "'http://cam/?token=***': refused"),
    ],
)
def test_credentials_are_masked(text: str, masked: str | None) -> None:
    shown = mask_credentials(text)
    assert "secret" not in shown
    assert masked is None or shown == masked


@pytest.mark.parametrize(
    "text",
    ["rtsp://cam:554/stream", "rtsp://[fe80::1]:554/x", "somebody@example.org", "a/b:c@d", ""],
)
def test_what_holds_no_credentials_stays(text: str) -> None:
    assert mask_credentials(text) == text


@given(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1))
def test_no_password_gets_through(password: str) -> None:
    shown = mask_credentials(f"cannot open rtsp://me:{password}@cam/live: no route")
    assert shown == "cannot open rtsp://***@cam/live: no route"


@given(st.text())
def test_masking_twice_changes_nothing(text: str) -> None:
    once = mask_credentials(text)
    assert mask_credentials(once) == once


def test_every_error_has_one_base_and_is_in_the_tree_on_top() -> None:
    classes = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    ]
    assert len(classes) > 5
    for kind in classes:
        assert issubclass(kind, MmstreamError)
        assert kind.__name__ in (errors.__doc__ or "")
