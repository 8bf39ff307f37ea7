"""Backups as the people and programs outside see them: plain values made from the catalogue's entries."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from agent.backup.manifest import BackupType, Tally
from agent.backup.records import Entry
from agent.backup.retention import Candidate, CandidateCopy, Verdict
from agent.backup.segments import Compression

LOCAL = "local"
"""The storage on this host; any other survives the host."""


@dataclass(frozen=True, kw_only=True)
class BackupSummary:
    """One line of the list.

    Args:
        id: its id.
        type: its type.
        read_time: the instant it holds; ``None`` if its manifest is damaged.
        documents: documents in it (for an incremental: new and changed ones).
        raw_bytes, stored_bytes: their size on the wire, and of its files.
        parent: what it builds on, or empty.
        storages: where it is.
        verified: whether it and everything it builds on are verified.
        verified_at: when it was last verified.
        proven: whether that was a deep verification.
        pinned, in_use: what keeps retention away.
        problem: what is known to be wrong with it, or empty.
        let_go: who said, when and why that the database has really shrunk since; or empty.
    """

    id: str
    type: BackupType
    read_time: datetime | None
    documents: int
    raw_bytes: int
    stored_bytes: int
    parent: str
    storages: tuple[str, ...]
    verified: bool
    verified_at: datetime | None
    proven: bool
    pinned: bool
    in_use: bool
    problem: str
    let_go: str = ""


@dataclass(frozen=True, kw_only=True)
class BackupDetails:
    """Everything about one backup.

    Args:
        summary: its line in the list.
        database: where it was taken.
        collections: documents and bytes by collection id.
        total_documents: documents in the database at that instant.
        chain: ids it is restored from, the self-contained one first.
        files: how many files it has.
        compression, tool: how and by what it was written.
        fingerprint: of the state it restores to, once verified.
    """

    summary: BackupSummary
    database: str
    collections: Mapping[str, Tally]
    total_documents: int
    chain: tuple[str, ...]
    files: int
    compression: Compression
    tool: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class CleanReport:
    """What retention decided and what was removed.

    Args:
        dry_run: whether nothing was removed.
        verdicts: one for each copy of each backup, newest first.
        removed: ``storage:id`` of the copies removed (or, as a dry run, to be removed).
        leftovers: ``storage:folder`` of interrupted work that was removed (or is to be).
        freed_bytes: stored bytes of the copies removed.
    """

    dry_run: bool
    verdicts: tuple[Verdict, ...]
    removed: tuple[str, ...]
    leftovers: tuple[str, ...]
    freed_bytes: int


def chain_ids(entry: Entry, entries: Mapping[str, Entry]) -> list[str]:
    """The entry's id and those it builds on, as far as they are there; a missing one is in it, too."""
    ids = [entry.id]
    while (known := entries.get(ids[-1])) is not None and known.manifest is not None and known.manifest.parent:
        if known.manifest.parent in ids:
            break
        ids.append(known.manifest.parent)
    return ids


def is_proven(entry: Entry, entries: Mapping[str, Entry]) -> bool:
    """Whether the entry and everything it builds on are there and verified."""
    return all(backup in entries and entries[backup].verified for backup in chain_ids(entry, entries))


def summary_of(entry: Entry, entries: Mapping[str, Entry]) -> BackupSummary:
    """The entry's line in the list."""
    manifest = entry.manifest
    verifications = [copy.verification for copy in entry.copies if copy.verification is not None]
    problems = [copy.problem for copy in entry.copies if copy.problem]
    for copy in entry.copies:
        if copy.verification is not None:
            problems += [f"{copy.storage}: {problem}" for problem in copy.verification.problems]
    return BackupSummary(
        id=entry.id,
        type=type_of(entry),
        read_time=manifest.read_time if manifest else None,
        documents=manifest.documents if manifest else 0,
        raw_bytes=manifest.raw_bytes if manifest else 0,
        stored_bytes=manifest.stored_bytes if manifest else 0,
        parent=manifest.parent if manifest else "",
        storages=tuple(copy.storage for copy in entry.copies),
        verified=is_proven(entry, entries),
        verified_at=max((verification.at for verification in verifications), default=None),
        proven=entry.proven,
        pinned=entry.pinned,
        in_use=bool(entry.leases),
        problem="; ".join(problems),
        let_go=str(entry.let_go) if entry.let_go else "",
    )


def candidate_of(entry: Entry, *, database: str, wanted: Collection[str]) -> Candidate:
    """What retention has to know of the entry.

    Args:
        database: whose retention is decided.
        wanted: names of the storages that backups of its type go to.
    """
    manifest = entry.manifest
    copies = tuple(
        CandidateCopy(storage=copy.storage, on_host=copy.storage == LOCAL, verified=copy.verified)
        for copy in entry.copies
    )
    if manifest is None:
        stamp = "-".join(entry.id.split("-")[2:4])
        return Candidate(
            id=entry.id,
            type=type_of(entry),
            read_time=datetime.strptime(stamp + "+0000", "%Y%m%d-%H%M%S%z"),
            copies=copies,
            pinned=entry.pinned,
            in_use=bool(entry.leases),
            restoring=entry.restoring,
            damaged=True,
        )
    return Candidate(
        id=entry.id,
        type=manifest.type,
        read_time=manifest.read_time,
        copies=copies,
        parent=manifest.parent,
        proven=entry.proven,
        pinned=entry.pinned,
        in_use=bool(entry.leases),
        restoring=entry.restoring,
        limited=bool(manifest.only),
        documents=manifest.total_documents,
        foreign=manifest.database != database,
        belongs_elsewhere=any(name != LOCAL for name in (*wanted, *(copy.storage for copy in copies))),
        let_go=str(entry.let_go) if entry.let_go else "",
    )


def type_of(entry: Entry) -> BackupType:
    """Its type; the id tells it where the manifest can't."""
    return entry.manifest.type if entry.manifest else BackupType(entry.id.split("-")[1])
