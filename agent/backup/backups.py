"""The room's front door: everything the command line, the daemon's workers and the recovery ask of backups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import datetime, timedelta

from agent.backup.catalogue import Catalogue
from agent.backup.chain import load_chain
from agent.backup.cleaning import Rules, clean_backups
from agent.backup.encryption import Keyring
from agent.backup.export import ndjson
from agent.backup.inventory import Inventory
from agent.backup.letting_go import Shrinkage, note_shrinkage, shrinkage_since
from agent.backup.making import Maker
from agent.backup.manifest import BackupType, Manifest
from agent.backup.measuring import measured, observe_backups, observe_storages
from agent.backup.notes import RestoreNotes
from agent.backup.ports import Database
from agent.backup.records import Interrupted, LetGo
from agent.backup.restore import (
    ChangeSink,
    LeftSink,
    Recipe,
    RestoreReport,
    ignore_changes,
    ignore_left,
    plan_restore,
    restore_backup,
)
from agent.backup.segments import Compression
from agent.backup.soundness import checked_chain
from agent.backup.summaries import (
    BackupDetails,
    BackupSummary,
    CleanReport,
)
from agent.backup.upload import UploadReport, upload_copies
from agent.backup.verify import Scratch, VerifyReport, verify_backup
from agent.clock import Clock, SystemClock
from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
)
from agent.storage import Storage
from agent.telemetry import ProgressSink, Telemetry, ignore_progress
from agent.telemetry.catalogue import BACKUP_SIZE, RESTORES_INTERRUPTED


class Backups:
    """Backups of one database in one or more storages.

    Args:
        firestore: the database. Its ``origin`` labels the read counter.
        storages: where backups live, nearest first: that is the order in which they are written and read.
        telemetry: spans and metrics.
        clock: time.
        routes: names of the storages that hold each type; a type that is missing goes to every storage.
        retention: how long each type is kept; a type that is missing is kept for good.
        critical: collection ids of a critical backup.
        transient: root collections that fingerprints leave out.
        parallel: ranges read at once.
        scratch: opens an empty database for deep verification.
        keys: encrypts new backups with the first of them and opens old ones with any; none by default.
        tool: name and version for the manifest.
    """

    def __init__(
        self,
        *,
        firestore: Database,
        storages: Sequence[Storage],
        telemetry: Telemetry,
        clock: Clock | None = None,
        routes: Mapping[BackupType, Sequence[str]] | None = None,
        retention: Mapping[BackupType, timedelta] | None = None,
        critical: Sequence[str] = (),
        transient: Sequence[str] = ("sessions", "_config"),
        parallel: int = 4,
        scratch: Scratch | None = None,
        keys: Keyring | None = None,
        tool: str = "runbookd",
    ) -> None:
        if not storages:
            raise Misconfigured(
                MisconfiguredReason.SETTINGS,
                "no storage is configured for backups",
                hint="set storage.local or storage.gcs_bucket in runbookd.yaml",
            )
        self._firestore = firestore
        self._telemetry = telemetry
        self._clock = clock or SystemClock()
        self._catalogue = Catalogue(storages=storages, clock=self._clock, keys=keys)
        self._notes = RestoreNotes(self._catalogue, self._clock)
        self._inventory = Inventory(catalogue=self._catalogue, database=firestore.address.root)
        self._maker = Maker(
            database=firestore,
            catalogue=self._catalogue,
            clock=self._clock,
            wanted=self._wanted,
            critical=tuple(critical),
            parallel=parallel,
            tool=tool,
        )
        self._routes = routes or {}
        self._retention = retention or {}
        self._transient = tuple(transient)
        self._scratch = scratch
        unknown = {name for names in self._routes.values() for name in names} - set(self._catalogue.storages)
        if unknown:
            raise Misconfigured(
                MisconfiguredReason.SETTINGS, f"backups are to go to {', '.join(sorted(unknown))}, which is no storage"
            )

    # --- making ---------------------------------------------------------------------------------------------------

    def create(
        self,
        kind: BackupType,
        *,
        compression: Compression = Compression.ZSTD,
        progress: ProgressSink = ignore_progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Manifest:
        """Take a backup and publish it in each storage of its type.

        An incremental for which there is nothing sound to build on becomes a full one; its manifest says so.

        Raises:
            Misconfigured: ``SETTINGS``: a critical backup, and no critical collections are known.
            Permanent, Transient: see :func:`agent.backup.create.create_backup`.
        """
        kind = BackupType(kind)
        with self._operation("backup", {"backup.type": str(kind)}) as span:
            manifest = self._maker.make(kind, compression, progress, cancelled)
            span["backup.id"] = manifest.id
            span["backup.documents"] = manifest.documents
            self._telemetry.set(BACKUP_SIZE, manifest.stored_bytes, {"type": manifest.type})
            return manifest

    # --- looking --------------------------------------------------------------------------------------------------

    def list(self) -> tuple[BackupSummary, ...]:
        """Every backup, newest first."""
        return self._inventory.summaries()

    def unreachable(self) -> Mapping[str, str]:
        """Storages that do not answer now, and why; what only they hold is missing from the list."""
        self._catalogue.entries()
        return {name: str(error) for name, error in self._catalogue.unreachable.items()}

    def show(self, backup: str) -> BackupDetails:
        """Everything about one backup.

        Raises:
            Permanent: ``NOT_FOUND``; ``CORRUPT`` if it, or what it builds on, is damaged.
        """
        return self._inventory.details(backup)

    def newest_verified(self, before: datetime | None = None, *, kinds: Sequence[BackupType] = ()) -> Manifest | None:
        """The newest restore point of the whole database that is known to be good, or ``None``.

        Args:
            before: only backups whose read_time is earlier.
            kinds: only these types; all that hold the whole database by default.
        """
        return self._inventory.newest_verified(before, kinds)

    def latest(self) -> Manifest:
        """What a person means by the newest good backup: :meth:`newest_verified`, unless that would be a trap.

        Raises:
            Permanent: ``NOT_FOUND``: there is none.
            Refused: ``LAST_GOOD``: it holds less than a tenth of what another of the last seven days holds, as after
                somebody deleted everything and the hourly snapshots went on; and nobody let go of that one.
        """
        return self._inventory.latest()

    def interrupted_restores(self) -> tuple[Interrupted, ...]:
        """Restores that wrote to a database and never finished; running them again completes them."""
        return self._notes.interrupted()

    def observe_metrics(self) -> None:
        """Set the gauges that describe what is stored; for the daemon, at its start and now and then."""
        observe_storages(self._telemetry, self._catalogue)
        observe_backups(self._telemetry, self._catalogue)
        self._telemetry.set(RESTORES_INTERRUPTED, len(self.interrupted_restores()))

    # --- proving --------------------------------------------------------------------------------------------------

    def verify(
        self,
        backup: str,
        *,
        deep: bool = False,
        progress: ProgressSink = ignore_progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> VerifyReport:
        """Read every byte of every copy back, and of everything the backup builds on; keep the results.

        Args:
            deep: also restore it into a scratch database and compare fingerprints.

        Raises:
            Permanent: ``NOT_FOUND``; ``CANCELLED``. Damage is in the report.
            Misconfigured: ``MISSING_PART``: deep, and there is no scratch database.
        """
        if deep and self._scratch is None:
            raise Misconfigured(
                MisconfiguredReason.MISSING_PART, "deep verification needs a scratch database, and none is set up"
            )
        with self._operation("verify", {"backup.id": backup}) as span:
            self._catalogue.refresh()
            report = verify_backup(
                backup,
                catalogue=self._catalogue,
                clock=self._clock,
                transient=self._transient,
                scratch=self._scratch if deep else None,
                progress=progress,
                cancelled=cancelled,
            )
            span["backup.ok"] = report.ok
            observe_backups(self._telemetry, self._catalogue)
            return report

    # --- using ----------------------------------------------------------------------------------------------------

    def restore(
        self,
        backup: str,
        *,
        dry_run: bool = False,
        delete_extra: bool = False,
        collections: Sequence[str] | None = None,
        to: Database | None = None,
        on_change: ChangeSink = ignore_changes,
        on_left: LeftSink = ignore_left,
        progress: ProgressSink = ignore_progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> RestoreReport:
        """Bring the database to the backup's state by writing only what differs.

        Every file that is needed is checked before the first write. References inside documents are restored as they
        are, also into another database.

        Args:
            dry_run: plan only; nothing that could write is even handed over.
            delete_extra: also delete documents that the backup does not have.
            collections: collection ids to restore, wherever they occur; everything by default.
            to: another database than the one backed up.
            on_change: told of every planned change.
            on_left: told of every document that is left as it is.

        Raises:
            Permanent: ``CORRUPT``: a file is damaged in every storage, named, with the next best backup in the hint;
                nothing was written. ``NOT_FOUND``; ``CANCELLED``.
        """
        database = to or self._firestore
        recipe = Recipe(collections=tuple(collections or ()), delete_extra=delete_extra)
        attributes: dict[str, str | int | float | bool] = {"backup.id": backup, "restore.dry_run": dry_run}
        with self._operation("plan" if dry_run else "restore", attributes) as span:
            self._catalogue.refresh()
            chain = load_chain(self._catalogue, backup)
            target = "" if dry_run else database.address.root
            with self._catalogue.in_use([member.id for member in chain.members], "restore", target) as hold:
                chain = checked_chain(chain, self._catalogue, cancelled)

                def renewing(progressed: object) -> None:
                    hold.renew()
                    progress(progressed)  # type: ignore[arg-type]  # a Progress, handed through

                if dry_run:
                    return plan_restore(
                        chain,
                        recipe,
                        reader=database,
                        clock=self._clock,
                        on_change=on_change,
                        on_left=on_left,
                        progress=renewing,
                        cancelled=cancelled,
                    )
                self._notes.begin(backup, target, recipe.collections, delete_extra=delete_extra)
                report = restore_backup(
                    chain,
                    recipe,
                    database=database,
                    clock=self._clock,
                    on_change=on_change,
                    on_left=on_left,
                    progress=renewing,
                    cancelled=cancelled,
                )
                span["restore.applied"] = report.applied
                span["restore.conflicts"] = report.conflicts
                if not report.failed:
                    everything = not recipe.collections and not chain.newest.only
                    self._notes.settle(target, None if everything else backup)
                self._notes.keep_report(backup, asdict(report))
                return report

    def export(
        self, backup: str, *, collections: Sequence[str] = (), cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[bytes]:
        """The documents as NDJSON lines, see :func:`agent.backup.export.ndjson`; checked before the first line."""
        chain = load_chain(self._catalogue, backup)
        with self._catalogue.in_use([member.id for member in chain.members], "export"):
            yield from ndjson(checked_chain(chain, self._catalogue, cancelled), tuple(collections))

    # --- keeping and removing -------------------------------------------------------------------------------------

    def pin(self, backup: str, reason: str = "") -> None:
        """Keep a backup until it is unpinned."""
        self._catalogue.pin(backup, reason)

    def unpin(self, backup: str) -> None:
        """Leave a backup to retention again."""
        self._catalogue.unpin(backup)

    def clean(self, *, dry_run: bool = True) -> CleanReport:
        """Remove what retention gives up, and what interrupted work left behind; see :mod:`agent.backup.cleaning`.

        Raises:
            RunbookdError: a storage does not answer; nothing is decided on half the facts.
            Refused: ``LAST_GOOD`` if the verdicts would leave no backup at all.
        """
        with self._operation("plan" if dry_run else "clean", {}):
            return clean_backups(self._catalogue, self._rules(), now=self._clock.now(), dry_run=dry_run)

    def shrinkage(self, backup: str) -> Shrinkage:
        """What letting go of a backup would mean.

        Raises:
            Permanent: ``NOT_FOUND``; ``INVALID`` if it is not what keeps it.
            Refused: ``LAST_GOOD`` if it is needed all the same.
        """
        return shrinkage_since(self._catalogue, backup, self._rules(), now=self._clock.now())

    def let_go(self, backup: str, *, owner: str, reason: str) -> Shrinkage:
        """Say that the database has really shrunk since a backup: it and older ones are left to their age.

        Raises:
            Permanent, Refused: see :meth:`shrinkage`.
        """
        note = LetGo(owner=owner, reason=reason, at=self._clock.now())
        found = self.shrinkage(backup)
        note_shrinkage(self._catalogue, found, note)
        return found

    def _rules(self) -> Rules:
        return Rules(database=self._firestore.address.root, wanted=self._wanted, retention=self._retention)

    def upload(
        self,
        backup: str = "",
        *,
        progress: ProgressSink = ignore_progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> UploadReport:
        """Bring copies to the storages where the page wants them and where they are missing or damaged, and verify.

        Args:
            backup: only this one and what it builds on; every backup of this database by default.

        Raises:
            RunbookdError: a storage does not answer. What is wrong with a single copy is in the report.
        """
        with self._operation("upload", {"backup.id": backup}) as span:
            self._catalogue.refresh()
            only = {member.id for member in load_chain(self._catalogue, backup).members} if backup else None
            entries = [
                entry
                for entry in self._catalogue.entries(everywhere=True)
                if (only is None or entry.id in only)
                and (entry.manifest is None or entry.manifest.database == self._firestore.address.root)
            ]
            report = upload_copies(
                self._catalogue, entries, wanted=self._wanted, progress=progress, cancelled=cancelled
            )
            span["backup.uploaded"] = len(report.uploaded)
            problems = list(report.problems)
            for made in dict.fromkeys(copy.partition(":")[2] for copy in report.uploaded):
                problems += self.verify(made, progress=progress, cancelled=cancelled).problems
            return replace(report, problems=tuple(problems))

    def _wanted(self, kind: BackupType) -> tuple[str, ...]:
        """Names of the storages that a type goes to."""
        return tuple(self._routes.get(kind, ())) or tuple(self._catalogue.storages)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _operation(
        self, operation: str, attributes: dict[str, str | int | float | bool]
    ) -> AbstractContextManager[dict[str, str | int | float | bool]]:
        return measured(self._telemetry, self._clock, operation, attributes)
