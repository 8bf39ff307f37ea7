"""Parts that more than one process builds: the database, its backups, its migrations, from settings and page.

The daemon, its workers and the command line call these; each process has its own telemetry and its own channel.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path

from agent import __version__
from agent.backup import Backups, BackupType, Keyring, Left, read_keys
from agent.backup.scratch import sandbox_scratch
from agent.clock import Clock, SystemClock
from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason
from agent.firestore import NEW_COLLECTION, NO_RETRY, DatabaseAddress, Firestore, read_maintenance
from agent.migration import (
    Band,
    Expected,
    LoadFile,
    LoadLimits,
    Migrations,
    Preconditions,
    QueryCheck,
    Restored,
    RestorePoint,
    RunbookPolicy,
    RunSettings,
    SetAside,
)
from agent.runbook import Operation, Policy, Priority, StorageKind, load_runbook
from agent.scheduling import ChangeLock
from agent.settings import Settings
from agent.signals import PageQueries, Verdict
from agent.storage import DirectoryStorage, GcsStorage, Storage
from agent.telemetry import ProgressSink, Telemetry

# Below the page's warning, not at it: the rate a rule sees swings around the rate a limiter holds.
_WRITE_RATE_SHARE = 0.9
_LOCK_PATIENCE_S = 30.0
_QUERY_DEADLINE_S = 10.0
_QUERY_RUNS = 5


def load_policy(settings: Settings) -> Policy:
    """The page that the settings name.

    Raises:
        Misconfigured: the page can't be read or understood.
    """
    return load_runbook(settings.runbook)


def address_of(settings: Settings) -> DatabaseAddress:
    """Which database.

    Raises:
        Misconfigured: no project is set.
    """
    database = settings.database
    if not database.project:
        raise Misconfigured(
            MisconfiguredReason.SETTINGS,
            "no project is set",
            hint="set FIREBASE_PROJECT (or GOOGLE_CLOUD_PROJECT), or database.project in runbookd.yaml",
        )
    return DatabaseAddress(project=database.project, database=database.database, host=database.host)


def open_firestore(settings: Settings, telemetry: Telemetry, *, origin: str, clock: Clock | None = None) -> Firestore:
    """An open channel to the database; ``origin`` labels what is read and written through it."""
    return Firestore(address_of(settings), telemetry=telemetry, origin=origin, clock=clock or SystemClock())


def storages_of(settings: Settings) -> tuple[Storage, ...]:
    """The storages that are configured, nearest first."""
    wanted = settings.storage
    found: list[Storage] = [DirectoryStorage(name="local", path=wanted.local, capacity_bytes=wanted.capacity_bytes)]
    endpoint = os.environ.get("STORAGE_EMULATOR_HOST")
    project = settings.database.project or None
    if wanted.gcs_bucket:
        found.append(GcsStorage(name="gcs", bucket=wanted.gcs_bucket, project=project, endpoint=endpoint))
    if wanted.archive_bucket:
        found.append(
            GcsStorage(
                name="archive",
                bucket=wanted.archive_bucket,
                project=project,
                endpoint=endpoint,
                storage_class="ARCHIVE",
            )
        )
    return tuple(found)


def routes_of(settings: Settings, policy: Policy, names: Sequence[str]) -> Mapping[BackupType, tuple[str, ...]]:
    """Where each type goes: the page's storage column, as far as it is configured.

    A type whose places are none of them configured is kept locally: a backup somewhere beats no backup, and
    :func:`missing_storages` says so to whoever runs ``check``.
    """
    if settings.backup_storage == "local":
        return dict.fromkeys(BackupType, ("local",))
    routes: dict[BackupType, tuple[str, ...]] = {}
    for plan in policy.backups:
        wanted = tuple(str(kind) for kind in plan.storage if str(kind) in names)
        routes[BackupType(plan.type)] = wanted or ("local",)
    routes[BackupType.CRITICAL] = routes.get(BackupType.FULL, ("local",))
    return routes


def missing_storages(settings: Settings, policy: Policy) -> tuple[str, ...]:
    """What the page's schedule relies on and the settings lack, as sentences."""
    names = {"gcs": settings.storage.gcs_bucket, "archive": settings.storage.archive_bucket}
    found = []
    for kind in (StorageKind.GCS, StorageKind.ARCHIVE):
        users = [str(plan.type) for plan in policy.backups if kind in plan.storage]
        if users and not names[str(kind)]:
            found.append(
                f"the page keeps {', '.join(users)} backups in {kind}, but storage.{kind}_bucket is not set; "
                "they are kept locally"
            )
    return tuple(found)


def backups_of(
    settings: Settings,
    policy: Policy,
    firestore: Firestore,
    telemetry: Telemetry,
    *,
    clock: Clock | None = None,
) -> Backups:
    """Backups as the page wants them: places, retention, critical collections."""
    storages = storages_of(settings)
    retention: dict[BackupType, timedelta] = {BackupType(plan.type): plan.retention for plan in policy.backups}
    full = settings.storage.retention_days
    if full is not None:
        retention[BackupType.FULL] = timedelta(days=full)
    retention.setdefault(BackupType.CRITICAL, retention.get(BackupType.FULL, timedelta(days=30)))
    return Backups(
        firestore=firestore,
        storages=storages,
        telemetry=telemetry,
        clock=clock,
        routes=routes_of(settings, policy, [storage.name for storage in storages]),
        retention=retention,
        critical=tuple(plan.collection for plan in policy.migration_order if plan.priority is Priority.CRITICAL),
        transient=transient_collections(policy),
        scratch=sandbox_scratch(),
        keys=keys_of(settings),
        tool=f"runbookd {__version__}",
    )


def keys_of(settings: Settings) -> Keyring | None:
    """The keys that backups are encrypted with; ``None`` if they are not.

    Raises:
        Misconfigured: the file can't be read, or does not hold keys.
    """
    given, file = settings.storage.encryption_key, settings.storage.encryption_key_file
    if given is not None:
        return read_keys(given.get_secret_value(), "RUNBOOKD_STORAGE__ENCRYPTION_KEY")
    if file is None:
        return None
    try:
        return read_keys(file.read_text(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            MisconfiguredReason.SETTINGS,
            f"the encryption keys in {file} can't be read: {error}",
            hint="see storage.encryption_key_file",
        ) from error


def transient_collections(policy: Policy) -> tuple[str, ...]:
    """Root collections that are not data: the page's regenerable ones, and the agent's own."""
    regenerable = tuple(plan.collection for plan in policy.migration_order if plan.documents is None)
    return (*regenerable, "_config", "_migrations")


def write_rate_of(settings: Settings, policy: Policy) -> float | None:
    """Documents a second that a migration may write: below what the page calls a warning."""
    if settings.migration.max_write_rate is not None:
        return settings.migration.max_write_rate
    threshold = policy.threshold("document_write_rate")
    return threshold.warning.value * _WRITE_RATE_SHARE if threshold is not None else None


def load_limits_of(settings: Settings, policy: Policy) -> LoadLimits:
    """The page's rows that a running migration minds."""
    if not settings.migration.throttle:
        return LoadLimits()

    def band(metric: str) -> Band | None:
        row = policy.threshold(metric)
        return Band(warning=row.warning.value, critical=row.critical.value) if row is not None else None

    return LoadLimits(latency=band("query_latency_p95"), errors=band("error_rate"), matrix=True)


def load_file(settings: Settings, clock: Clock) -> LoadFile:
    """Where the daemon tells runs what its rules see."""
    return LoadFile(settings.data_dir / "load.json", clock)


def undo_budget_of(policy: Policy) -> timedelta | None:
    """Time the page's emergency sequence gives to putting documents back."""
    step = policy.emergency_step(Operation.RESTORE_DATA)
    return step.budget if step is not None else None


def migrations_of(
    settings: Settings,
    policy: Policy,
    firestore: Firestore,
    telemetry: Telemetry,
    *,
    backups: Backups | None = None,
    clock: Clock | None = None,
) -> Migrations:
    """Migrations in the page's order, inside its budget, with their journals copied to backup storage."""
    storages = storages_of(settings)
    off_host = next((storage for storage in storages if storage.name != "local"), None)

    def newest() -> RestorePoint | None:
        manifest = backups.newest_verified() if backups is not None else None
        return (
            RestorePoint(id=manifest.id, read_time=manifest.read_time, verified=True) if manifest is not None else None
        )

    def copy(run_id: str, path: Path) -> None:
        if off_host is not None:
            off_host.put(f"migration-journals/{run_id}/{path.name}", [path.read_bytes()])

    def copies(run_id: str) -> Mapping[str, bytes]:
        if off_host is None:
            return {}
        stored = off_host.list(f"migration-journals/{run_id}/")
        return {item.key.rpartition("/")[2]: b"".join(off_host.get(item.key)) for item in stored}

    return Migrations(
        firestore=firestore,
        definitions=settings.migration.definitions,
        data_dir=settings.data_dir,
        telemetry=telemetry,
        policy=RunbookPolicy(
            order={
                plan.collection: str(plan.priority) for plan in policy.migration_order if plan.documents is not None
            },
            undo_budget=undo_budget_of(policy),
            limits=load_limits_of(settings, policy),
        ),
        preconditions=Preconditions(
            restore_point=newest if backups is not None else None,
            max_age=timedelta(hours=settings.migration.restore_point_max_age_hours),
            maintenance=lambda: read_maintenance(firestore).enabled,
            queries=lambda: query_checks(settings, policy, telemetry, clock or SystemClock()),
        ),
        settings=RunSettings(
            batch_size=settings.migration.batch_size,
            parallel=settings.migration.parallel,
            validate=settings.migration.validate_sample,
            rate_limit=write_rate_of(settings, policy),
            ramp=dataclasses.replace(NEW_COLLECTION, per_second=settings.migration.new_collection_rate),
            set_aside_limit=settings.migration.set_aside_limit,
        ),
        reports=settings.reports_dir,
        published=load_file(settings, clock or SystemClock()),
        on_segment=copy if off_host is not None else None,
        segments=copies,
        backups=LastBackup(backups) if backups is not None else None,
        clock=clock,
    )


class LastBackup:
    """Backups as the last way back of an undo: the :class:`agent.migration.BackupSource` of a deployment."""

    def __init__(self, backups: Backups) -> None:
        self._backups = backups

    def newest(self, before: datetime) -> tuple[str, datetime] | None:
        return newest_backup_of(self._backups)(before)

    def restore(
        self, backup: str, collections: tuple[str, ...], progress: ProgressSink, cancelled: Callable[[], bool]
    ) -> Restored:
        """Nothing is deleted: what the backup does not have may be what users have created since.

        Raises:
            Permanent: TOO_MANY_FAILURES if documents could not be written; the same call goes on.
        """
        kept: list[SetAside] = []
        extra: set[str] = set()

        def left(document: Left) -> None:
            if document.extra:
                extra.add(document.path)
            else:
                collection = document.path.split("/")[-2]
                kept.append(SetAside(name=document.path, collection=collection, why=document.why))

        report = self._backups.restore(
            backup, collections=collections, on_left=left, progress=progress, cancelled=cancelled
        )
        if report.failed:
            raise Permanent(
                PermanentReason.TOO_MANY_FAILURES,
                f"{report.failed:,} documents of {backup} could not be written back",
                hint="do the same again: it goes on where it stopped",
            )
        return Restored(documents=report.applied, kept=tuple(kept), extra=frozenset(extra))


def expected_of(policy: Policy) -> Expected:
    """What the page says that the database holds."""
    return Expected(
        documents=policy.statistics.documents,
        bytes=policy.statistics.size_bytes,
        collections=policy.statistics.collections,
        order={plan.collection: plan.documents for plan in policy.migration_order},
    )


def page_queries_of(settings: Settings, policy: Policy, firestore: Firestore, clock: Clock) -> PageQueries:
    """The page's queries as the settings define them; only its regenerable collections may be written to.

    Raises:
        Misconfigured: a definition would write elsewhere.
    """
    transient = tuple(plan.collection for plan in policy.migration_order if plan.documents is None)
    return PageQueries(firestore, settings.queries, transient=transient, clock=clock)


def query_checks(settings: Settings, policy: Policy, telemetry: Telemetry, clock: Clock) -> tuple[QueryCheck, ...]:
    """The page's critical queries, asked a few times each, one attempt at a time."""
    address = address_of(settings)
    with Firestore(
        address, telemetry=telemetry, origin="perf", deadline=_QUERY_DEADLINE_S, retry=NO_RETRY, clock=clock
    ) as firestore:
        queries = page_queries_of(settings, policy, firestore, clock)
        timings = [queries.measure(target, runs=_QUERY_RUNS) for target in policy.query_targets]
    return tuple(
        QueryCheck(
            query=timing.query,
            p95=timing.p95,
            target=timing.target,
            problem=timing.problem,
            failed=timing.verdict is Verdict.FAILED,
        )
        for timing in timings
    )


def change_lock(settings: Settings, purpose: str, clock: Clock) -> AbstractContextManager[object]:
    """One bulk change at a time; a holder that is just stopping is waited for."""
    return ChangeLock(settings.data_dir / "change.lock", purpose=purpose, clock=clock, patience=_LOCK_PATIENCE_S)


NewestBackup = Callable[[datetime], tuple[str, datetime] | None]


def newest_backup_of(backups: Backups) -> NewestBackup:
    """Id and read_time of the newest verified backup from before a moment."""

    def newest(before: datetime) -> tuple[str, datetime] | None:
        manifest = backups.newest_verified(before)
        return (manifest.id, manifest.read_time) if manifest is not None else None

    return newest
