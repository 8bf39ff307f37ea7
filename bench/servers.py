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
from pathlib import Path

from agent.sandbox import start_sandbox

_EMULATOR = Path("/usr/lib/google-cloud-sdk/platform/cloud-firestore-emulator/cloud_firestore_emulator")


@contextmanager
def running(kind: str) -> Iterator[str]:
    """A running Firestore's ``host:port``.

    Args:
        kind: ``sandbox`` or ``emulator``.
    """
    if kind == "sandbox":
        with start_sandbox() as sandbox:
            yield sandbox.host
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
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
