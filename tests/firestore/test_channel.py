"""How a connection is opened."""

from __future__ import annotations

import pytest

from agent.firestore import DatabaseAddress
from agent.firestore.channel import options_of


@pytest.mark.parametrize(("host", "pinged"), [(None, True), ("127.0.0.1:8080", False)])
def test_only_production_is_pinged(host: str | None, pinged: bool) -> None:
    """A plain gRPC server takes a ping in five minutes of silence and hangs up on who sends more."""
    names = {name for name, _ in options_of(DatabaseAddress(project="p", host=host))}
    assert ("grpc.keepalive_time_ms" in names) is pinged


def test_messages_of_any_size_pass() -> None:
    """A page of documents may be larger than gRPC's own four megabytes."""
    for host in (None, "127.0.0.1:8080"):
        options = dict(options_of(DatabaseAddress(project="p", host=host)))
        assert options["grpc.max_receive_message_length"] == options["grpc.max_send_message_length"] == -1
