"""Removing what retention gives up, and what interrupted work left behind.

The verdicts are :func:`~agent.backup.retention.decide_retention`'s; here they are carried out, and each is looked at
once more before it is: a restore may have begun, or an increment been published, since the list was made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.backup.catalogue import Catalogue
from agent.backup.manifest import BackupType
from agent.backup.records import Entry
from agent.backup.retention import Candidate, decide_retention
from agent.backup.summaries import CleanReport, candidate_of, type_of
from agent.faults import Refused, RefusedReason


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What retention goes by.

    Args:
        database: whose backups they are; those of others stay.
        wanted: names of the storages that a type goes to.
        retention: how long each type is kept; one that is missing is kept for good.
    """

    database: str
    wanted: Callable[[BackupType], Collection[str]]
    retention: Mapping[BackupType, timedelta]

    def candidates(self, entries: Iterable[Entry]) -> list[Candidate]:
        """What retention has to know of ``entries``."""
        return [candidate_of(entry, database=self.database, wanted=self.wanted(type_of(entry))) for entry in entries]


def clean_backups(catalogue: Catalogue, rules: Rules, *, now: datetime, dry_run: bool) -> CleanReport:
    """Decide on every copy, and remove those that may go, children before what they build on.

    Raises:
        RunbookdError: a storage does not answer; nothing is decided on half the facts.
        Refused: ``LAST_GOOD`` if the verdicts would leave no backup at all; a guard against bugs and odd clocks.
    """
    entries = {entry.id: entry for entry in catalogue.entries(everywhere=True)}
    verdicts = decide_retention(rules.candidates(entries.values()), retention=rules.retention, now=now)
    if verdicts and not any(verdict.keep for verdict in verdicts):
        raise Refused(RefusedReason.LAST_GOOD, "retention would remove every backup; nothing was removed")
    doomed: dict[str, list[str]] = {}
    for verdict in verdicts:
        if not verdict.keep:
            doomed.setdefault(verdict.id, []).append(verdict.storage)
    removed: list[str] = []
    freed = 0
    gone: set[str] = set()
    for backup, storages in doomed.items():  # newest first
        if not dry_run and not _may_still_go(catalogue, backup, gone):
            continue
        # The copy on this host first: killed in between, what is left is one elsewhere, which the next clean removes.
        for storage in storages:
            freed += sum(sum(copy.files.values()) for copy in entries[backup].copies if copy.storage == storage)
            removed.append(f"{storage}:{backup}")
            if not dry_run:
                catalogue.remove(backup, storage)
        if len(storages) == len(entries[backup].copies):
            gone.add(backup)
    leftovers = (
        [f"{storage}:{folder}" for storage, folder in catalogue.leftovers()]
        if dry_run
        else catalogue.remove_leftovers()
    )
    return CleanReport(
        dry_run=dry_run, verdicts=verdicts, removed=tuple(removed), leftovers=tuple(leftovers), freed_bytes=freed
    )


def _may_still_go(catalogue: Catalogue, backup: str, gone: Collection[str]) -> bool:
    """Whether nobody took a lease on it, pinned it, or built on it since the verdicts were made."""

    def needs(entry: Entry) -> bool:
        if entry.id == backup:
            return bool(entry.leases) or entry.pinned or entry.restoring
        return entry.manifest is not None and entry.manifest.parent == backup and entry.id not in gone

    return not any(needs(entry) for entry in catalogue.entries(everywhere=True))
