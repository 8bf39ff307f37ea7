"""Debian's Prometheus and Alertmanager on loopback, to measure beside; both end with the bench that started them.

Data folders are temporary. ``missing()`` says which of the two this machine lacks.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

PROMETHEUS = "prometheus"
ALERTMANAGER = "prometheus-alertmanager"
_PATIENCE_S = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


def missing() -> list[str]:
    """Debian packages whose programs are not on this machine."""
    return [name for name in (PROMETHEUS, ALERTMANAGER) if shutil.which(name) is None]


class Remote:
    """A process that answers Prometheus's API, and the CPU it has used."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid
        # Nothing is compressed: that is work which only one of two contenders may be asked for.
        self._client = httpx.Client(base_url=url, timeout=600.0, headers={"Accept-Encoding": "identity"})

    def cpu(self) -> float:
        """CPU seconds, user and system, since it was started; the kernel counts in steps of 10 ms."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> httpx.Response:
        response = self._client.get(path, params=parameters)
        response.raise_for_status()
        return response

    def ask(self, path: str, **parameters: Any) -> Any:
        """``data`` of an answer of ``/api/v1``."""
        return self.get(f"/api/v1/{path}", parameters).json()["data"]

    def close(self) -> None:
        self._client.close()


class Server(Remote):
    """A program that was started here; its configuration may be changed while it runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
        super().__init__(f"http://127.0.0.1:{port}", process.pid)
        self._folder = folder
        self._process = process

    def rewrite(self, name: str, text: str) -> None:
        """Put ``text`` into a file of its folder and have it read."""
        (self._folder / name).write_text(text, encoding="utf-8")
        self._client.post("/-/reload").raise_for_status()

    def wait_until_ready(self) -> None:
        """Raises: RuntimeError: it ended, or is not ready in time; its log says why."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self._client.get("/-/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise RuntimeError((self._folder / "log").read_text(errors="replace")[-2000:])

    def stop(self) -> None:
        self.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


CONFIGURATION = "prometheus.yaml"
RULES = "rules.yaml"


def configuration(target: str, interval: str, **more: Any) -> str:
    """A Prometheus that scrapes ``target`` (``host:port``) and evaluates ``rules.yaml``; ``more`` sections verbatim."""
    job = {"job_name": "bench", "honor_labels": True, "static_configs": [{"targets": [target]}]}
    every = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    return yaml.safe_dump({"global": every, "scrape_configs": [job], "rule_files": [RULES], **more})


@contextmanager
def prometheus(configured: str, rules: str = "") -> Iterator[Server]:
    """A Prometheus with these two files; :meth:`Server.rewrite` changes them."""
    arguments = [
        f"--config.file={CONFIGURATION}",
        "--storage.tsdb.path=data",
        "--web.enable-lifecycle",
        "--query.timeout=10m",
        "--log.level=warn",
    ]
    with _running(PROMETHEUS, arguments, {CONFIGURATION: configured, RULES: rules}) as server:
        yield server


@contextmanager
def alertmanager(configuration: Mapping[str, Any]) -> Iterator[Server]:
    """An Alertmanager of its own, without peers."""
    arguments = ["--config.file=alertmanager.yaml", "--storage.path=data", "--cluster.listen-address="]
    with _running(ALERTMANAGER, arguments, {"alertmanager.yaml": yaml.safe_dump(dict(configuration))}) as server:
        yield server


@contextmanager
def _running(program: str, arguments: Sequence[str], files: Mapping[str, str]) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="runbookd-bench-"))
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *arguments, f"--web.listen-address=127.0.0.1:{port}"],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, port, folder)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
