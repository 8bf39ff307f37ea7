"""Deciding what kind of backup is taken and what it builds on, and having it taken.

:mod:`agent.backup.create` reads and publishes what an order says; here the order is made out: an incremental needs a
sound chain to build on, a critical one the page's collections, and a progress bar what the database held last time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.backup.balance import mean_sizes
from agent.backup.catalogue import Catalogue
from agent.backup.chain import Chain, load_chain
from agent.backup.create import Order, create_backup
from agent.backup.manifest import BackupType, Manifest
from agent.backup.ports import Reader
from agent.backup.segments import Compression
from agent.clock import Clock
from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason
from agent.telemetry import ProgressSink

_LONGEST_CHAIN = 30
"""Members after which an incremental becomes a full backup: each of them is one more thing that may break."""


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Takes backups of one database.

    Args:
        database: which.
        catalogue: where they go, and what is there.
        wanted: names of the storages that a type goes to.
        critical: collection ids of a critical backup.
        parallel: ranges read at once.
        tool: name and version for the manifest.
    """

    database: Reader
    catalogue: Catalogue
    clock: Clock
    wanted: Callable[[BackupType], Sequence[str]]
    critical: tuple[str, ...]
    parallel: int
    tool: str

    def make(
        self, kind: BackupType, compression: Compression, progress: ProgressSink, cancelled: Callable[[], bool]
    ) -> Manifest:
        """Take a backup; an incremental for which there is nothing sound to build on becomes a full one.

        Raises:
            Misconfigured: ``SETTINGS``: a critical backup, and no critical collections are known.
            Permanent, Transient: see :func:`agent.backup.create.create_backup`.
        """
        base = self._base() if kind is BackupType.INCREMENTAL else None
        try:
            return self._make(kind, base, compression, progress, cancelled)
        except Permanent as error:
            if base is None or error.reason not in {PermanentReason.CORRUPT, PermanentReason.NOT_FOUND}:
                raise
            return self._make(kind, None, compression, progress, cancelled)

    def _make(
        self,
        kind: BackupType,
        base: Chain | None,
        compression: Compression,
        progress: ProgressSink,
        cancelled: Callable[[], bool],
    ) -> Manifest:
        actual = BackupType.FULL if kind is BackupType.INCREMENTAL and base is None else kind
        if actual is BackupType.CRITICAL and not self.critical:
            raise Misconfigured(
                MisconfiguredReason.SETTINGS,
                "no collection has the priority CRITICAL",
                hint="mark one in the runbook's migration order",
            )
        whole = [entry.manifest for entry in self.catalogue.entries() if entry.manifest and not entry.manifest.only]
        previous = next(iter(whole), None)
        # An increment's documents are few, and not like the others.
        ours = (one for one in whole if one.database == self.database.address.root and not one.parent)
        order = Order(
            type=actual,
            requested=kind if kind is not actual else None,
            storages=tuple(self.wanted(actual)),
            only=self.critical if actual is BackupType.CRITICAL else (),
            base=base,
            compression=compression,
            key_id=self.catalogue.keys.current,
            parallel=self.parallel,
            expected=previous.total_documents if previous and actual is not BackupType.CRITICAL else None,
            sizes=mean_sizes(measure.segments) if (measure := next(ours, None)) is not None else {},
            tool=self.tool,
        )
        # What an increment builds on must not expire under it: until it is published, nothing else says it is needed.
        with self.catalogue.in_use([member.id for member in base.members] if base else [], "parent"):
            return create_backup(
                order,
                reader=self.database,
                catalogue=self.catalogue,
                clock=self.clock,
                progress=progress,
                cancelled=cancelled,
            )

    def _base(self) -> Chain | None:
        """What an incremental builds on: the newest full or incremental backup of this database with a sound chain."""
        entries = {entry.id: entry for entry in self.catalogue.entries()}
        usable = [
            entry
            for entry in entries.values()
            if entry.manifest is not None
            and entry.manifest.type in {BackupType.FULL, BackupType.INCREMENTAL}
            and entry.manifest.database == self.database.address.root
            and not any(copy.verification and not copy.verification.ok for copy in entry.copies)
        ]
        for entry in usable:
            try:
                chain = load_chain(self.catalogue, entry.id)
            except Permanent:
                continue
            return chain if len(chain.members) < _LONGEST_CHAIN else None
        return None
