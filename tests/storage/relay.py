"""A TCP relay that does something at a chosen byte: kills a process as ``kill -9`` does, or drops the connection.

Bytes are counted in both directions and over all connections, so that any moment of an operation on the wire can be
chosen, also one in the middle of a request.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CHUNK = 4096  # small, so that the chosen byte is met closely


class Relay:
    """Passes bytes on between whoever connects to ``host`` and ``target``; the latter may be set later."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.target = ""
        self.passed = 0
        self._limit: int | None = None
        self._then: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._ready.set()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True, name="relay").start()

    def hold(self) -> None:
        """Let nothing pass until :meth:`kill_after` or :meth:`pass_all`."""
        self._ready.clear()

    def kill_after(self, passed: int | None, pid: int) -> None:
        """Kill the process once that many more bytes have passed; never with ``None``."""
        self._arm(passed, lambda: os.kill(pid, signal.SIGKILL))

    def drop_after(self, passed: int, times: int = 1) -> None:
        """Drop all connections once that many more bytes have passed, and again after as many."""

        def drop() -> None:
            with self._lock:
                opened = list(self._open)
            for connection in opened:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            if times > 1:
                self.drop_after(passed, times - 1)

        self._arm(passed, drop)

    def pass_all(self) -> None:
        """Do nothing but pass bytes on."""
        self._arm(None, lambda: None)

    def close(self) -> None:
        self._listener.close()
        with self._lock:
            opened = list(self._open)
        for connection in opened:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _arm(self, passed: int | None, then: Callable[[], None]) -> None:
        with self._lock:
            self.passed, self._limit, self._then = 0, passed, then
        self._ready.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._ready.wait()
                host, _, port = self.target.rpartition(":")
                try:
                    server = socket.create_connection((host, int(port)))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._open |= {client, server}
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True, name="relay-pump").start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if (then := self._count(len(data))) is not None:
                    then()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            both = {source, sink} <= self._open
            self._open -= {source, sink}
        if both:  # the other direction's pump ends by the shutdown and finds nothing to close
            return
        for end in (source, sink):
            end.close()

    def _count(self, size: int) -> Callable[[], None] | None:
        """What is to be done now, if the limit was reached by these bytes."""
        with self._lock:
            self.passed += size
            if self._limit is None or self.passed < self._limit:
                return None
            self._limit = None
            return self._then


@contextmanager
def relay_to(target: str = "") -> Iterator[Relay]:
    """A relay to ``host:port``, gone afterwards."""
    relay = Relay()
    relay.target = target
    try:
        yield relay
    finally:
        relay.close()
