"""Where metrics and health are served; apart, so that a configuration is read without a server."""

from ipaddress import ip_address
from typing import Final, Self

from pydantic import Field, SecretStr, model_validator

from mmstream.config import Settings

DEFAULT_PORT: Final = 8642
MIN_TOKEN: Final = 16


class WebSettings(Settings):
    """Where metrics and health are served."""

    host: str = Field("127.0.0.1", min_length=1)
    """The address to listen at; any but this machine's own needs a token."""
    port: int = Field(DEFAULT_PORT, ge=0, le=65535)
    """0 takes any free one."""
    token: SecretStr | None = Field(None, min_length=MIN_TOKEN)
    """What readers send as `Authorization: Bearer ...`; without it they learn `ok` and no more."""

    @model_validator(mode="after")
    def _others_need_a_token(self) -> Self:
        if self.token is None and not is_loopback(self.host):
            msg = (
                f"{self.host} can be reached from elsewhere, so readers need a token; allowed: "
                f"token: !env MMSTREAM_TOKEN ({MIN_TOKEN} characters or more), or host: 127.0.0.1"
            )
            raise ValueError(msg)
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine itself can reach it."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
