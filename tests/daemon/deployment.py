"""A deployment of its own for a test: sandbox, proxy, settings file, real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from agent.firestore import DatabaseAddress, Fingerprint, Firestore, take_fingerprint
from agent.recovery import RecoveryJournal
from agent.sandbox import PagerDutyReceiver, ProxyProcess
from agent.state import StateFile
from agent.telemetry import quiet_telemetry

ROOT = Path(__file__).parents[2]
T = TypeVar("T")
TRANSIENT = ("sessions", "_config", "_migrations")


@dataclass
class Deployment:
    """Settings on disk, and the processes that were started with them."""

    folder: Path
    project: str
    proxy: ProxyProcess
    direct: str
    pagerduty: PagerDutyReceiver
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)
    commands: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def config(self) -> Path:
        path = self.folder / "runbookd.yaml"
        if not path.exists():
            values: dict[str, Any] = {
                "runbook": str(ROOT / "runbooks" / "firestore-operations.md"),
                "rules": [str(ROOT / "rules" / "*.yaml")],
                "data_dir": str(self.folder / "data"),
                "reports_dir": str(self.folder / "reports"),
                "database": {"project": self.project, "host": self.proxy.host},
                "storage": {"local": str(self.folder / "backups"), "capacity_bytes": 10**10},
                "migration": {"definitions": str(ROOT / "migrations"), "max_write_rate": 20_000.0},
                "notifications": {"pagerduty": {"routing_key": "r" * 32, "url": self.pagerduty.base_url}},
                "api": {"port": 0},
                "recovery": {"check_health_url": False},
                "signals": {"probe": {"interval": 0.5}},
            }
            path.write_text(yaml.safe_dump(values))
        return path

    def environment(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if not k.startswith(("FIRESTORE_", "FIREBASE_", "RUNBOOKD_"))}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "agent.cli", "--config", str(self.config), *arguments],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """The JSON answer of a command that must succeed."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command and leave it running."""
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "--config", str(self.config), *arguments],
            cwd=ROOT,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.commands.append(process)
        return process

    def start_daemon(self) -> subprocess.Popen[bytes]:
        """Start `runbookd run`; its log goes to a file beside the settings."""
        log = (self.folder / f"daemon-{len(self.daemons)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", "--config", str(self.config), "run"],
                cwd=ROOT,
                env=self.environment(),
                stderr=log,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.daemons.append(process)
        return process

    def log(self, number: int = -1) -> str:
        return (self.folder / f"daemon-{range(len(self.daemons))[number]}.log").read_text()

    def url(self) -> str:
        """Address of the newest daemon, once its log tells it."""

        def announced() -> str:
            for line in self.log().splitlines():
                entry = json.loads(line) if line.startswith("{") else {}
                if entry.get("message") == "runbookd is up":
                    return str(entry["url"])
            return ""

        return eventually(announced, what=lambda: f"the daemon to come up; its log: {self.log()}")

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url().rstrip("/") + path, timeout=10.0, trust_env=False)

    def fingerprint(self) -> Fingerprint:
        """Of everything but transient documents, past the proxy."""
        address = DatabaseAddress(project=self.project, host=self.direct)
        with Firestore(address, telemetry=quiet_telemetry(), origin="test") as firestore:
            return take_fingerprint(firestore, exclude=TRANSIENT)

    @contextlib.contextmanager
    def recoveries(self) -> Iterator[RecoveryJournal]:
        """The recovery journal, read beside the daemon."""
        state = StateFile(self.folder / "data" / "state.db")
        try:
            yield RecoveryJournal(state)
        finally:
            state.close()

    def close(self) -> None:
        for process in (*self.daemons, *self.commands):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def eventually(look: Callable[[], T], *, what: Callable[[], str], timeout: float = 60.0) -> T:
    """Look until there is something to see; for processes of their own, which no manual clock moves."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what()}")
        time.sleep(0.05)
    return found
