"""The scene: a Firestore with the first user's data, faults in front of it, an application, and people to page.

Everything is real except the people: the pager, the chat and the mail server are loopback receivers that check what
they get against the vendors' rules.
"""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from agent.firestore import DatabaseAddress
from agent.sandbox import start_sandbox
from agent.sandbox.companions import ApplicationProcess, ProxyProcess, start_application, start_proxy
from agent.sandbox.mail import MailReceiver
from agent.sandbox.receivers import PagerDutyReceiver, SlackReceiver

ROUTING_KEY = "0123456789abcdef0123456789abcdef"
STORAGE_QUOTA = 20 * 1024**3
# Smaller than the page's 500: everything here shares one machine, and a batch of 500 makes the application's own
# writes wait for it. At the same documents per second, smaller batches are shorter waits.
BATCH_SIZE = 100


@dataclass(kw_only=True)
class Scene:
    """The running parts; a context manager that stops them in reverse order.

    Args:
        folder: where this run keeps its files.
        emulator: ``host:port`` of a Firestore to use instead of the sandbox.
    """

    folder: Path
    emulator: str | None
    project: str
    backend: str = ""
    direct: DatabaseAddress | None = None
    proxy: ProxyProcess | None = None
    application: ApplicationProcess | None = None

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self.pagerduty = PagerDutyReceiver()
        self.slack = SlackReceiver()
        self.mail = MailReceiver()

    def open(self) -> DatabaseAddress:
        """Start the database; returns its address, past the proxy."""
        if self.emulator:
            host, self.backend = self.emulator, f"Firestore emulator at {self.emulator}"
        else:
            sandbox = self._stack.enter_context(start_sandbox(self.folder / "sandbox"))
            host, self.backend = sandbox.host, f"embedded sandbox at {sandbox.host}"
        self.direct = DatabaseAddress(project=self.project, host=host)
        return self.direct

    def populate(self, *, rate: float) -> None:
        """Start the proxy, the application behind it and the receivers."""
        assert self.direct is not None
        self.proxy = self._stack.enter_context(start_proxy(str(self.direct.host)))
        self.application = self._stack.enter_context(
            start_application(self.proxy.host, self.project, rate=rate, by_key=self.emulator is not None)
        )
        for receiver in (self.pagerduty, self.slack, self.mail):
            self._stack.enter_context(receiver)

    def configuration(self, *, page: Path, rules: str, migrations: Path, port: int) -> Path:
        """Write the daemon's ``runbookd.yaml`` for this scene; returns its path.

        It is the file that a user would write, with addresses of this machine.
        """
        assert self.proxy is not None
        assert self.application is not None
        values: dict[str, Any] = {
            "runbook": str(page.resolve()),
            "rules": [rules],
            "data_dir": str((self.folder / "data").resolve()),
            "reports_dir": str((self.folder / "database-reports").resolve()),
            "log_level": "WARNING",
            "database": {"project": self.project, "host": self.proxy.host},
            "storage": {
                "local": str((self.folder / "database-backups").resolve()),
                "capacity_bytes": STORAGE_QUOTA,
            },
            "migration": {"definitions": str(migrations.resolve()), "batch_size": BATCH_SIZE},
            "signals": {"scrape": [{"job": "application", "url": self.application.metrics_url, "interval": 1.0}]},
            "notifications": {
                "pagerduty": {"routing_key": ROUTING_KEY, "url": self.pagerduty.base_url},
                "slack": {"webhook_url": self.slack.url},
                "email": {"host": "127.0.0.1", "port": self.mail.port, "to": ["database-team@example.com"]},
                "status_url": f"http://127.0.0.1:{port}/",
            },
            "api": {"port": port},
            "recovery": {"health_url": self.application.health_url},
        }
        path = self.folder / "runbookd.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return path

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def project_name() -> str:
    """A project id of its own for each run: an emulator may hold data of an earlier one."""
    return f"demo-{uuid.uuid4().hex[:8]}"
