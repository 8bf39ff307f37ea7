"""The channel: bytes out, bytes in, every call measured. Single replies by gRPC, streams by libcurl.

Calls carry the routing headers, a deadline and, against an emulator, sandbox or proxy, the ``owner`` token that
Google's tools use there. Nothing is retried here (see :mod:`agent.firestore.retry`) and nothing is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import quote

import google.auth
import google.auth.exceptions
import google.auth.transport.grpc
import google.auth.transport.requests
import grpc

from agent.clock import Clock
from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore.address import DatabaseAddress
from agent.firestore.errors import classified, from_rpc_error
from agent.firestore.protos import SERVICE
from agent.firestore.streams import Call, Credentials, StreamFailed, Streams
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import DB_OPERATION_DURATION

_SCOPE = "https://www.googleapis.com/auth/datastore"
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # gRPC's own back-off grows to two minutes, longer than a rollback may wait for a server that came back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Channels with equal options share one connection; a process with several of them wants several.
    ("grpc.use_local_subchannel_pool", 1),
]

# What Google's own clients ask of its front ends. A plain gRPC server, Google's emulator among them, allows one ping in
# five minutes of silence and hangs up on who sends more ("too_many_pings"): at full size, on a busy machine, the
# emulator was silent for minutes before its first document, and the scan failed each time it was asked again.
_KEEPALIVE: list[tuple[str, Any]] = [("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000)]


def _identity(message: bytes) -> bytes:
    return message


class Wire(Protocol):
    """What scans need of a channel; see :class:`Channel`."""

    @property
    def address(self) -> DatabaseAddress: ...

    def unary(self, method: str, request: bytes, *, summary: str = "", deadline: float | None = None) -> bytes: ...

    def stream(
        self, method: str, request: bytes, *, summary: str = "", deadline: float | None = None
    ) -> Iterator[bytes]: ...


class Channel:
    """One connection to one database; safe to share between threads, not across ``fork``.

    Args:
        deadline: seconds a call may take unless it says otherwise.

    Raises:
        Misconfigured: production is asked for and there are no credentials.
    """

    def __init__(self, address: DatabaseAddress, *, telemetry: Telemetry, clock: Clock, deadline: float = 60.0) -> None:
        self.address = address
        self._telemetry = telemetry
        self._clock = clock
        self._deadline = deadline
        credentials = credentials_for(address)
        self._channel = open_channel(address, credentials)
        self._metadata: tuple[tuple[str, str], ...] = (
            ("google-cloud-resource-prefix", address.root),
            ("x-goog-request-params", f"database={quote(address.root, safe='')}"),
        )
        if address.host is not None:
            self._metadata += (("authorization", "Bearer owner"),)
        self._streams = Streams(address, self._metadata, credentials, clock=clock)
        self._unary: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def unary(self, method: str, request: bytes, *, summary: str = "", deadline: float | None = None) -> bytes:
        """One request, one reply.

        Args:
            method: e.g. ``BatchWrite``.
            summary: what the call is for, as ``db.query.summary`` of the metric.
            deadline: seconds.

        Raises:
            RunbookdError: see :mod:`agent.firestore.errors`.
        """
        call = self._unary.get(method)
        if call is None:
            call = self._unary[method] = self._channel.unary_unary(
                f"/{SERVICE}/{method}", request_serializer=_identity, response_deserializer=_identity
            )
        began = self._clock.monotonic()
        try:
            reply: bytes = call(request, timeout=deadline or self._deadline, metadata=self._metadata)
        except grpc.RpcError as error:
            translated = from_rpc_error(error, operation=method, address=self.address)
            self._measured(method, summary, self._clock.monotonic() - began, str(translated.reason))
            raise translated from error
        self._measured(method, summary, self._clock.monotonic() - began)
        return reply

    def stream(
        self, method: str, request: bytes, *, summary: str = "", deadline: float | None = None
    ) -> Iterator[bytes]:
        """One request, many replies; ending normally means that the server ended the call with OK.

        The duration that is recorded is the time spent waiting for the server: a caller that takes a minute to store
        what it got doesn't make the database slow. Closing the iterator cancels the call.

        Raises:
            RunbookdError: see :mod:`agent.firestore.errors`; what came before the error has been yielded.
        """
        call: Call | None = None
        failure = ""
        try:
            call = self._streams.call(method, request, deadline or self._deadline)
            for messages in call.messages():
                yield from messages
        except StreamFailed as error:
            translated = classified(error.code, error.details, operation=method, address=self.address)
            failure = str(translated.reason)
            raise translated from error
        finally:
            if call is not None:
                call.close()
            self._measured(method, summary, call.waited if call is not None else 0.0, failure)

    def close(self) -> None:
        self._streams.close()
        self._channel.close()

    def _measured(self, method: str, summary: str, seconds: float, error: str = "") -> None:
        attributes = {"db.system.name": "gcp.firestore", "db.operation.name": method}
        if summary:
            attributes["db.query.summary"] = summary
        if error:
            attributes["error.type"] = error
        self._telemetry.record(DB_OPERATION_DURATION, seconds, attributes)


def options_of(address: DatabaseAddress) -> list[tuple[str, Any]]:
    """The channel's options: pings for production alone, whose dead connections nothing else would show."""
    if address.host is None:
        return [*_OPTIONS, *_KEEPALIVE]
    # A proxy set for the web is not meant for a server on this machine.
    return [*_OPTIONS, ("grpc.enable_http_proxy", 0)]


def credentials_for(address: DatabaseAddress) -> Credentials | None:
    """What production knows us by; nothing for a server that asks for none.

    Raises:
        Misconfigured: CREDENTIALS.
    """
    if address.host is not None:
        return None
    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise Misconfigured(
            MisconfiguredReason.CREDENTIALS,
            f"there are no credentials for {address}",
            hint="set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file, or FIRESTORE_EMULATOR_HOST",
        ) from error
    found: Credentials = credentials  # google.auth has no types
    return found


def open_channel(address: DatabaseAddress, credentials: Credentials | None) -> grpc.Channel:
    """A channel to ``address``, with TLS where there are credentials."""
    if credentials is None:
        return grpc.insecure_channel(address.target, options=options_of(address))
    transport: Any = google.auth.transport
    plugin = transport.grpc.AuthMetadataPlugin(credentials, transport.requests.Request())
    return grpc.secure_channel(
        address.target,
        grpc.composite_channel_credentials(grpc.ssl_channel_credentials(), grpc.metadata_call_credentials(plugin)),
        options=options_of(address),
    )
