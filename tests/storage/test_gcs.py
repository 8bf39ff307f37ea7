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
from tests.storage.conftest import fake_gcs, new_bucket
from tests.storage.relay import Relay, relay_to


class _Answering(BaseHTTPRequestHandler):
    """Answers every request with the server's ``status`` and ``body``, after its ``failures`` of uploads."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        server = self.server
        assert isinstance(server, _Service)
        server.requests.append(self.command)
        body = server.media if "alt=media" in self.path else server.body
        fails = self.command == "POST" and server.failures
        self.send_response(server.failures.pop() if fails else server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815  the base class's names

    def log_message(self, *_: object) -> None:
        return


class _Service(ThreadingHTTPServer):
    status = 503
    body = b"{}"
    media = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.failures: list[int] = []
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
    """503 and 429 are retried for as long as configured, then raised as transient; nothing else is asked meanwhile."""
    service.status = status
    with pytest.raises(Transient) as raised:
        storage_at(service).put("key", [b"x"])
    assert raised.value.reason is reason
    assert service.requests.count("POST") > 1
    assert set(service.requests) == {"POST"}


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


def test_a_download_that_is_not_what_was_stored(service: _Service) -> None:
    """Bytes whose checksum is not the one the service states are an error at the latest at the end."""
    service.status = 200
    service.body = b'{"name": "key", "bucket": "b", "size": "1", "crc32c": "AAAAAA==", "generation": "1"}'
    service.media = b"x"
    with pytest.raises(Permanent) as raised:
        list(storage_at(service).get("key"))
    assert raised.value.reason is PermanentReason.CORRUPT
    assert "gs://b/key" in raised.value.message


@pytest.mark.parametrize("status", [429, 503, 500, 408])
def test_a_service_that_recovers(service: _Service, status: int) -> None:
    """Failures that pass are not seen by the caller: the upload is sent again, the same bytes, and holds."""
    service.body = b'{"name": "key", "bucket": "b", "size": "1", "crc32c": "qTxfkw==", "generation": "1"}'
    service.status = 200
    service.failures = [status, status]
    assert storage_at(service, retry_seconds=20).put("key", [b"x"]).size_bytes == 1
    assert service.requests.count("POST") == 3


_LARGE = [bytes([number]) * 1_000_000 for number in range(12)]  # resumable: sent in a session, not in one request


@pytest.fixture
def relayed() -> Iterator[tuple[Relay, GcsStorage]]:
    """A bucket behind a wire that can be cut."""
    with relay_to() as relay, fake_gcs(f"http://{relay.host}") as endpoint:
        relay.target = endpoint.removeprefix("http://")
        bucket = new_bucket(endpoint)
        yield relay, GcsStorage(name="gcs", bucket=bucket, endpoint=f"http://{relay.host}", retry_seconds=6)


@pytest.mark.gcs
@pytest.mark.parametrize("chunks", [[b"small"], _LARGE], ids=["one request", "a session"])
def test_an_upload_over_a_wire_that_is_cut_once(relayed: tuple[Relay, GcsStorage], chunks: list[bytes]) -> None:
    """A connection that breaks anywhere in the middle of an upload costs a retry: the object is there, whole."""
    relay, storage = relayed
    size = sum(map(len, chunks))
    for number, share in enumerate((0.1, 0.5, 0.9)):
        relay.drop_after(int(size * share) + 300)
        storage.put(f"key{number}", chunks)
        relay.pass_all()
        assert b"".join(storage.get(f"key{number}")) == b"".join(chunks)
    assert len(storage.list()) == 3


@pytest.mark.gcs
def test_an_upload_over_a_wire_that_is_cut_for_good(relayed: tuple[Relay, GcsStorage]) -> None:
    """If it breaks every time, the upload fails as transient, and nothing of the object is listed or there."""
    relay, storage = relayed
    relay.drop_after(3_000_000, times=1000)
    with pytest.raises(Transient) as raised:
        storage.put("key", _LARGE)
    relay.pass_all()
    assert raised.value.reason is TransientReason.UNAVAILABLE
    assert storage.list() == []
    assert not storage.exists("key")
    storage.put("key", _LARGE)
    assert b"".join(storage.get("key")) == b"".join(_LARGE)


def test_no_server_at_the_address() -> None:
    """Nothing listening is transient: it may come back."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    storage = GcsStorage(name="gcs", bucket="b", endpoint=f"http://127.0.0.1:{port}", retry_seconds=0.5)
    with pytest.raises(Transient) as raised:
        storage.list()
    assert raised.value.reason is TransientReason.UNAVAILABLE
