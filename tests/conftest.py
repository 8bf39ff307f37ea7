"""Parts that several rooms' tests run against: the sandbox, Google's emulator, and a project of one's own.

A test that needs a real part says so with a marker. With ``CI=true`` a missing part fails the test; elsewhere the
test is skipped and the skip names the part.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.sandbox import start_sandbox

_EMULATOR = Path("/usr/lib/google-cloud-sdk/platform/cloud-firestore-emulator/cloud_firestore_emulator")


def missing(part: str, remedy: str) -> None:
    """Skip, naming the part; on CI fail, because there a part must be there."""
    message = f"{part} is not on this machine; {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def binary(name: str, package: str) -> str:
    """Path of a real program, or a skip (on CI a failure) that names its package."""
    found = shutil.which(name)
    if found is None:
        missing(name, f"apt-get install {package}")
        raise AssertionError("unreachable")
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A running Firestore."""

    kind: str
    host: str


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Backend]:
    """The embedded server, in a process of its own."""
    with start_sandbox() as process:
        yield Backend(kind="sandbox", host=process.host)


@pytest.fixture(scope="session")
def emulator() -> Iterator[Backend]:
    """Google's own emulator."""
    if not _EMULATOR.exists() or shutil.which("java") is None:
        missing("Google's Firestore emulator", "apt-get install google-cloud-cli-firestore-emulator")
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [str(_EMULATOR), "start", "--host=127.0.0.1", f"--port={port}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_listening(process, port, log.fileno())
            yield Backend(kind="emulator", host=f"127.0.0.1:{port}")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    os.lseek(log, 0, os.SEEK_SET)
    pytest.fail(f"Google's emulator did not start: {os.read(log, 4000).decode(errors='replace')}")


@pytest.fixture(params=["sandbox", pytest.param("emulator", marks=pytest.mark.emulator)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each Firestore that the product's tests run against, one after the other."""
    found: Backend = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project id that no other test uses."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:16].strip("-")
    return f"t-{name}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def promtool() -> str:
    """Path of Prometheus's own checker, the oracle for rules and PromQL."""
    return binary("promtool", "prometheus")
