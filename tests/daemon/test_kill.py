"""kill -9 of the daemon in the middle of a rollback, then a restart: the rollback is completed."""

from __future__ import annotations

import os
import signal

import pytest

from agent.recovery import RecoveryState, StepState
from agent.sandbox import Fault, FaultKind
from tests.daemon.deployment import Deployment, eventually

SLOW_WRITES = Fault(kind=FaultKind.LATENCY, marker=b"", share=1.0, delay=0.4, methods=("BatchWrite",))


@pytest.mark.timeout(300)
def test_a_killed_daemon_completes_its_rollback_after_the_restart(deployment: Deployment) -> None:
    """Corruption is seen, the rollback begins, the daemon is killed half-way; the next one ends it."""
    before = deployment.fingerprint()
    deployment.json("backup", "create", "--type", "full")
    daemon = deployment.start_daemon()
    assert deployment.get("/readyz").status_code == 200
    deployment.proxy.inject(Fault(kind=FaultKind.CORRUPTION, share=0.3))
    migrated = deployment.command("migrate", "run", "0001_schema_version", "--json")
    # Either the run ended with documents that differ (4), or the daemon stopped it in the middle (1).
    assert migrated.returncode in (1, 4), migrated.stderr
    deployment.proxy.inject(SLOW_WRITES)

    with deployment.recoveries() as journal:

        def putting_back() -> bool:
            latest = journal.latest()
            return latest is not None and any(
                step.name == "restore_data" and step.state is not StepState.PENDING for step in latest.steps
            )

        eventually(putting_back, what=lambda: f"the rollback to begin; the log: {deployment.log()}")
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
        cut = journal.latest()
        assert cut is not None
        assert cut.state is RecoveryState.RUNNING
        deployment.proxy.clear()

        deployment.start_daemon()

        def ended() -> bool:
            latest = journal.latest()
            return latest is not None and latest.state is not RecoveryState.RUNNING

        eventually(ended, what=lambda: f"the rollback to end; the log: {deployment.log()}", timeout=120)
        done = journal.latest()
        assert done is not None
        assert done.id == cut.id
        assert done.state is RecoveryState.DONE, done.problem

    assert deployment.fingerprint() == before
    assert deployment.json("maintenance", "status")["enabled"] is False
    assert deployment.json("migrate", "status")["record"]["state"] == "undone"

    def settled() -> bool:
        actions = [event.action for event in deployment.pagerduty.received if event.action != "change"]
        return "trigger" in actions and not deployment.pagerduty.open_alerts

    eventually(settled, what=lambda: f"the page to be resolved; got {deployment.pagerduty.received}", timeout=90)
