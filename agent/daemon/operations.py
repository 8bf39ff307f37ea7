"""The operations that run in worker processes, and in the command line's own process.

Each takes the :class:`agent.scheduling.OperationContext` and plain arguments, opens what it needs, and returns a
report that JSON can carry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from agent.backup import Backups, BackupType
from agent.clock import Clock, SystemClock
from agent.daemon.assembly import backups_of, change_lock, load_policy, migrations_of, open_firestore
from agent.faults import Permanent, PermanentReason
from agent.firestore import Firestore
from agent.migration import Migrations
from agent.scheduling import Operation, OperationContext
from agent.settings import Settings
from agent.telemetry import Telemetry


class Operations:
    """The operations of one deployment, opened anew for each call."""

    def __init__(self, settings: Settings, telemetry: Telemetry, clock: Clock | None = None) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._clock = clock or SystemClock()
        self._policy = load_policy(settings)

    def backup(self, context: OperationContext, *, type: str, verify: bool = True) -> Mapping[str, Any]:  # noqa: A002
        """Take a backup and, unless told otherwise, verify it: an unverified backup is no restore point."""
        with self._open("backup") as (_, backups, _migrations):
            manifest = backups.create(BackupType(type), progress=context.progress, cancelled=context.cancelled)
            report = None
            if verify:
                report = backups.verify(manifest.id, progress=context.progress, cancelled=context.cancelled)
                if not report.ok:
                    raise Permanent(
                        PermanentReason.CORRUPT,
                        f"{manifest.id} was written and does not verify: {'; '.join(report.problems)}",
                        hint="check the storage; the backup before it is still there",
                    )
            return {
                "id": manifest.id,
                "type": str(manifest.type),
                "read_time": manifest.read_time,
                "documents": manifest.documents,
                "total_documents": manifest.total_documents,
                "raw_bytes": manifest.raw_bytes,
                "stored_bytes": manifest.stored_bytes,
                "verified": bool(report and report.ok),
            }

    def verify(self, context: OperationContext, *, backup: str, deep: bool = False) -> object:
        with self._open("verify") as (_, backups, _migrations):
            return backups.verify(backup, deep=deep, progress=context.progress, cancelled=context.cancelled)

    def restore(
        self, context: OperationContext, *, backup: str, delete_extra: bool = False, collections: tuple[str, ...] = ()
    ) -> object:
        """Restore in place, as a diff."""
        with (
            self._open("restore") as (_, backups, _migrations),
            change_lock(self._settings, f"restore of {backup}", self._clock),
        ):
            return backups.restore(
                backup,
                delete_extra=delete_extra,
                collections=tuple(collections),
                progress=context.progress,
                cancelled=context.cancelled,
            )

    def tidy(self, context: OperationContext) -> Mapping[str, Any]:
        """Make up for copies that are missing where the page wants them, then apply its retention."""
        with self._open("tidy") as (_, backups, _migrations):
            uploaded = backups.upload(progress=context.progress, cancelled=context.cancelled)
            cleaned = backups.clean(dry_run=False)
            return {"upload": dataclasses.asdict(uploaded), "clean": dataclasses.asdict(cleaned)}

    def migrate(
        self,
        context: OperationContext,
        *,
        name: str,
        batch_size: int | None = None,
        validate: bool | None = None,
        again: bool = False,
        disarmed: str = "",
    ) -> object:
        with (
            self._open("migration") as (_, _backups, migrations),
            change_lock(self._settings, f"migration {name}", self._clock),
        ):
            return migrations.run(
                name,
                batch_size=batch_size,
                validate=validate,
                again=again,
                disarmed=disarmed,
                progress=context.progress,
                cancelled=context.cancelled,
            )

    def resume(self, context: OperationContext, *, run_id: str) -> object:
        with (
            self._open("migration") as (_, _backups, migrations),
            change_lock(self._settings, f"migration {run_id}", self._clock),
        ):
            return migrations.resume(run_id, progress=context.progress, cancelled=context.cancelled)

    def undo(self, context: OperationContext, *, run_id: str, from_backup: bool = False) -> Mapping[str, Any]:
        with (
            self._open("undo") as (_, _backups, migrations),
            change_lock(self._settings, f"undo of {run_id}", self._clock),
        ):
            report = migrations.undo(
                run_id, from_backup=from_backup, progress=context.progress, cancelled=context.cancelled
            )
            return {
                "run_id": report.record.id,
                "documents": report.record.undone + report.record.merged,
                "kept": report.record.kept,
                "verified": report.findings.verified,
                "kept_documents": [dataclasses.asdict(item) for item in report.findings.kept[:100]],
                "seconds": report.seconds,
                "documents_per_second": report.documents_per_second,
            }

    # --- inside -----------------------------------------------------------------------------------------------

    def _open(self, origin: str) -> _Opened:
        return _Opened(self._settings, self._telemetry, origin, self._clock)


class _Opened:
    """Database, backups and migrations, closed at the end of the block."""

    def __init__(self, settings: Settings, telemetry: Telemetry, origin: str, clock: Clock) -> None:
        self._arguments = (settings, telemetry, origin, clock)
        self._stack = ExitStack()

    def __enter__(self) -> tuple[Firestore, Backups, Migrations]:
        settings, telemetry, origin, clock = self._arguments
        policy = load_policy(settings)
        firestore = self._stack.enter_context(open_firestore(settings, telemetry, origin=origin, clock=clock))
        backups = backups_of(settings, policy, firestore, telemetry, clock=clock)
        migrations = migrations_of(settings, policy, firestore, telemetry, backups=backups, clock=clock)
        return firestore, backups, migrations

    def __exit__(self, *_: object) -> None:
        self._stack.close()


RECOVERING = frozenset({"restore", "undo"})
"""Operations that a rollback waits for, within the page's budget."""


def operations_of(settings: Settings, telemetry: Telemetry) -> Mapping[str, Operation]:
    """The operations by the names that assignments use."""
    operations = Operations(settings, telemetry)
    named: Mapping[str, Callable[..., object]] = {
        "backup": operations.backup,
        "verify": operations.verify,
        "restore": operations.restore,
        "tidy": operations.tidy,
        "migrate": operations.migrate,
        "resume": operations.resume,
        "undo": operations.undo,
    }
    return named
