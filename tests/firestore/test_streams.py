"""Server streams over libcurl, against servers of gRPC's own library and against servers that are none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import google.auth.exceptions
import grpc
import pycurl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import SystemClock
from agent.faults import Misconfigured
from agent.firestore import DatabaseAddress
from agent.firestore.streams import Call, Credentials, Deframer, Heads, StreamFailed, Streams, require_http2
from tests.firestore.stream_server import Answer, StreamServer, new_identity, serving

_errors: Any = google.auth.exceptions  # it has no types
_METADATA = (("x-goog-request-params", "database=d"),)


def _framed(message: bytes, compressed: int = 0) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


# --- messages ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=40)), st.data())
def test_messages_are_the_same_wherever_they_were_cut(messages: list[bytes], data: st.DataObject) -> None:
    """HTTP/2 cuts a body where it likes: within the length of a message, or fifty messages to a piece."""
    body = b"".join(map(_framed, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)))))
    pieces = [body[begin:end] for begin, end in pairwise([0, *cuts, len(body)])]
    groups = data.draw(st.lists(st.integers(1, 4), min_size=len(pieces), max_size=len(pieces)))
    deframer = Deframer()
    found: list[bytes] = []
    for size in groups:
        found += deframer.feed(pieces[:size])
        pieces = pieces[size:]
    assert found == messages
    assert not deframer.within


def test_a_message_that_has_begun_is_known_to_be_unfinished() -> None:
    """So that a stream that ends there does not pass for whole."""
    deframer = Deframer()
    assert deframer.feed([_framed(b"whole") + _framed(b"half")[:-1]]) == [b"whole"]
    assert deframer.within
    assert deframer.feed([b"f"]) == [b"half"]
    assert not deframer.within


def test_a_compressed_message_is_refused() -> None:
    """None was offered; taking it as it is would make rubbish of a document."""
    with pytest.raises(StreamFailed, match="compressed"):
        Deframer().feed([_framed(b"x", compressed=1)])


# --- status -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "http", "code", "details"),
    [
        ([b"HTTP/2 200\r\n", b"grpc-status: 0\r\n"], 200, grpc.StatusCode.OK, ""),
        (
            [b"grpc-status: 9\r\n", b"grpc-message: \xc3\xa4 100%25 %C3%A4\r\n"],
            200,
            grpc.StatusCode.FAILED_PRECONDITION,
            "Ã¤ 100% ä",
        ),
        ([b"grpc-status: 99\r\n"], 200, grpc.StatusCode.UNKNOWN, ""),
        ([b"content-type: application/grpc\r\n"], 200, grpc.StatusCode.INTERNAL, "ended without a status"),
        ([b"Content-Type: text/html\r\n"], 503, grpc.StatusCode.UNAVAILABLE, "HTTP 503, text/html"),
        ([], 404, grpc.StatusCode.UNIMPLEMENTED, "HTTP 404, of no type"),
        ([], 403, grpc.StatusCode.PERMISSION_DENIED, "HTTP 403"),
        ([], 302, grpc.StatusCode.UNKNOWN, "HTTP 302"),
    ],
)
def test_the_status_of_an_answer(lines: list[bytes], http: int, code: grpc.StatusCode, details: str) -> None:
    """The trailers say it; where there are none, what stands between us and the server said something else."""
    found, said = Heads.of(lines).status(http)
    assert found is code
    assert details in said


# --- calls ------------------------------------------------------------------------------------------------------------


class Client:
    """Streams to one server."""

    def __init__(self, host: str, credentials: Credentials | None = None) -> None:
        address = DatabaseAddress(project="p", host=host)
        self.streams = Streams(address, _METADATA, credentials, clock=SystemClock())

    def call(self, request: bytes = b"", *, deadline: float = 20.0) -> Call:
        return self.streams.call("RunQuery", request, deadline)

    def all(self, request: bytes = b"", *, deadline: float = 20.0) -> list[bytes]:
        with closing(self.call(request, deadline=deadline)) as call:
            return list(chain.from_iterable(call.messages()))

    def failure(self, request: bytes = b"", *, deadline: float = 20.0) -> StreamFailed:
        with pytest.raises(StreamFailed) as caught:
            self.all(request, deadline=deadline)
        return caught.value


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _server(stack: ExitStack, answer: Answer, **options: Any) -> StreamServer:
    return stack.enter_context(serving(answer, **options))


def _client(stack: ExitStack, server: StreamServer, credentials: Credentials | None = None) -> Client:
    client = Client(server.host, credentials)
    stack.callback(client.streams.close)
    return client


def _client_of_a_silent_server(stack: ExitStack) -> Client:
    """It says one thing and then nothing until the test is over."""
    over = threading.Event()

    def answer(_request: bytes, _context: Any) -> Iterator[bytes]:
        yield b"one"
        over.wait()

    client = _client(stack, _server(stack, answer))
    stack.callback(over.set)
    return client


def test_messages_of_every_size_arrive_in_order(stack: ExitStack) -> None:
    """Empty ones and those of more than a megabyte, between small ones."""
    sizes = [0, 1, 70, 16_379, 16_384, 1_100_000, 0, 5] + [80] * 5000

    def answer(request: bytes, _context: Any) -> Iterator[bytes]:
        for number, size in enumerate(sizes):
            yield (request + bytes([number % 251])) * size

    client = _client(stack, _server(stack, answer))
    assert client.all(b"r") == [b"r%c" % (number % 251) * size for number, size in enumerate(sizes)]


def test_an_empty_stream_is_empty(stack: ExitStack) -> None:
    """OK without a message is OK; what it means is for the caller."""
    assert _client(stack, _server(stack, lambda *_: iter(()))).all() == []


def test_headers_deadline_and_a_large_request_arrive(stack: ExitStack) -> None:
    """A BatchGet of thousands of names is more than one HTTP/2 frame and more than one window."""
    remaining: list[float] = []

    def answer(request: bytes, context: Any) -> Iterator[bytes]:
        remaining.append(context.time_remaining())
        yield len(request).to_bytes(4, "big")

    server = _server(stack, answer)
    assert _client(stack, server).all(bytes(1_000_000), deadline=40.0) == [(1_000_000).to_bytes(4, "big")]
    assert server.headers["x-goog-request-params"] == "database=d"
    assert 20 < remaining[0] <= 40


@pytest.mark.parametrize("before", [0, 3])
def test_the_servers_status_and_words_arrive(stack: ExitStack, before: int) -> None:
    """Also when the answer is nothing but a status, which then stands in the headers."""

    def answer(_request: bytes, context: Any) -> Iterator[bytes]:
        yield from [b"x"] * before
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "needs an index: https://e.org/ä?a=b%20c")

    client = _client(stack, _server(stack, answer))
    got: list[bytes] = []
    with closing(client.call()) as call, pytest.raises(StreamFailed) as caught:
        for messages in call.messages():
            got += messages
    assert got == [b"x"] * before
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details == "needs an index: https://e.org/ä?a=b%20c"


def test_a_silent_server_meets_the_deadline(stack: ExitStack) -> None:
    """Ours, not the server's: it may not be there any more."""
    client = _client_of_a_silent_server(stack)
    began = time.monotonic()
    failure = client.failure(deadline=0.4)
    assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 5


def test_nobody_there_is_unavailable() -> None:
    """And says where nobody is."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        failure = Client(f"127.0.0.1:{port}").failure()
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert str(port) in failure.details


def test_a_server_that_dies_in_the_middle_is_unavailable(stack: ExitStack) -> None:
    """What came before has been handed out."""

    def answer(_request: bytes, context: Any) -> Iterator[bytes]:
        yield b"one"
        while context.is_active():
            time.sleep(0.05)

    running = ExitStack()
    client = _client(stack, _server(running, answer))
    got: list[bytes] = []
    with closing(client.call()) as call, pytest.raises(StreamFailed) as caught:
        for messages in call.messages():
            got += messages
            running.close()
    assert got == [b"one"]
    assert caught.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_leaving_a_call_tells_the_server(stack: ExitStack) -> None:
    """A scan that is given up must not go on over there."""

    def answer(_request: bytes, context: Any) -> Iterator[bytes]:
        while context.is_active():
            yield bytes(1000)

    server = _server(stack, answer)
    with closing(_client(stack, server).call()) as call:
        assert next(call.messages())
    assert server.cancelled.wait(10)


def test_who_does_not_read_stops_the_server(stack: ExitStack) -> None:
    """Flow control: a reader that pauses holds windows' worth, not the database."""
    sent = 0

    def answer(_request: bytes, context: Any) -> Iterator[bytes]:
        nonlocal sent
        while context.is_active():
            sent += 1
            yield bytes(100_000)

    with closing(_client(stack, _server(stack, answer)).call()) as call:
        next(call.messages())
        before = -1
        while before != sent:  # until it stands still
            before = sent
            time.sleep(0.5)
        assert sent < 400  # 40 MB


def test_closing_the_channel_ends_a_call_that_waits(stack: ExitStack) -> None:
    """From another thread, while the server is silent."""
    client = _client_of_a_silent_server(stack)
    with closing(client.call()) as call:
        messages = call.messages()
        next(messages)
        threading.Timer(0.2, client.streams.close).start()
        with pytest.raises(StreamFailed) as caught:
            next(messages)
    assert caught.value.code is grpc.StatusCode.CANCELLED
    with pytest.raises(ValueError, match="closed"):
        client.call()


def test_a_connection_is_used_again(stack: ExitStack) -> None:
    """After an end that was one; TLS would cost each small query its handshakes."""
    server = _server(stack, lambda request, _: iter([request]))
    client = _client(stack, server)
    assert [client.all(b"%d" % number) for number in range(5)] == [[b"%d" % number] for number in range(5)]
    assert len(set(server.peers)) == 1


def test_a_connection_that_died_meanwhile_is_replaced(stack: ExitStack) -> None:
    """A server that was restarted between two calls is not noticed."""
    with ExitStack() as first:
        server = _server(first, lambda *_: iter([b"first"]))
        client = _client(stack, server)
        assert client.all() == [b"first"]
        port = int(server.host.rpartition(":")[2])
    _server(stack, lambda *_: iter([b"second"]), port=port)
    assert client.all() == [b"second"]


def test_calls_side_by_side_do_not_mix(stack: ExitStack) -> None:
    """Each has a connection, and what it asked for."""
    client = _client(stack, _server(stack, lambda request, _: iter([request] * 2_000)))
    found: dict[int, set[bytes]] = {}

    def read(number: int) -> None:
        found[number] = set(client.all(b"%d" % number))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: {b"%d" % number} for number in range(6)}


def test_a_server_of_another_kind_is_named(stack: ExitStack) -> None:
    """HTTP/1.1, as a proxy's error page or a wrong port."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    failure = Client(f"127.0.0.1:{listener.getsockname()[1]}").failure()
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert failure.details


def test_a_libcurl_without_http2_is_named() -> None:
    """A distribution's own build may lack it."""
    with pytest.raises(Misconfigured, match="HTTP/2") as caught:
        require_http2(pycurl.version_info()[4] & ~pycurl.VERSION_HTTP2, "PycURL/7.0 libcurl/7.0")
    assert "pip install" in caught.value.hint


# --- TLS and tokens ---------------------------------------------------------------------------------------------------


class Token:
    """Credentials that hand out tokens one after the other, or fail."""

    def __init__(self, failure: Exception | None = None) -> None:
        self._failure = failure
        self.given = 0

    def before_request(self, _request: Any, _method: str, _url: str, headers: dict[str, str], /) -> None:
        if self._failure is not None:
            raise self._failure
        self.given += 1
        headers["authorization"] = f"Bearer {self.given}"


def test_tls_and_a_token_for_every_call(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The roots that gRPC is told to trust are trusted here, too."""
    identity = new_identity()
    (tmp_path / "roots.pem").write_bytes(identity.certificate)
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(tmp_path / "roots.pem"))
    server = _server(stack, lambda request, _: iter([request] * 3), identity=identity)
    client = _client(stack, server, Token())
    for number in (1, 2):
        assert client.all(b"r") == [b"r"] * 3
        assert server.headers["authorization"] == f"Bearer {number}"
    assert len(set(server.peers)) == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is never sent to somebody who is not Google."""
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    server = _server(stack, lambda request, _: iter([request]), identity=new_identity())
    failure = _client(stack, server, Token()).failure()
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert "certificate" in failure.details
    assert not server.headers


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (_errors.TransportError("no route"), grpc.StatusCode.UNAVAILABLE),
        (_errors.RefreshError("busy", retryable=True), grpc.StatusCode.UNAVAILABLE),
        (_errors.RefreshError("revoked"), grpc.StatusCode.UNAUTHENTICATED),
    ],
)
def test_a_token_that_is_not_to_be_had(failure: Exception, code: grpc.StatusCode) -> None:
    """What passes is tried again, a revoked key is a person's business."""
    caught = Client("localhost:1", Token(failure)).failure()
    assert caught.code is code
    assert str(failure.args[0]) in caught.details
