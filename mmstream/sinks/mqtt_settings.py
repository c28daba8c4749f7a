"""What a configuration may say about an MQTT broker."""

from typing import Literal

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator

from mmstream.config import Settings
from mmstream.sinks.homeassistant import Form


class TlsSettings(Settings):
    """How to make sure that the broker is who it says, and to show who we are."""

    ca: FilePath | None = None
    """The certificates that may have signed the broker's, PEM; the system's when left out."""
    certificate: FilePath | None = None
    """Ours, PEM, for brokers that ask for one."""
    key: FilePath | None = None
    """The private key of `certificate`, PEM, without a pass phrase; left out when it is in the
    same file."""

    @model_validator(mode="after")
    def _key_needs_certificate(self) -> "TlsSettings":
        if self.key is not None and self.certificate is None:
            msg = "`key` is of use only with `certificate`"
            raise ValueError(msg)
        return self


class MqttSettings(Settings):
    """Where the broker is and how to talk to it."""

    host: str = Field("127.0.0.1", min_length=1)
    """A host name or address; not a URL."""
    port: int | None = Field(None, ge=1, le=65535)
    """1883 when left out, 8883 with `tls`."""
    base: str = Field("mmstream", pattern=r"^[^\s+#/$][^\s+#/]*(/[^\s+#/]+)*$")
    """The first level or levels of every topic; `<base>/<node>/...`."""
    discovery: Form = "device"
    """How Home Assistant is told what there is: `device` for release 2024.11 and later,
    `component` for any; `off` takes back what was told."""
    discovery_prefix: str = Field("homeassistant", pattern=r"^[^\s+#/$][^\s+#/]*(/[^\s+#/]+)*$")
    """What Home Assistant has for `discovery prefix`."""
    username: str | None = None
    password: SecretStr | None = None
    """Best given as `!env NAME` or `!secret NAME`."""
    tls: TlsSettings | None = None
    """Encrypt; `{}` takes the system's certificate authorities."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """`auto` speaks MQTT 5 unless the broker refuses it."""
    keepalive_secs: int = Field(30, ge=5, le=65535)
    """The broker declares us dead after one and a half times this without a sign of life."""
    outbox_size: int = Field(10_000, ge=1)
    """Events, alerts and final captions that may wait in memory for the broker."""

    @field_validator("host")
    @classmethod
    def _is_no_url(cls, host: str) -> str:
        if any(sign in host for sign in "/@ "):
            msg = "give the host alone: port, username and password have keys of their own"
            raise ValueError(msg)
        try:
            host.encode("idna")
        except UnicodeError:
            msg = "this is not a host name or address"
            raise ValueError(msg) from None
        return host

    @model_validator(mode="after")
    def _password_needs_username(self) -> "MqttSettings":
        if self.password is not None and self.username is None:
            msg = "`password` is of use only with `username`"
            raise ValueError(msg)
        return self

    @property
    def address(self) -> str:
        """`host:port`, for people."""
        return f"{self.host}:{self.port_number}"

    @property
    def port_number(self) -> int:
        """The port, also when it is left out."""
        if self.port is not None:
            return self.port
        return 1883 if self.tls is None else 8883
