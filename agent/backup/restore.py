"""Bringing a database to the state of a backup by writing only what differs.

The plan is made by walking the backup and the live database side by side, and carried out as it is made: each write
carries the precondition that the document is still as it was when it was compared, so that what somebody changes in
the meantime is kept and reported, never overwritten. A plan needs nothing but a reader; a dry run has nothing else.
Restoring again after an interruption finds less to write: that is how it resumes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from agent.backup.chain import Chain, StoredDocument
from agent.backup.joining import merge_join
from agent.backup.ports import Database, Reader
from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.firestore import (
    CollectionGroup,
    MustExistAt,
    MustNotExist,
    NameRange,
    PlannedWrite,
    RawDocument,
    WriteKind,
    WriteState,
    canonical,
)
from agent.firestore.maintenance import PATH as MAINTENANCE_PATH
from agent.telemetry import Progress, ProgressSink, ignore_progress

UNTOUCHED = MAINTENANCE_PATH
"""The document by which this very restore keeps traffic away; the backup's version of it would let it back in."""

_LISTED = 100
_REPORT_EVERY = 1000


class Change(StrEnum):
    """What restoring does to one document."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


ChangeSink = Callable[[Change, str], None]
"""Told of every planned change: what, and the document's relative name."""


def ignore_changes(_: Change, __: str) -> None:
    """A sink for callers that don't print the plan."""


@dataclass(frozen=True, slots=True)
class Left:
    """A document that a restore left as it is.

    Args:
        path: its relative name.
        why: why the planned change was not made; empty for a document that the backup does not have.
    """

    path: str
    why: str = ""

    @property
    def extra(self) -> bool:
        """Whether it is none of the backup's documents."""
        return not self.why


LeftSink = Callable[[Left], None]
"""Told of every document that is left as it is, of which the report names a hundred and counts the rest."""


def ignore_left(_: Left) -> None:
    """A sink for callers to whom the report says enough."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to restore.

    Args:
        collections: collection ids to restore, wherever they occur; empty for everything in the backup.
        delete_extra: also delete live documents that the backup does not have.
    """

    collections: tuple[str, ...] = ()
    delete_extra: bool = False


@dataclass(frozen=True, kw_only=True)
class RestoreReport:
    """What a restore did, or, as a dry run, would do.

    Args:
        id: the backup.
        target: ``projects/p/databases/d``.
        dry_run: whether nothing was to be written.
        compared: documents of the backup that were looked at.
        unchanged: documents that were as in the backup.
        created, updated, deleted: planned changes.
        extra: live documents that the backup does not have and that were left in place.
        applied: changes that the database confirmed.
        conflicts: changes not made because somebody else changed the document meanwhile.
        failed: changes that the database rejected or that could not be delivered.
        unresolved: names and reasons of the first hundred conflicts and failures.
        plan_digest: SHA-256 over the planned changes; equal plans have equal digests.
        seconds: how long it took.
    """

    id: str
    target: str
    dry_run: bool
    compared: int
    unchanged: int
    created: int
    updated: int
    deleted: int
    extra: int
    applied: int = 0
    conflicts: int = 0
    failed: int = 0
    unresolved: tuple[str, ...] = ()
    plan_digest: str = ""
    seconds: float = 0.0

    @property
    def changes(self) -> int:
        """Planned changes of all kinds."""
        return self.created + self.updated + self.deleted

    @property
    def complete(self) -> bool:
        """Whether the database is now as in the backup, as far as the recipe goes."""
        return not self.dry_run and self.applied == self.changes


@dataclass(kw_only=True)
class _Plan:
    """A plan while it is made."""

    recipe: Recipe
    on_change: ChangeSink
    on_left: LeftSink
    progress: ProgressSink
    cancelled: Callable[[], bool]
    total: int
    compared: int = 0
    unchanged: int = 0
    extra: int = 0
    counts: dict[Change, int] = field(default_factory=lambda: dict.fromkeys(Change, 0))
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def changes(self, chain: Chain, reader: Reader) -> Iterator[PlannedWrite]:
        """What has to be written to ``reader``'s database, in order."""
        for scope in _scopes(chain, self.recipe):
            live = (document for page in reader.pages(scope) for document in page)
            pairs = merge_join(
                chain.documents(scope),
                live,
                lambda stored: stored.path,
                lambda document: reader.address.relative(document.name),
            )
            for stored, current in pairs:
                write = self._compare(stored, current, reader)
                if write is not None:
                    yield write
        self._report("done")

    def _compare(
        self, stored: StoredDocument | None, current: RawDocument | None, reader: Reader
    ) -> PlannedWrite | None:
        if stored is None:
            return self._surplus(current, reader) if current is not None else None
        self.compared += 1
        if self.compared % _REPORT_EVERY == 0:
            self._report(stored.path.rsplit("/", 2)[-2])
        if stored.path == UNTOUCHED:
            self.unchanged += 1
            return None
        if current is not None and stored.document.raw == current.raw:
            self.unchanged += 1  # most documents of a restore in place: not even their fields are parted from the rest
            return None
        fields = stored.document.fields
        if current is None:
            self._note(Change.CREATE, stored.path, fields)
            return PlannedWrite(name=reader.address.name(stored.path), fields=fields, precondition=MustNotExist())
        if _same(fields, current.fields):
            self.unchanged += 1
            return None
        self._note(Change.UPDATE, stored.path, fields)
        return PlannedWrite(name=current.name, fields=fields, precondition=MustExistAt(current.update_time))

    def _surplus(self, current: RawDocument, reader: Reader) -> PlannedWrite | None:
        path = reader.address.relative(current.name)
        if not self.recipe.delete_extra or path == UNTOUCHED:
            self.extra += 1
            self.on_left(Left(path))
            return None
        self._note(Change.DELETE, path, b"")
        return PlannedWrite(name=current.name, kind=WriteKind.DELETE, precondition=MustExistAt(current.update_time))

    def _note(self, change: Change, path: str, fields: bytes) -> None:
        self.counts[change] += 1
        self.digest.update(f"{change} {path} {len(fields)}\n".encode() + fields)
        self.on_change(change, path)

    def _report(self, stage: str) -> None:
        if self.cancelled():
            raise Permanent(
                PermanentReason.CANCELLED,
                "the restore was cancelled; what was written so far stays",
                hint="run the same restore again: it goes on where it stopped",
            )
        self.progress(
            Progress(operation="restore", stage=stage, done=self.compared, total=max(self.total, self.compared))
        )

    def result(self, chain: Chain, reader: Reader, *, dry_run: bool, seconds: float) -> RestoreReport:
        return RestoreReport(
            id=chain.newest.id,
            target=reader.address.root,
            dry_run=dry_run,
            compared=self.compared,
            unchanged=self.unchanged,
            created=self.counts[Change.CREATE],
            updated=self.counts[Change.UPDATE],
            deleted=self.counts[Change.DELETE],
            extra=self.extra,
            plan_digest=self.digest.hexdigest(),
            seconds=seconds,
        )


def plan_restore(
    chain: Chain,
    recipe: Recipe,
    *,
    reader: Reader,
    clock: Clock,
    on_change: ChangeSink = ignore_changes,
    on_left: LeftSink = ignore_left,
    progress: ProgressSink = ignore_progress,
    cancelled: Callable[[], bool] = lambda: False,
) -> RestoreReport:
    """What restoring would change now, document by document; nothing is written."""
    began = clock.monotonic()
    plan = _plan(chain, recipe, on_change, on_left, progress, cancelled)
    for _ in plan.changes(chain, reader):
        pass
    return plan.result(chain, reader, dry_run=True, seconds=clock.monotonic() - began)


def restore_backup(
    chain: Chain,
    recipe: Recipe,
    *,
    database: Database,
    clock: Clock,
    on_change: ChangeSink = ignore_changes,
    on_left: LeftSink = ignore_left,
    progress: ProgressSink = ignore_progress,
    cancelled: Callable[[], bool] = lambda: False,
) -> RestoreReport:
    """Make the database what the chain says, as far as the recipe goes.

    Raises:
        Permanent: ``CANCELLED``; ``CORRUPT`` if a file of the backup changed since it was checked.
        RunbookdError: as the database raised it. What was written stays; restoring again goes on.
    """
    began = clock.monotonic()
    plan = _plan(chain, recipe, on_change, on_left, progress, cancelled)
    applied = conflicts = failed = 0
    unresolved: list[str] = []
    for outcome in database.write(plan.changes(chain, database), origin="restore"):
        match outcome.state:
            case WriteState.APPLIED:
                applied += 1
                continue
            case WriteState.CONFLICT:
                conflicts += 1
            case WriteState.REJECTED | WriteState.FAILED:
                failed += 1
        left = Left(database.address.relative(outcome.name), outcome.message or str(outcome.reason))
        on_left(left)
        if len(unresolved) < _LISTED:
            unresolved.append(f"{left.path}: {left.why}")
    report = plan.result(chain, database, dry_run=False, seconds=clock.monotonic() - began)
    return replace(report, applied=applied, conflicts=conflicts, failed=failed, unresolved=tuple(unresolved))


def _plan(
    chain: Chain,
    recipe: Recipe,
    on_change: ChangeSink,
    on_left: LeftSink,
    progress: ProgressSink,
    cancelled: Callable[[], bool],
) -> _Plan:
    """A plan that has not looked at anything yet.

    Raises:
        Permanent: ``NOT_FOUND`` if a collection is asked for that the backup does not cover.
    """
    covered = set(chain.newest.only)
    missing = sorted(set(recipe.collections) - covered) if covered else []
    if missing:
        raise Permanent(
            PermanentReason.NOT_FOUND,
            f"{chain.newest.id} does not hold {', '.join(missing)}; it holds {', '.join(sorted(covered))}",
        )
    return _Plan(
        recipe=recipe,
        on_change=on_change,
        on_left=on_left,
        progress=progress,
        cancelled=cancelled,
        total=chain.newest.total_documents,
    )


def _scopes(chain: Chain, recipe: Recipe) -> Sequence[CollectionGroup | NameRange]:
    if recipe.collections:
        return [CollectionGroup(id=collection) for collection in recipe.collections]
    return chain.scopes


def _same(one: bytes, other: bytes) -> bool:
    """Whether two documents' fields hold the same, in whatever order the server sent them."""
    return one == other or (len(one) == len(other) and canonical(one) == canonical(other))
