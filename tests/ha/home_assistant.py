"""A real Home Assistant in a folder of its own, with one MQTT broker and one token set up."""

import base64
import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from brokers import HOST, free_port
from pydantic import BaseModel, Field, JsonValue

START_SECS: Final = 90.0
"""15 s on a quiet machine."""
PATIENCE_SECS: Final = 30.0

_LOGIN_ID: Final = "mmstream-test-login"
_KEY: Final = "0123456789abcdef" * 4
_USER: Final = "mmstream-test-user"

_HARMLESS: Final = (
    "No device components to cleanup",
    "Received a conflicting MQTT discovery message",
)
"""Said of the last step of a change of form, which its documentation asks for, and ignored."""

_CONFIGURATION: Final = """
homeassistant:
  name: Test
http:
  server_host: {host}
  server_port: {port}
api:
logger:
  default: warning
automation: !include automations.yaml
"""


class State(BaseModel):
    """An entity as Home Assistant's REST API shows it."""

    entity_id: str
    state: str
    attributes: dict[str, JsonValue] = Field(default_factory=dict)


class RegistryEntry(BaseModel):
    """An entity as Home Assistant keeps it over restarts."""

    entity_id: str
    unique_id: str
    platform: str


class HomeAssistant:
    """Started at `with`; killed at its end."""

    def __init__(self, folder: Path, *, broker_port: int, automations: str = "[]\n") -> None:
        """Nothing runs yet."""
        self._program = program()
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        text = _CONFIGURATION.format(host=HOST, port=self._port)
        (folder / "configuration.yaml").write_text(text)
        (folder / "automations.yaml").write_text(automations)
        storage = folder / ".storage"
        storage.mkdir(exist_ok=True)
        _keep(storage, "core.config_entries", {"entries": [_mqtt_entry(broker_port)]})
        _keep(storage, "auth", _accounts())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def log(self) -> str:
        """All that it has printed."""
        return (self._folder / "out.log").read_text(errors="replace")

    @property
    def complaints(self) -> list[str]:
        """What its MQTT integration has warned of."""
        lines = self.log.splitlines()
        return [
            line
            for line in lines
            if re.search(r"(WARNING|ERROR) .*\[homeassistant\.components\.mqtt", line)
            and not any(harmless in line for harmless in _HARMLESS)
        ]

    def start(self) -> None:
        """Start it, and wait until it runs."""
        command = [self._program, "-c", str(self._folder), "--skip-pip"]
        with (self._folder / "out.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait_until(self._runs, "Home Assistant runs", START_SECS)

    def stop(self) -> None:
        """Stop it politely: it writes what it keeps."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE_SECS)
        self._process = None

    def states(self) -> dict[str, State]:
        """All entities by id."""
        states = json.loads(self._ask("GET", "/api/states"))
        return {one["entity_id"]: State.model_validate(one) for one in states}

    @property
    def knows_devices(self) -> bool:
        """Whether it takes a whole device in one payload."""
        year, month, *_ = json.loads(self._ask("GET", "/api/config"))["version"].split(".")
        return (int(year), int(month)) >= (2024, 11)

    def state(self, entity_id: str) -> str:
        """Of one entity; empty if there is none."""
        found = self.states().get(entity_id)
        return "" if found is None else found.state

    def picture(self, entity_id: str) -> bytes:
        """As its dashboard shows it; empty if there is none."""
        try:
            return self._fetch("GET", f"/api/image_proxy/{entity_id}")
        except HTTPError:
            return b""

    def render(self, template: str) -> str:
        """A template as Home Assistant renders it."""
        return self._ask("POST", "/api/template", {"template": template})

    def call(self, domain: str, service: str, data: dict[str, JsonValue]) -> None:
        """Carry out an action."""
        self._ask("POST", f"/api/services/{domain}/{service}", data)

    def pretend(self, entity_id: str, state: str) -> None:
        """As if the entity had come into this state."""
        self._ask("POST", f"/api/states/{entity_id}", {"state": state})

    def automate(self, automations: JsonValue) -> None:
        """Replace all automations."""
        (self._folder / "automations.yaml").write_text(json.dumps(automations))
        self.call("automation", "reload", {})

    def registry(self) -> dict[str, RegistryEntry]:
        """By unique id; as it was when it was stopped."""
        text = (self._folder / ".storage" / "core.entity_registry").read_text()
        entries = map(RegistryEntry.model_validate, json.loads(text)["data"]["entities"])
        return {one.unique_id: one for one in entries if one.platform == "mqtt"}

    def rename(self, entity_id: str, new_id: str) -> None:
        """As people do in its settings; while it is stopped."""
        assert self._process is None
        file = self._folder / ".storage" / "core.entity_registry"
        file.write_text(file.read_text().replace(json.dumps(entity_id), json.dumps(new_id)))

    def wait_for(self, entity_id: str, *states: str) -> None:
        """Until the entity has one of the states; empty: until it is gone."""
        try:
            self.wait_until(lambda: self.state(entity_id) in states, "")
        except AssertionError:
            known = {one.entity_id: one.state for one in self.states().values()}
            msg = f"{entity_id} is none of {states}: {known}\n{self.log[-4000:]}"
            raise AssertionError(msg) from None

    def wait_until(
        self, condition: Callable[[], bool], what: str, limit_secs: float = PATIENCE_SECS
    ) -> None:
        """Block until it holds."""
        deadline = time.monotonic() + limit_secs
        while not condition():
            assert self._process is None or self._process.poll() is None, self.log[-4000:]
            assert time.monotonic() < deadline, f"still not so: {what}\n{self.log[-4000:]}"
            time.sleep(0.1)

    def _runs(self) -> bool:
        try:
            return bool(json.loads(self._ask("GET", "/api/config"))["state"] == "RUNNING")
        except HTTPError as error:
            raise AssertionError(error.read()) from error
        except (URLError, OSError):
            return False

    def _ask(self, method: str, path: str, body: JsonValue = None) -> str:
        return self._fetch(method, path, body).decode()

    def _fetch(self, method: str, path: str, body: JsonValue = None) -> bytes:
        request = Request(
            f"http://{HOST}:{self._port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {_token()}", "Content-Type": "application/json"},
        )
        with urlopen(request, timeout=PATIENCE_SECS) as answer:  # noqa: S310 - its scheme is http
            return bytes(answer.read())


def program() -> str:
    """The program that `make test-ha` has installed; elsewhere the test is skipped."""
    path = os.environ.get("MMSTREAM_HOME_ASSISTANT")
    if path is None:
        pytest.skip("no Home Assistant here; `make test-ha` installs one")
    return path


def _keep(storage: Path, key: str, data: dict[str, JsonValue]) -> None:
    record = {"version": 1, "minor_version": 1, "key": key, "data": data}
    (storage / key).write_text(json.dumps(record))


def _mqtt_entry(port: int) -> dict[str, JsonValue]:
    return {
        "entry_id": "mqtt",
        "version": 1,
        "minor_version": 1,
        "domain": "mqtt",
        "title": "mosquitto",
        "data": {"broker": HOST, "port": port, "discovery": True},
        "options": {},
        "pref_disable_new_entities": False,
        "pref_disable_polling": False,
        "source": "user",
        "unique_id": None,
        "disabled_by": None,
    }


def _accounts() -> dict[str, JsonValue]:
    user: dict[str, JsonValue] = {
        "id": _USER,
        "group_ids": ["system-admin"],
        "is_owner": True,
        "is_active": True,
        "name": "test",
        "system_generated": False,
        "local_only": False,
    }
    token: dict[str, JsonValue] = {
        "id": _LOGIN_ID,
        "user_id": _USER,
        "client_id": None,
        "client_name": "test",
        "client_icon": None,
        "token_type": "long_lived_access_token",
        "created_at": "2024-01-01T00:00:00.000000+00:00",
        "access_token_expiration": 315360000.0,
        "token": _KEY,
        "jwt_key": _KEY,
        "last_used_at": None,
        "last_used_ip": None,
        "credential_id": None,
        "version": "2024.3.3",
    }
    groups: list[JsonValue] = [{"id": "system-admin", "name": "Administrators"}]
    return {"users": [user], "groups": groups, "credentials": [], "refresh_tokens": [token]}


def _token() -> str:
    """A JSON Web Token (RFC 7519), signed with the key that the account names."""
    claims = {"iss": _LOGIN_ID, "iat": 1704067200, "exp": 4102444800}
    signed = b".".join(
        _base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    )
    signature = hmac.new(_KEY.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + _base64(signature)).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
