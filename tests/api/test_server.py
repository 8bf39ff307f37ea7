"""The server: the port is taken at once, errors name it, stopping frees it."""

from __future__ import annotations

import socket

import httpx
import pytest

from agent.api import ApiServer, create_app
from agent.faults import Misconfigured, MisconfiguredReason
from tests.api.conftest import World


def test_serves_and_stops(world: World) -> None:
    """Any free port, told by its address; after the stop nobody answers."""
    server = ApiServer(create_app(world.sources), host="127.0.0.1", port=0)
    server.start()
    assert httpx.get(f"{server.url}healthz", timeout=10.0).status_code == 200
    server.stop()
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{server.url}healthz", timeout=2.0)


def test_a_port_in_use_is_named(world: World) -> None:
    """Before anything runs, with the port and what to do."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Misconfigured) as caught:
            ApiServer(create_app(world.sources), host="127.0.0.1", port=port)
    assert caught.value.reason is MisconfiguredReason.PORT_IN_USE
    assert str(port) in caught.value.message
    assert "api.port" in caught.value.hint


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_a_host_of_another_machine_is_refused(world: World, host: str) -> None:
    """An address that isn't this machine's, or no address at all, is a setting to correct."""
    with pytest.raises(Misconfigured) as caught:
        ApiServer(create_app(world.sources), host=host, port=0)
    assert caught.value.reason is MisconfiguredReason.ADDRESS
    assert host in caught.value.message


def test_a_server_that_never_started_can_be_stopped(world: World) -> None:
    """A start that fails elsewhere leaves the port free."""
    server = ApiServer(create_app(world.sources), host="127.0.0.1", port=0)
    server.stop()
    ApiServer(create_app(world.sources), host="127.0.0.1", port=server.port).stop()


def test_an_address_for_everybody_is_shown_as_this_machine(world: World) -> None:
    """0.0.0.0 can be listened on but not be opened in a browser."""
    server = ApiServer(create_app(world.sources), host="0.0.0.0", port=0)
    assert server.url == f"http://127.0.0.1:{server.port}/"
    server.stop()
