"""Servers to measure against: the sandbox, and Google's emulator where it is installed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from agent.sandbox import start_sandbox

_EMULATOR = Path("/usr/lib/google-cloud-sdk/platform/cloud-firestore-emulator/cloud_firestore_emulator")


_FORGET_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running Firestore.

    Args:
        kind: ``sandbox`` or ``emulator``.
        host: its ``host:port``.
    """

    kind: str
    host: str

    def forget(self, project: str) -> None:
        """Drop a project's documents and their past, so that the emulator's memory lasts; the sandbox has its disk."""
        if self.kind == "emulator":
            url = f"http://{self.host}/emulator/v1/projects/{project}/databases/(default)/documents"
            httpx.delete(url, timeout=_FORGET_SECONDS).raise_for_status()


@contextmanager
def running(kind: str) -> Iterator[Server]:
    """A server of its own for one benchmark.

    Args:
        kind: ``sandbox`` or ``emulator``.
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
    process = subprocess.Popen(
        [str(_EMULATOR), "start", "--host=127.0.0.1", f"--port={port}"],
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
