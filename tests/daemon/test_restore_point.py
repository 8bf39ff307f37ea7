"""What a rollback goes back by: the journal, the database's old versions, a backup that somebody approved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from agent.clock import SystemClock
from agent.daemon.assembly import load_policy
from agent.daemon.rollback import RollbackActions
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason
from agent.firestore import DatabaseAddress, Firestore
from agent.migration import RunRecord, Runs, RunState
from agent.scheduling import Supervisor
from agent.settings import RecoverySettings, Settings
from agent.signals import ProbeRunner
from agent.telemetry import Progress, ignore_progress, quiet_telemetry
from tests.daemon.deployment import ROOT

HOUR = timedelta(hours=1)


@dataclass
class Workers:
    """A supervisor that notes what it is asked for."""

    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def run(self, operation: str, arguments: dict[str, Any], *, progress: Any = ignore_progress) -> dict[str, Any]:
        progress(Progress(operation=operation, stage="", done=0))
        self.asked.append((operation, arguments))
        return {"documents": 7, "kept": 1, "seconds": 0.5}


@dataclass
class Scene:
    """Actions of a daemon whose run, backups and approvals a test sets."""

    firestore: Firestore
    runs: Runs
    workers: Workers = field(default_factory=Workers)
    backup: tuple[str, datetime] | None = None
    approved: bool = False

    def actions(self) -> RollbackActions:
        policy = load_policy(Settings(runbook=ROOT / "runbooks" / "firestore-operations.md"))
        return RollbackActions(
            policy=lambda: policy,
            settings=RecoverySettings(check_health_url=False),
            firestore=self.firestore,
            runs=self.runs,
            supervisor=cast(Supervisor, self.workers),
            probes=cast(ProbeRunner, None),
            newest_backup=lambda _: self.backup,
            restore_approved=lambda _: self.approved,
            clock=SystemClock(),
        )

    def ran(self, ago: timedelta, *, journal: bool = False) -> str:
        started = self.firestore.server_time() - ago
        record = RunRecord(
            id=self.runs.new_id("0001", started),
            name="0001_test",
            revision="0001",
            database=self.firestore.address.root,
            checksum="abc",
            state=RunState.FAILED,
            started=started,
            pre_read_time=started,
        )
        self.runs.save(record)
        if journal:
            self.runs.journal(record.id).mkdir()
        return record.id


@pytest.fixture
def scene(sandbox: Any, project: str, tmp_path: Path) -> Iterator[Scene]:
    address = DatabaseAddress(project=project, host=sandbox.host)
    with Firestore(address, telemetry=quiet_telemetry(), origin="test") as firestore:
        yield Scene(firestore=firestore, runs=Runs(tmp_path))


def test_the_journal_comes_first(scene: Scene) -> None:
    """However old the run is; the last good backup is named beside it."""
    run = scene.ran(5 * HOUR, journal=True)
    scene.backup = ("backup-full-1", datetime.now(UTC))
    point = scene.actions().choose_restore_point(run)
    assert (point.kind, point.id) == ("undo", run)
    assert point.detail == "the run's undo journal; last good backup: backup-full-1"
    assert scene.actions().put_back(point, ignore_progress) == {"documents": 7, "kept": 1}
    assert scene.workers.asked == [("undo", {"run_id": run, "from_backup": False})]


def test_within_the_hour_the_databases_own_versions_do(scene: Scene) -> None:
    """No journal, no backup and no approval are needed: nothing but the migration's writes is taken back."""
    run = scene.ran(0.5 * HOUR)
    point = scene.actions().choose_restore_point(run)
    assert point.kind == "undo"
    assert point.detail.startswith("the database's own versions of before ")


def test_after_the_hour_a_backup_needs_an_approval(scene: Scene) -> None:
    """It takes users' later writes back; approved, the same undo does it and marks the run as undone."""
    run = scene.ran(2 * HOUR)
    with pytest.raises(Permanent) as nothing:
        scene.actions().choose_restore_point(run)
    assert nothing.value.reason is PermanentReason.NOT_FOUND
    scene.backup = ("backup-full-1", datetime.now(UTC) - 3 * HOUR)
    with pytest.raises(Refused) as unapproved:
        scene.actions().choose_restore_point(run)
    assert unapproved.value.reason is RefusedReason.NOT_CONFIRMED
    assert "automation approve" in unapproved.value.hint

    scene.approved = True
    point = scene.actions().choose_restore_point(run)
    assert "backup-full-1" in point.detail
    scene.actions().put_back(point, ignore_progress)
    assert scene.workers.asked == [("undo", {"run_id": run, "from_backup": True})]
