"""A dry run: the transform over every document, nothing written anywhere, neither database nor journal nor record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.firestore import WriteKind, decode_fields
from agent.migration.changes import Changes, changes_of
from agent.migration.database import Database
from agent.migration.definition import Definition
from agent.migration.journal import Counts, ScanRange, SetAside
from agent.migration.reading import scan
from agent.migration.run import OPERATION, RunSettings
from agent.telemetry import Progress, ProgressSink

_DIFFS = 5
_FAILURES_LISTED = 1000


@dataclass(frozen=True, kw_only=True)
class Diff:
    """What one document would become.

    Args:
        lines: ``- path: old`` and ``+ path: new`` for each top-level field that differs.
    """

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DryCollection:
    """What would happen to one collection; ``counts.written`` are the documents that would be written."""

    collection: str
    counts: Counts
    diffs: tuple[Diff, ...]


@dataclass(frozen=True, kw_only=True)
class DryRunFindings:
    """What would happen, and every document that would be set aside (the first thousand by name)."""

    collections: tuple[DryCollection, ...]
    failures: tuple[SetAside, ...]
    seconds: float


def dry_run(
    definition: Definition,
    collections: Sequence[tuple[str, int]],
    *,
    database: Database,
    settings: RunSettings,
    clock: Clock,
    progress: ProgressSink,
    cancelled: Callable[[], bool],
) -> DryRunFindings:
    """Transform everything.

    Args:
        collections: ids in order, with the number of their documents.

    Raises:
        Permanent: CANCELLED.
    """
    began = clock.monotonic()
    total = sum(count for _, count in collections)
    found: list[DryCollection] = []
    failures: list[SetAside] = []
    done = 0
    for index, (collection, _) in enumerate(collections):
        scanned = written = unchanged = aside = created = 0
        diffs: list[Diff] = []
        place = ScanRange(index=index, collection=collection)
        pages = scan(database, place, after="", repin_after=settings.repin_after, clock=clock)
        for raw in chain.from_iterable(pages):
            changes = changes_of(definition, raw, database.address)
            scanned += 1
            created += len(changes.creates)
            if changes.problem:
                aside += 1
                if len(failures) < _FAILURES_LISTED:
                    name = database.address.relative(raw.name)
                    failures.append(SetAside(name=name, collection=collection, why=changes.problem))
            elif changes.empty:
                unchanged += 1
            else:
                written += 1
                if len(diffs) < _DIFFS:
                    diffs.append(diff_of(changes, database.address.relative(raw.name)))
            done += 1
            if scanned % settings.batch_size == 0:
                progress(Progress(operation=OPERATION, stage=collection, done=done, total=max(total, done)))
                if cancelled():
                    raise Permanent(PermanentReason.CANCELLED, "the dry run was stopped")
        counts = Counts(scanned=scanned, written=written, unchanged=unchanged, set_aside=aside, created=created)
        found.append(DryCollection(collection=collection, counts=counts, diffs=tuple(diffs)))
        progress(Progress(operation=OPERATION, stage=collection, done=done, total=max(total, done)))
    return DryRunFindings(collections=tuple(found), failures=tuple(failures), seconds=clock.monotonic() - began)


def diff_of(changes: Changes, name: str) -> Diff:
    """The fields in which a document differs after its transform, and what else would be made or deleted."""
    lines: list[str] = []
    if changes.own is not None and changes.own.write.kind is WriteKind.DELETE:
        lines.append("- the whole document")
    elif changes.own is not None:
        before, after = decode_fields(changes.source.raw), decode_fields(changes.own.write.whole)
        for key in sorted({*before, *after}):
            if key in before and before.get(key, _ABSENT) != after.get(key, _ABSENT):
                lines.append(f"- {key}: {_short(before[key])}")
            if key in after and before.get(key, _ABSENT) != after.get(key, _ABSENT):
                lines.append(f"+ {key}: {_short(after[key])}")
    lines.extend(f"+ document {change.write.name.split('/', 5)[5]}" for change in changes.creates)
    return Diff(name=name, lines=tuple(lines))


_ABSENT = object()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
