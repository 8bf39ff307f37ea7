"""The command line's client against the real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from agent.api import ApiServer, create_app
from agent.api.client import DaemonClient
from agent.faults import Permanent, PermanentReason, Transient, TransientReason
from agent.samples import Exemplar, Sample, labels_of
from tests.api.conftest import START, World


@pytest.fixture
def client(world: World) -> Iterator[DaemonClient]:
    server = ApiServer(create_app(world.sources), host="127.0.0.1", port=0)
    server.start()
    with DaemonClient(server.url) as found:
        yield found
    server.stop()


def test_values_come_with_their_labels(world: World, client: DaemonClient) -> None:
    """A vector at a moment, as labels and number."""
    world.deliver(error_ratio=0.25)
    (found,) = client.query("error_ratio", START)
    assert found == ({"__name__": "error_ratio", "job": "app"}, 0.25)
    assert client.evaluate("1 + 1")["result"][1] == "2"


def test_exemplars_come_with_their_trace(world: World, client: DaemonClient) -> None:
    """The operations behind a histogram's buckets."""
    labels = labels_of("latency_bucket", {"le": "0.5"})
    exemplar = Exemplar(trace_id="abc", value=0.4, timestamp=START.timestamp())
    world.store.ingest("app", START.timestamp(), [Sample(labels, 1.0, exemplar)])
    ((found, exemplars),) = client.exemplars("latency_bucket", START - timedelta(minutes=1), START)
    assert (found["le"], exemplars) == ("0.5", [exemplar])


def test_a_refusal_is_told_in_the_daemons_words(client: DaemonClient) -> None:
    """A mistake in the expression won't go away by itself."""
    with pytest.raises(Permanent) as refused:
        client.evaluate("sum(")
    assert refused.value.reason is PermanentReason.INVALID


def test_nobody_there_is_said_with_what_to_do() -> None:
    """No daemon at the address: start it, or say where it is."""
    with DaemonClient("http://127.0.0.1:1") as client, pytest.raises(Transient) as missing:
        client.evaluate("up")
    assert missing.value.reason is TransientReason.UNAVAILABLE
    assert "runbookd run" in missing.value.hint
