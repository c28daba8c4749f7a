"""One broker and one Home Assistant for all tests here."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Mosquitto
from ha.home_assistant import HomeAssistant
from ha.program import SHAPES, Form, ours, running


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture(scope="session")
def home(broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HomeAssistant]:
    folder = tmp_path_factory.mktemp("home")
    with HomeAssistant(folder, broker_port=broker.port) as home:
        yield home
        assert home.complaints == []


@pytest.fixture(params=["component", "device"])
def form(request: pytest.FixtureRequest, home: HomeAssistant) -> Form:
    chosen: Form = request.param
    if chosen == "device" and not home.knows_devices:
        pytest.skip("this Home Assistant is older than 2024.11")
    return chosen


@pytest.fixture
def _nothing_is_left(
    broker: Mosquitto, home: HomeAssistant, form: Form, tmp_path: Path
) -> Iterator[None]:
    yield
    del form  # no more than a test that runs needs this
    folder = tmp_path / "clean"
    folder.mkdir()
    with running(folder, broker, "off", {"door": SHAPES}):
        home.wait_until(lambda: not ours(home), "all is taken back")
