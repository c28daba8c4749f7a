"""Where it may listen."""

import pytest
from pydantic import ValidationError

from mmstream.web.settings import WebSettings, is_loopback

TOKEN = "a-token-of-22-letters!"  # noqa: S105 - of these tests


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    assert WebSettings(host=host).token is None


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.168.1.4", "camera.local", "127.0.0.1.x.org"],  # noqa: S104 - refused
)
def test_anything_else_does(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ValidationError, match="token") as refused:
        WebSettings(host=host)
    assert "127.0.0.1" in str(refused.value)
    allowed = WebSettings.model_validate({"host": host, "token": TOKEN})
    assert TOKEN not in repr(allowed)


def test_a_token_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ValidationError, match="16"):
        WebSettings.model_validate({"token": "1234"})
