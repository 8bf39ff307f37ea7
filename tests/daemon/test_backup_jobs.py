"""Scheduled backups and the restore drill, with the operations that the workers run, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.backup import BackupHistory, Backups, BackupType, Outcome, Why
from agent.clock import ManualClock
from agent.daemon.assembly import backups_of, load_policy, open_firestore
from agent.daemon.backup_jobs import BackupJobs
from agent.daemon.operations import operations_of
from agent.faults import Transient, TransientReason
from agent.firestore import Firestore
from agent.scheduling import RESTORE_DRILL, OperationContext
from agent.scheduling.worker import plain
from agent.settings import Settings, load_settings
from agent.state import StateFile
from agent.storage import GcsStorage
from agent.telemetry import ProgressSink, Telemetry, ignore_progress, quiet_telemetry
from tests.backup.conftest import damage, write
from tests.daemon.deployment import ROOT
from tests.storage.conftest import gcs_bucket, gcs_endpoint

__all__ = ["gcs_bucket", "gcs_endpoint"]  # fixtures that the storage tests have, too

DUE = datetime(2025, 9, 10, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class InThisProcess:
    """Workers that are no processes; broken ones raise what a worker's death raises."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._operations = operations_of(settings, telemetry)
        self._telemetry = telemetry
        self.broken = False
        self.ran: list[str] = []

    def run(
        self, operation: str, arguments: Mapping[str, Any] | None = None, *, progress: ProgressSink = ignore_progress
    ) -> Mapping[str, Any]:
        if self.broken:
            raise Transient(TransientReason.WORKER_DIED, f"the worker of {operation} ended with status -9")
        self.ran.append(operation)
        context = OperationContext(progress=progress, cancelled=lambda: False, telemetry=self._telemetry)
        report: Mapping[str, Any] = plain(self._operations[operation](context, **(arguments or {})))
        return report


class Scene:
    """A daemon's backup jobs, and the database and backups that they work on."""

    def __init__(self, config: Path, telemetry: Telemetry) -> None:
        self.settings = load_settings(config)
        self._telemetry = telemetry
        self._policy = load_policy(self.settings)
        self.firestore: Firestore = open_firestore(self.settings, telemetry, origin="test")
        self.backups: Backups = backups_of(self.settings, self._policy, self.firestore, telemetry)
        self.workers = InThisProcess(self.settings, telemetry)
        self.clock = ManualClock(DUE)
        self.state = StateFile(self.settings.data_dir / "state.db")
        self.history = BackupHistory(self.state)
        self.jobs = self.made()

    def made(self) -> BackupJobs:
        """The jobs of a daemon that starts now."""
        return BackupJobs(
            policy=lambda: self._policy,
            workers=self.workers,
            history=self.history,
            backups=self.backups,
            clock=self.clock,
            telemetry=quiet_telemetry(),
        )

    def gauge(self, name: str, **labels: str) -> float | None:
        """A gauge's value now."""
        for family in self._telemetry.families():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return None

    def folder(self, backup: str) -> Path:
        return self.settings.storage.local / backup

    def close(self) -> None:
        self.firestore.close()
        self.state.close()


@pytest.fixture
def make_scene(sandbox: Any, project: str, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Makes scenes with more settings of the storage."""
    made: list[Scene] = []
    telemetry = quiet_telemetry()

    def make(**storage: object) -> Scene:
        config = tmp_path / "runbookd.yaml"
        values = {
            "runbook": str(ROOT / "runbooks" / "firestore-operations.md"),
            "data_dir": str(tmp_path / "data"),
            "database": {"project": project, "host": sandbox.host},
            "storage": {"local": str(tmp_path / "backups"), "capacity_bytes": 10**10, **storage},
        }
        config.write_text(yaml.safe_dump(values))
        made.append(Scene(config, telemetry))
        write(made[-1].firestore, {f"users/u{number}": {"n": number} for number in range(20)})
        return made[-1]

    yield make
    for scene in made:
        scene.close()
    telemetry.shutdown()


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    """Twenty users, and backups on this host alone."""
    return make_scene()


def test_a_due_backup_is_taken_recorded_and_tidied_after(scene: Scene) -> None:
    """A scheduled backup ends in the history under its due time, verified, and retention runs after it."""
    report = scene.jobs.run(BackupType.SNAPSHOT, DUE)
    assert report is not None
    attempt = scene.jobs.attempts(BackupType.SNAPSHOT)[0]
    assert (attempt.due_at, attempt.outcome, attempt.backup) == (DUE, Outcome.OK, report["id"])
    assert scene.backups.list()[0].verified
    assert scene.workers.ran == ["backup", "tidy"]


def test_failures_are_counted_until_a_success(scene: Scene) -> None:
    """One missed and one failed are two in a row, for that type alone; the next success ends the row."""
    scene.jobs.missed(BackupType.SNAPSHOT, DUE)
    assert scene.jobs.failures(BackupType.SNAPSHOT) == 1
    scene.workers.broken = True
    assert scene.jobs.run(BackupType.SNAPSHOT, DUE + HOUR) is None
    assert scene.jobs.failures(BackupType.SNAPSHOT) == 2
    assert scene.jobs.failures(BackupType.FULL) == 0
    assert "status -9" in scene.jobs.attempts(BackupType.SNAPSHOT)[0].detail
    scene.workers.broken = False
    scene.jobs.run(BackupType.SNAPSHOT, DUE + 2 * HOUR)
    assert scene.jobs.failures(BackupType.SNAPSHOT) == 0


class Killed(BaseException):
    """What no handler catches: as far as this process's code goes, the end."""


def test_a_backup_that_the_daemon_did_not_live_to_see_has_failed(scene: Scene) -> None:
    """Killed during a backup, and down for two more that were due: the next daemon counts three in a row."""

    def die(_: object) -> None:
        raise Killed

    scene.jobs.run(BackupType.SNAPSHOT, DUE - HOUR)
    cut_off = BackupJobs(
        policy=lambda: load_policy(scene.settings),
        workers=scene.workers,
        history=scene.history,
        backups=scene.backups,
        clock=scene.clock,
        telemetry=quiet_telemetry(),
        progress=die,
    )
    with pytest.raises(Killed):
        cut_off.run(BackupType.SNAPSHOT, DUE)
    assert scene.jobs.attempts(BackupType.SNAPSHOT)[0].outcome is Outcome.RUNNING
    assert scene.jobs.failures(BackupType.SNAPSHOT) == 0

    scene.clock.advance(3.5 * HOUR.total_seconds())
    following = scene.made()
    following.caught_up()
    assert [(one.due_at, one.outcome) for one in following.attempts(BackupType.SNAPSHOT)] == [
        (DUE + 2 * HOUR, Outcome.MISSED),
        (DUE + HOUR, Outcome.MISSED),
        (DUE, Outcome.FAILED),
        (DUE - HOUR, Outcome.OK),
    ]
    assert following.failures(BackupType.SNAPSHOT) == 3
    following.missed(BackupType.SNAPSHOT, DUE + 2 * HOUR)
    assert following.failures(BackupType.SNAPSHOT) == 3, "the scheduler's word on the same due time is no second miss"


def test_the_drill_proves_the_chain_that_outlives_this_host(scene: Scene) -> None:
    """Of a full backup, an increment and a newer snapshot, the drill restores the increment's chain."""
    full = scene.backups.create(BackupType.FULL).id
    write(scene.firestore, {"users/u1": {"n": "newer"}, "users/u2": None})
    increment = scene.backups.create(BackupType.INCREMENTAL).id
    snapshot = scene.backups.create(BackupType.SNAPSHOT).id
    for backup in (increment, snapshot):
        assert scene.backups.verify(backup).ok
    assert scene.gauge("runbookd_backup_last_proven_timestamp_seconds") is None

    scene.jobs.run_due(RESTORE_DRILL, DUE)
    assert {item.id: item.proven for item in scene.backups.list()} == {full: True, increment: True, snapshot: False}
    assert scene.gauge("runbookd_backup_last_proven_timestamp_seconds") is not None
    assert {verdict.id: verdict.why for verdict in scene.backups.clean().verdicts}[full] is Why.LAST_PROVEN


def test_a_drill_that_finds_damage_proves_nothing(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A restore that can't be is an error that names the file; the next drill takes the next best chain."""
    older = scene.backups.create(BackupType.FULL)
    newer = scene.backups.create(BackupType.FULL)
    for manifest in (older, newer):
        assert scene.backups.verify(manifest.id).ok
    damage(scene.folder(newer.id) / newer.segments[0].file)
    assert scene.jobs.drill() is None
    assert newer.segments[0].file in str([record.__dict__ for record in caplog.records])
    assert not any(item.proven for item in scene.backups.list())
    report = scene.jobs.drill()
    assert report is not None
    assert (report["id"], report["deep"]) == (older.id, True)


def test_a_drill_with_nothing_to_restore(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Without a verified backup the drill says so, a missed drill is no missed backup, a dead worker no proof."""
    assert scene.jobs.drill() is None
    assert "no verified backup" in caplog.text
    scene.jobs.missed(RESTORE_DRILL, DUE)
    assert all(scene.jobs.failures(kind) == 0 for kind in BackupType)
    snapshot = scene.backups.create(BackupType.SNAPSHOT).id
    assert scene.backups.verify(snapshot).ok
    scene.workers.broken = True
    assert scene.jobs.drill() is None
    scene.workers.broken = False
    report = scene.jobs.drill()
    assert report is not None, "a snapshot is better than nothing"
    assert report["id"] == snapshot


@pytest.mark.gcs
def test_copies_that_an_outage_kept_away_are_made_up_for(
    make_scene: Callable[..., Scene], gcs_endpoint: str, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An increment that was taken with the bucket away is in the bucket, verified, after the next scheduled backup."""
    alone = make_scene()
    full = alone.backups.create(BackupType.FULL).id
    increment = alone.backups.create(BackupType.INCREMENTAL).id
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_endpoint)
    scene = make_scene(gcs_bucket=gcs_bucket)
    assert scene.jobs.run(BackupType.SNAPSHOT, DUE) is not None
    where = {item.id: item.storages for item in scene.backups.list()}
    assert (where[full], where[increment]) == (("local", "gcs"), ("local", "gcs"))
    bucket = GcsStorage(name="gcs", bucket=gcs_bucket, endpoint=gcs_endpoint)
    assert {stored.key.partition("/")[0] for stored in bucket.list()} == {full, increment}
    for path in scene.folder(increment).iterdir():
        path.unlink()
    for path in scene.folder(full).iterdir():
        path.unlink()
    assert scene.backups.verify(increment, deep=True).ok
