"""What every recipe that streams is made of."""

import socket

import pytest

from mmstream.errors import ConfigError
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration
from mmstream.web.settings import WebSettings


def test_a_port_in_use_ends_only_a_run_whose_configuration_names_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = WebSettings(port=other.getsockname()[1])
        named = Configuration.model_construct(_fields_set={"web"}, sources={}, web=taken)
        with pytest.raises(ConfigError, match=f":{taken.port} is in use"):
            graph.web(named)
        default = Configuration.model_construct(_fields_set=set(), sources={}, web=taken)
        assert graph.web(default) is None
    (record,) = caplog.records
    assert f"no metrics are served: web: 127.0.0.1:{taken.port} is in use" in record.getMessage()


def test_no_web_is_no_web() -> None:
    assert graph.web(Configuration.model_construct(sources={}, web=False)) is None
