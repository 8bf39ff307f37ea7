"""The daemon as a process: its endpoints, its reload, its end, and that there is one of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.daemon.deployment import ROOT, Deployment, eventually


@pytest.mark.timeout(180)
def test_a_daemon_answers_reloads_and_stops(deployment: Deployment, tmp_path: Path) -> None:
    """All endpoints answer; a broken page on SIGHUP leaves the old one in force; SIGTERM ends it with 0."""
    page = tmp_path / "page.md"
    page.write_text((ROOT / "runbooks" / "firestore-operations.md").read_text())
    settings = yaml.safe_load(deployment.config.read_text())
    deployment.config.write_text(yaml.safe_dump({**settings, "runbook": str(page)}))
    daemon = deployment.start_daemon()
    for path in (
        "/healthz",
        "/api/database/health",
        "/api/database/migration-status",
        "/api/database/backup-status",
        "/api/database/metrics",
        "/metrics",
        "/api/v1/rules",
        "/api/v1/alerts",
        "/",
    ):
        answer = deployment.get(path)
        assert answer.status_code == 200, (path, answer.text)

    def threshold() -> str:
        found = deployment.get('/api/v1/query?query=runbook_threshold{metric="error_rate",level="critical"}').json()
        result = found["data"]["result"]
        return str(result[0]["value"][1]) if result else ""

    eventually(lambda: threshold() == "0.01", what=lambda: f"the page's threshold, got {threshold()!r}")
    good = page.read_text()
    page.write_text(good.replace(">1%", ">1 parsec"))
    os.kill(daemon.pid, signal.SIGHUP)
    eventually(lambda: "stay in force" in deployment.log(), what=lambda: f"a word about the page: {deployment.log()}")
    assert threshold() == "0.01"
    page.write_text(good.replace("| >1% ", "| >2% "))
    os.kill(daemon.pid, signal.SIGHUP)
    eventually(lambda: threshold() == "0.02", what=lambda: f"the new threshold, got {threshold()!r}")

    second = subprocess.run(
        [sys.executable, "-m", "agent.cli", "--config", str(deployment.config), "run"],
        cwd=ROOT,
        env=deployment.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 2
    assert "another runbookd runs with the data folder" in second.stderr

    os.kill(daemon.pid, signal.SIGTERM)
    assert daemon.wait(timeout=40) == 0
