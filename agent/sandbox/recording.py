"""What all receivers share: a record of what arrived, failures on demand, and an HTTP server on loopback.

Called by :mod:`agent.sandbox.receivers` and :mod:`agent.sandbox.mail`.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from agent.clock import Clock, SystemClock
from agent.faults import Transient, TransientReason

Record = TypeVar("Record")


class Recorder(Generic[Record]):
    """Records in the order of arrival; thread-safe."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._records: list[Record] = []
        self._arrived = threading.Condition()

    @property
    def received(self) -> list[Record]:
        """Everything so far."""
        with self._arrived:
            return list(self._records)

    def wait_for(self, predicate: Callable[[Record], bool], timeout: float = 10.0) -> Record:
        """The first record, past or to come, that satisfies ``predicate``.

        Raises:
            Transient: ``DEADLINE_EXCEEDED`` if none does within ``timeout`` seconds.
        """
        found: list[Record] = []

        def look() -> bool:
            found[:] = [record for record in self._records if predicate(record)][:1]
            return bool(found)

        with self._arrived:
            if not self._arrived.wait_for(look, timeout):
                raise Transient(
                    TransientReason.DEADLINE_EXCEEDED,
                    f"what was waited for did not arrive within {timeout:g} s ({len(self._records)} others did)",
                )
        return found[0]

    def _record(self, record: Record) -> None:
        with self._arrived:
            self._records.append(record)
            self._arrived.notify_all()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An HTTP answer; ``body`` is text or something to be written as JSON."""

    status: int
    body: str | Mapping[str, Any] = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpReceiver(Recorder[Record], ABC):
    """A vendor's HTTP endpoint on loopback; each request is served on a thread of its own.

    Args:
        port: 0 for one that is free.
        clock: stamps the records.
    """

    def __init__(self, *, port: int = 0, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self._failures: deque[Reply] = deque()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_class(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=type(self).__name__, daemon=True
        )

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> Self:
        """Begin to answer; the port is taken since construction."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop answering and free the port, whether it was started or not."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def fail_next(self, status: int, *, times: int = 1, retry_after: int | None = None) -> None:
        """Answer the next ``times`` requests with ``status``, whatever they are; they are recorded as refused.

        Args:
            retry_after: seconds, sent as the Retry-After header.
        """
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._failures.extend([Reply(status=status, body="injected failure", headers=headers)] * times)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def answer(self, path: str, content_type: str, body: bytes) -> Reply:
        """Called on a server thread for each POST."""
        failure = self._failures.popleft() if self._failures else None
        return self._receive(path, content_type, body, failure)

    @abstractmethod
    def _receive(self, path: str, content_type: str, body: bytes, failure: Reply | None) -> Reply:
        """Check one request, record it, and answer it, with ``failure`` if there is one."""


def _handler_class(receiver: HttpReceiver[Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name http.server looks for
            length = int(self.headers.get("Content-Length") or 0)
            content_type = self.headers.get_content_type()
            reply = receiver.answer(self.path, content_type, self.rfile.read(length))
            if isinstance(reply.body, str):
                payload, media_type = reply.body.encode(), "text/plain; charset=utf-8"
            else:
                payload, media_type = json.dumps(reply.body).encode(), "application/json"
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Type": media_type}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            """Say nothing: what arrived is in the record."""

    return Handler
