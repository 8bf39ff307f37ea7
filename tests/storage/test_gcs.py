"""What only a bucket can get wrong: it is missing, the service is down, the bytes are damaged."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
    Permanent,
    PermanentReason,
    Transient,
    TransientReason,
)
from agent.storage import GcsStorage


class _Answering(BaseHTTPRequestHandler):
    """Answers every request with the server's ``status`` and ``body``."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        server = self.server
        assert isinstance(server, _Service)
        server.requests.append(self.command)
        self.send_response(server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        self.wfile.write(server.body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815  the base class's names

    def log_message(self, *_: object) -> None:
        return


class _Service(ThreadingHTTPServer):
    status = 503
    body = b"{}"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.requests: list[str] = []


@pytest.fixture
def service() -> Iterator[_Service]:
    """A service that answers what a test tells it to."""
    server = _Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def storage_at(service: _Service, retry_seconds: float = 2.0) -> GcsStorage:
    endpoint = f"http://127.0.0.1:{service.server_address[1]}"
    return GcsStorage(name="gcs", bucket="b", endpoint=endpoint, retry_seconds=retry_seconds)


@pytest.mark.gcs
def test_a_missing_bucket(gcs_endpoint: str) -> None:
    """A bucket that does not exist is a configuration error that names it."""
    storage = GcsStorage(name="gcs", bucket="no-such-bucket", endpoint=gcs_endpoint, retry_seconds=2)
    for call in (lambda: storage.put("key", [b"x"]), lambda: storage.list()):
        with pytest.raises(Misconfigured) as raised:
            call()
        assert raised.value.reason is MisconfiguredReason.ADDRESS
        assert "no-such-bucket" in raised.value.message


@pytest.mark.gcs
def test_the_environment_names_the_server(gcs_endpoint: str, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """STORAGE_EMULATOR_HOST is honoured, without credentials."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_endpoint)
    storage = GcsStorage(name="gcs", bucket=gcs_bucket, project="test")
    storage.put("key", [b"value"])
    assert b"".join(storage.get("key")) == b"value"


@pytest.mark.gcs
def test_a_prefix_is_a_world_of_its_own(gcs_endpoint: str, gcs_bucket: str) -> None:
    """Two prefixes of one bucket don't see each other's objects."""
    one = GcsStorage(name="one", bucket=gcs_bucket, endpoint=gcs_endpoint, prefix="one")
    two = GcsStorage(name="two", bucket=gcs_bucket, endpoint=gcs_endpoint, prefix="two", capacity_bytes=40)
    one.put("key", [b"value"])
    assert two.list() == []
    two.put("key", [b"another"])
    assert [item.key for item in one.list()] == ["key"]
    assert two.usage().used_bytes == 7
    assert two.usage().ratio == 0.175


@pytest.mark.parametrize(
    ("status", "reason"),
    [(503, TransientReason.UNAVAILABLE), (429, TransientReason.RATE_LIMITED)],
)
def test_a_service_that_is_down_is_retried_and_then_named(
    service: _Service, status: int, reason: TransientReason
) -> None:
    """503 and 429 are retried for as long as configured, then raised as transient."""
    service.status = status
    with pytest.raises(Transient) as raised:
        storage_at(service).put("key", [b"x"])
    assert raised.value.reason is reason
    assert service.requests.count("POST") > 1


def test_a_forbidden_bucket(service: _Service) -> None:
    """403 says which permission is missing and is not retried."""
    service.status = 403
    with pytest.raises(Misconfigured) as raised:
        storage_at(service).put("key", [b"x"])
    assert raised.value.reason is MisconfiguredReason.CREDENTIALS
    assert service.requests.count("POST") == 1


def test_a_wrong_checksum_of_an_upload(service: _Service) -> None:
    """An upload whose stored checksum is not that of the bytes sent is an error."""
    service.status = 200
    service.body = b'{"name": "key", "bucket": "b", "size": "1", "crc32c": "AAAAAA==", "generation": "1"}'
    with pytest.raises(Permanent) as raised:
        storage_at(service).put("key", [b"x"])
    assert raised.value.reason is PermanentReason.CORRUPT


def test_no_server_at_the_address() -> None:
    """Nothing listening is transient: it may come back."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    storage = GcsStorage(name="gcs", bucket="b", endpoint=f"http://127.0.0.1:{port}", retry_seconds=0.5)
    with pytest.raises(Transient) as raised:
        storage.list()
    assert raised.value.reason is TransientReason.UNAVAILABLE
