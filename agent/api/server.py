"""uvicorn in a thread of the daemon."""

from __future__ import annotations

import socket
import threading
import time

import uvicorn
from fastapi import FastAPI

from agent.faults import Misconfigured, MisconfiguredReason, Transient, TransientReason

_PATIENCE_S = 15.0


class ApiServer:
    """Serves ``app`` on ``host:port``; the port is taken at once, so that a clash is known before anything runs.

    Args:
        port: 0 takes any free one; :attr:`url` tells which.

    Raises:
        Misconfigured: PORT_IN_USE, or ADDRESS if the host is not one of this machine.
    """

    def __init__(self, app: FastAPI, *, host: str, port: int) -> None:
        self._socket = _listen(host, port)
        self._host = host
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1, ws="none"
        )
        self._server = _Quiet(config)
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the status page."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "::", "") else self._host
        return f"http://{host}:{self.port}/"

    def start(self) -> None:
        """Begin to answer; returns once it does."""
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True, name="api"
        )
        self._thread.start()
        deadline = time.monotonic() + _PATIENCE_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise Transient(TransientReason.UNAVAILABLE, f"the HTTP server at {self.url} did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        self._socket.close()


class _Quiet(uvicorn.Server):
    """uvicorn's server without its signal handlers: signals are the daemon's."""

    def install_signal_handlers(self) -> None:
        return


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except PermissionError as error:
        listener.close()
        raise Misconfigured(
            MisconfiguredReason.ADDRESS,
            f"port {port} needs more rights than this user has",
            hint="set api.port above 1023",
        ) from error
    except OSError as error:
        listener.close()
        if error.errno == 98:  # EADDRINUSE
            raise Misconfigured(
                MisconfiguredReason.PORT_IN_USE,
                f"port {port} on {host} is in use",
                hint="is another runbookd running? Otherwise set api.port (or RUNBOOKD_API__PORT) to a free port",
            ) from error
        raise Misconfigured(
            MisconfiguredReason.ADDRESS,
            f"{host}:{port} can't be listened on ({error.strerror})",
            hint="correct api.host",
        ) from error
    return listener
