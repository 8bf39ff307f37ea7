"""Servers to measure against: the sandbox, and Google's emulator where it is installed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.sandbox import seed, start_sandbox

_EMULATOR = Path("/usr/lib/google-cloud-sdk/platform/cloud-firestore-emulator/cloud_firestore_emulator")
_WARMING_SCALE = 0.03  # 9,200 documents
_LARGE_HEAP = 0.6  # of the machine's memory; Java's own choice is a quarter


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running Firestore.

    Args:
        kind: ``sandbox`` or ``emulator``.
        host: its ``host:port``.
    """

    kind: str
    host: str


@contextmanager
def running(kind: str, *, large: bool = False) -> Iterator[Server]:
    """A server of its own for one benchmark.

    Args:
        kind: ``sandbox`` or ``emulator``.
        large: let Google's emulator have more heap. It keeps every version that it is given, some 7 KB each: after a
            few passes over 300,000 documents it would collect garbage on all cores, and that would be measured.
    """
    if kind == "sandbox":
        with start_sandbox() as sandbox:
            yield Server(kind=kind, host=sandbox.host)
        return
    if not _EMULATOR.exists():
        sys.exit("Google's Firestore emulator is not installed: apt-get install google-cloud-cli-firestore-emulator")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    environment = dict(os.environ)
    if large:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        environment["JAVA_TOOL_OPTIONS"] = f"-Xmx{int(memory * _LARGE_HEAP) >> 20}m"
    process = subprocess.Popen(
        [str(_EMULATOR), "start", "--host=127.0.0.1", f"--port={port}"],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield Server(kind=kind, host=f"127.0.0.1:{port}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Servers:
    """Servers one after the other, for contenders that fill an empty database.

    Google's emulator keeps what was deleted, for reads in the past: some 7 KB of its heap for each document of 1 KB,
    also when a project is cleared. So each turn gets a server of its own; an emulator is warmed up, because its first
    thousands of writes are ten times as slow as later ones.

    Args:
        kind: ``sandbox`` or ``emulator``.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._stack = ExitStack()
        self._server: Server | None = None

    @property
    def current(self) -> Server:
        assert self._server is not None
        return self._server

    def renew(self) -> None:
        """Stop the server before and start another; the official client finds it, too."""
        self.close()
        self._server = self._stack.enter_context(running(self._kind))
        self._stack.enter_context(emulator_at(self._server.host))
        if self._kind == "emulator":
            seed(self._server.host, "warming-up", _WARMING_SCALE)

    def close(self) -> None:
        self._stack.close()


@contextmanager
def emulator_at(host: str) -> Iterator[None]:
    """The official client takes the address of a server without credentials from the environment alone."""
    before = os.environ.get("FIRESTORE_EMULATOR_HOST")
    os.environ["FIRESTORE_EMULATOR_HOST"] = host
    try:
        yield
    finally:
        if before is None:
            del os.environ["FIRESTORE_EMULATOR_HOST"]
        else:
            os.environ["FIRESTORE_EMULATOR_HOST"] = before
