"""A gRPC server whose one stream does what a test tells it to, and what TLS needs on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.firestore.protos import SERVICE

Answer = Callable[[bytes, Any], Iterator[bytes]]


@dataclass
class StreamServer:
    """What a running server was asked.

    Args:
        answer: takes the request and gRPC's context.
        peers: the connections that calls came by, one each call.
        headers: of the newest call.
    """

    answer: Answer
    host: str = ""
    peers: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def take(self, request: bytes, context: Any) -> Iterator[bytes]:
        self.peers.append(context.peer())
        self.headers = dict(context.invocation_metadata())
        context.add_callback(self.cancelled.set)
        yield from self.answer(request, context)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A key and a certificate for ``localhost`` that vouches for itself, as PEM."""

    key: bytes
    certificate: bytes


@contextmanager
def serving(answer: Answer, *, identity: Identity | None = None, port: int = 0) -> Iterator[StreamServer]:
    """A running server; with an identity it speaks TLS alone."""
    server = StreamServer(answer)
    with ThreadPoolExecutor(8) as pool:
        running = grpc.server(pool)
        handler = grpc.unary_stream_rpc_method_handler(server.take, request_deserializer=None, response_serializer=None)
        running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"RunQuery": handler}),))
        if identity is None:
            server.host = f"127.0.0.1:{running.add_insecure_port(f'127.0.0.1:{port}')}"
        else:
            credentials = grpc.ssl_server_credentials([(identity.key, identity.certificate)])
            server.host = f"localhost:{running.add_secure_port('localhost:0', credentials)}"
        running.start()
        try:
            yield server
        finally:
            running.stop(None).wait()


def new_identity() -> Identity:
    """Good for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Identity(
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
    )
