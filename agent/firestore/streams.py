"""Server streams: one request, many replies, received by libcurl.

A scan is one message for each document, and gRPC's Python library hands over each at a cost of 7 us: more than a key
costs Google's emulator to send, and a third of what a backup spends on a document. On the wire a gRPC stream is a POST
over HTTP/2 whose body is messages with five bytes in front of each, and whose trailers hold the status
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). libcurl receives that in pieces of up to 16 KiB;
receiving and cutting up cost 1.3 us a message. Calls with a single reply stay with gRPC, see
:mod:`agent.firestore.channel`.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

import certifi
import google.auth.exceptions
import google.auth.transport.requests
import grpc
import pycurl

from agent.clock import Clock
from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore.address import DatabaseAddress
from agent.firestore.errors import status_code
from agent.firestore.protos import SERVICE

_HEAD = 5  # bytes before a message: whether it is compressed, and its length
_LOOK_S = 0.25  # how often a waiting call sees whether its channel was closed
_CONNECT_MS = 20_000  # as gRPC
_BUFFER = 128 * 1024
_IDLE_AT_MOST = 16  # connections kept for the next call: as many as one scan has ranges
# Pings of TCP itself, which no server counts. Nothing else would show that the other end is gone.
_TCP_IDLE_S, _TCP_INTERVAL_S = 30, 10

# What an answer without a gRPC status means (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md).
_HTTP = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    429: grpc.StatusCode.UNAVAILABLE,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}


class StreamFailed(Exception):
    """A call that did not end with OK.

    Args:
        code: the server's, or what gRPC's own library says where no server answers.
        details: what is known of it.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details


class Credentials(Protocol):
    """What is needed of :class:`google.auth.credentials.Credentials`."""

    def before_request(self, request: Any, method: str, url: str, headers: dict[str, str], /) -> None:
        """Add the token to ``headers``, a new one if it is about to expire."""


class Deframer:
    """Cuts what arrives into messages, wherever it was cut on its way."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._size = 0
        self._needed = _HEAD

    @property
    def within(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._size > 0

    def feed(self, pieces: Sequence[bytes]) -> list[bytes]:
        """The messages that are complete.

        Raises:
            StreamFailed: INTERNAL: a message is compressed, which was not offered.
        """
        self._held.extend(pieces)
        self._size += sum(map(len, pieces))
        if self._size < self._needed:  # a document of 1 MiB comes in dozens of pieces: they are put together once
            return []
        data = b"".join(self._held)
        size = self._size
        messages: list[bytes] = []
        at, begin = 0, _HEAD
        while begin <= size:
            if data[at]:
                raise StreamFailed(grpc.StatusCode.INTERNAL, "the server compressed a message without being asked to")
            end = begin + int.from_bytes(data[at + 1 : begin], "big")
            if end > size:
                self._needed = end - at
                break
            messages.append(data[begin:end])
            at, begin = end, end + _HEAD
        else:
            self._needed = _HEAD
        self._held = [data[at:]] if at < size else []
        self._size = size - at
        return messages


@dataclass(frozen=True)
class Heads:
    """The headers of an answer and its trailers, which are one to whoever asks for the status."""

    fields: Mapping[str, str]

    @classmethod
    def of(cls, lines: Sequence[bytes]) -> Heads:
        """From the lines as libcurl gives them, status lines included."""
        fields: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                fields[name.strip().lower()] = value.strip()
        return cls(fields)

    def status(self, http: int) -> tuple[grpc.StatusCode, str]:
        """The call's status; ``http`` is the answer's own, 0 if none came."""
        said = self.fields.get("grpc-status", "")
        if said.isdecimal():
            return status_code(int(said)), unquote(self.fields.get("grpc-message", ""))
        if http == 200:
            return grpc.StatusCode.INTERNAL, "the stream ended without a status"
        kind = self.fields.get("content-type", "of no type")
        return _HTTP.get(http, grpc.StatusCode.UNKNOWN), f"the answer is HTTP {http}, {kind}, where gRPC was expected"


def require_http2(features: int, version: str) -> None:
    """So that it is said when a channel is opened, and not in the middle of a backup.

    Args:
        features: bits of what the libcurl that is installed can do.

    Raises:
        Misconfigured: MISSING_PART: HTTP/2 isn't among them.
    """
    if not features & pycurl.VERSION_HTTP2:
        raise Misconfigured(
            MisconfiguredReason.MISSING_PART,
            f"this pycurl can't speak HTTP/2, which Firestore's streams need: {version}",
            hint="install the one from PyPI, which brings its own libcurl: pip install --force-reinstall pycurl",
        )


class Streams:
    """The streams of one channel, safe to share between threads. A call has a connection to itself, used again later.

    Args:
        metadata: headers of every call.
        credentials: for production; without them the connection is in plain text.

    Raises:
        Misconfigured: see :func:`require_http2`.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        metadata: Sequence[tuple[str, str]],
        credentials: Credentials | None,
        *,
        clock: Clock,
    ) -> None:
        require_http2(pycurl.version_info()[4], pycurl.version)
        scheme = "https" if credentials is not None else "http"
        self._base = f"{scheme}://{address.target}/{SERVICE}"
        self._credentials = credentials
        self.clock = clock
        self._request = google.auth.transport.requests.Request() if credentials is not None else None
        self._headers = [f"{name}: {value}" for name, value in metadata]
        self._idle: list[pycurl.CurlMulti] = []
        self.closed = False

    def call(self, method: str, request: bytes, deadline: float) -> Call:
        """Begin a call.

        Args:
            method: e.g. ``RunQuery``.
            deadline: seconds that it may take altogether, the time included in which nobody reads.

        Raises:
            StreamFailed: there is no token to be had.
            ValueError: the channel is closed.
        """
        if self.closed:
            raise ValueError("the channel is closed")
        url = f"{self._base}/{method}"
        easy = pycurl.Curl()
        easy.setopt(pycurl.URL, url)
        # Of TLS it demands HTTP/2, too (libcurl 8.10).
        easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE)
        easy.setopt(pycurl.POSTFIELDS, b"\0" + len(request).to_bytes(_HEAD - 1, "big") + request)
        milliseconds = max(1, round(deadline * 1000))
        easy.setopt(
            pycurl.HTTPHEADER,
            [
                "content-type: application/grpc",
                "te: trailers",
                "user-agent: runbookd",
                f"grpc-timeout: {milliseconds}m",
                *self._headers,
                *self._authorization(url),
            ],
        )
        easy.setopt(pycurl.TIMEOUT_MS, milliseconds)
        easy.setopt(pycurl.CONNECTTIMEOUT_MS, _CONNECT_MS)
        easy.setopt(pycurl.NOSIGNAL, 1)
        easy.setopt(pycurl.BUFFERSIZE, _BUFFER)
        easy.setopt(pycurl.TCP_KEEPALIVE, 1)
        easy.setopt(pycurl.TCP_KEEPIDLE, _TCP_IDLE_S)
        easy.setopt(pycurl.TCP_KEEPINTVL, _TCP_INTERVAL_S)
        if self._credentials is None:
            easy.setopt(pycurl.PROXY, "")  # a proxy set for the web is not meant for a server on this machine
        else:
            easy.setopt(pycurl.CAINFO, os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH") or certifi.where())
        return Call(self, easy)

    def idle(self) -> pycurl.CurlMulti | None:
        """The connection of an earlier call, if there is one; the server may have hung up since."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def keep(self, multi: pycurl.CurlMulti) -> None:
        """Keep the connection of a call that has ended, for the next one."""
        if self.closed or len(self._idle) >= _IDLE_AT_MOST:
            multi.close()
        else:
            self._idle.append(multi)

    def close(self) -> None:
        """End the connections; calls that wait for their server fail within a quarter of a second."""
        self.closed = True
        while self._idle:
            self._idle.pop().close()

    def _authorization(self, url: str) -> list[str]:
        if self._credentials is None:
            return []
        headers: dict[str, str] = {}
        try:
            self._credentials.before_request(self._request, "POST", url, headers)
        except google.auth.exceptions.GoogleAuthError as error:
            passing = isinstance(error, google.auth.exceptions.TransportError) or getattr(error, "retryable", False)
            code = grpc.StatusCode.UNAVAILABLE if passing else grpc.StatusCode.UNAUTHENTICATED
            raise StreamFailed(code, f"no token: {error}") from error
        return [f"{name}: {value}" for name, value in headers.items()]


class Call:
    """A call on its way; read by one thread."""

    def __init__(self, streams: Streams, easy: pycurl.Curl) -> None:
        self._streams = streams
        self._easy = easy
        idle = streams.idle()
        self._used = idle is not None
        self._multi: pycurl.CurlMulti | None = idle or pycurl.CurlMulti()
        self._pieces: list[bytes] = []
        self._lines: list[bytes] = []
        easy.setopt(pycurl.WRITEFUNCTION, self._pieces.append)
        easy.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        self._multi.add_handle(easy)
        self.waited = 0.0
        """Seconds spent waiting for the server."""

    def messages(self) -> Iterator[list[bytes]]:
        """What arrives, as it arrives. Who stops taking stops the server through flow control.

        Raises:
            StreamFailed: it did not end with OK; what came before has been yielded.
        """
        assert self._multi is not None, "a call is read once"
        multi = self._multi
        monotonic = self._streams.clock.monotonic
        deframer = Deframer()
        active = 1
        while active:
            if self._streams.closed:
                raise StreamFailed(grpc.StatusCode.CANCELLED, "the channel was closed")
            began = monotonic()
            _, active = multi.perform()
            if active and not self._pieces:
                _wait(multi)
            self.waited += monotonic() - began
            if self._pieces:
                arrived = self._pieces.copy()
                self._pieces.clear()  # the list itself is libcurl's
                if found := deframer.feed(arrived):
                    yield found
        _, _, failed = multi.info_read()
        if failed and self._used and not self._lines and failed[0][1] != pycurl.E_OPERATION_TIMEDOUT:
            self._renew()
            yield from self.messages()
            return
        heads = Heads.of(self._lines)
        if failed and "grpc-status" not in heads.fields:
            raise _failure(failed[0][1], failed[0][2])
        code, details = heads.status(self._easy.getinfo(pycurl.RESPONSE_CODE))
        if code is not grpc.StatusCode.OK:
            raise StreamFailed(code, details)
        if deframer.within:
            raise StreamFailed(grpc.StatusCode.INTERNAL, "the stream ended within a message")
        self._multi = None
        multi.remove_handle(self._easy)
        self._streams.keep(multi)

    def _renew(self) -> None:
        """Begin again over a new connection, after one from an earlier call that turned out to be dead."""
        assert self._multi is not None
        self._multi.close()
        self._multi = pycurl.CurlMulti()
        self._multi.add_handle(self._easy)
        self._used = False

    def close(self) -> None:
        """End the call if it has not ended; its connection, too, which tells the server at once.

        Both may be closed already: the garbage collector finalises what hangs together in any order.
        """
        self._easy.close()
        if self._multi is not None:
            self._multi.close()
            self._multi = None


def _wait(multi: pycurl.CurlMulti) -> None:
    """Until there is something to do, a quarter of a second at most."""
    due = multi.timeout()  # milliseconds; -1: libcurl has no opinion
    seconds = min(due / 1000, _LOOK_S) if due >= 0 else _LOOK_S
    readable, writable, _ = multi.fdset()
    if not readable and not writable:  # while a name is resolved; and fdset knows no descriptor from 1,024 on
        seconds = min(seconds, 0.01)
    poll = select.poll()
    for descriptor in {*readable, *writable}:
        wanted = (select.POLLIN if descriptor in readable else 0) | (select.POLLOUT if descriptor in writable else 0)
        poll.register(descriptor, wanted)
    poll.poll(seconds * 1000)


def _failure(error: int, said: str) -> StreamFailed:
    """What gRPC's library would say of a transfer that failed by itself."""
    if error == pycurl.E_OPERATION_TIMEDOUT:
        return StreamFailed(grpc.StatusCode.DEADLINE_EXCEEDED, said)
    return StreamFailed(grpc.StatusCode.UNAVAILABLE, said)
