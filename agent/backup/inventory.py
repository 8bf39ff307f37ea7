"""What there is to restore from: the list, one backup in full, and which of them is the newest good one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.backup.catalogue import Catalogue
from agent.backup.chain import load_chain
from agent.backup.manifest import BackupType, Manifest
from agent.backup.records import Entry
from agent.backup.retention import SHRUNKEN
from agent.backup.summaries import BackupDetails, BackupSummary, is_proven, summary_of
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason

_RECENT = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The backups in a catalogue, as those who want to restore one see them.

    Args:
        database: ``projects/p/databases/d``: whose backups count as restore points.
    """

    catalogue: Catalogue
    database: str

    def summaries(self) -> tuple[BackupSummary, ...]:
        """Every backup, newest first."""
        entries = {entry.id: entry for entry in self.catalogue.entries()}
        return tuple(summary_of(entry, entries) for entry in entries.values())

    def details(self, backup: str) -> BackupDetails:
        """Everything about one backup.

        Raises:
            Permanent: ``NOT_FOUND``; ``CORRUPT`` if it, or what it builds on, is damaged.
        """
        chain = load_chain(self.catalogue, backup)
        entries = {member.id: self.catalogue.entry(member.id) for member in chain.members}
        manifest = chain.newest
        prints = [copy.verification.fingerprint for copy in entries[backup].copies if copy.verification]
        return BackupDetails(
            summary=summary_of(entries[backup], entries),
            database=manifest.database,
            collections=manifest.collections,
            total_documents=manifest.total_documents,
            chain=tuple(member.id for member in chain.members),
            files=len(manifest.files),
            compression=manifest.compression,
            tool=manifest.tool,
            fingerprint=next(iter(prints), ""),
        )

    def newest_verified(self, before: datetime | None, kinds: Sequence[BackupType]) -> Manifest | None:
        """The newest restore point of the whole database that is known to be good, or ``None``.

        Args:
            before: only backups whose read_time is earlier.
            kinds: only these types; all that hold the whole database if empty.
        """
        for _, manifest in self._verified():
            if (before is None or manifest.read_time < before) and (not kinds or manifest.type in kinds):
                return manifest
        return None

    def latest(self) -> Manifest:
        """What a person means by the newest good backup: :meth:`newest_verified`, unless that would be a trap.

        Raises:
            Permanent: ``NOT_FOUND``: there is none.
            Refused: ``LAST_GOOD``: it holds less than a tenth of what another of the last seven days holds, as after
                somebody deleted everything and the hourly snapshots went on; and nobody let go of that one.
        """
        verified = list(self._verified())
        if not verified:
            raise Permanent(
                PermanentReason.NOT_FOUND, "there is no verified backup", hint="take one: runbookd backup create"
            )
        newest = verified[0][1]
        recent = [
            manifest
            for entry, manifest in verified
            if newest.read_time - manifest.read_time <= _RECENT and (manifest is newest or not entry.let_go)
        ]
        most = max(one.total_documents for one in recent)
        fuller = next(one for one in recent if one.total_documents * SHRUNKEN >= most)
        if fuller is not newest:
            raise Refused(
                RefusedReason.LAST_GOOD,
                f"the newest verified backup, {newest.id}, holds {newest.total_documents:,} documents, and "
                f"{fuller.id} holds {fuller.total_documents:,}",
                hint=f"say which one you mean: to undo a deletion it is {fuller.id}; if nothing was lost by accident, "
                f"runbookd backup let-go {fuller.id} --reason WHY",
            )
        return newest

    def _verified(self) -> Iterator[tuple[Entry, Manifest]]:
        """The backups of the whole database that are known to be good, newest first, with their manifests."""
        entries = {entry.id: entry for entry in self.catalogue.entries()}
        for entry in entries.values():
            manifest = entry.manifest
            if manifest is None or manifest.only or manifest.database != self.database:
                continue
            if is_proven(entry, entries):
                yield entry, manifest
