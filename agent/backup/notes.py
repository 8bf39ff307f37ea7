"""What is noted of restores beside the backup that they are from: that one has begun, and how it ended.

The first note is written before the first change to the database and goes when the restore has finished, so a
database that a crash left half restored is never without a word: ``runbookd backup list``, the status page and a
metric tell of it until the same restore was run again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from agent.backup.catalogue import Catalogue, folders_of
from agent.backup.manifest import seal, unseal
from agent.backup.records import RESTORING, Interrupted
from agent.clock import Clock, rfc3339
from agent.faults import Misconfigured, MisconfiguredReason, Permanent, RunbookdError

_RESTORED = "restored-"


class RestoreNotes:
    """The notes in the storages of a catalogue."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def begin(self, backup: str, target: str, collections: tuple[str, ...], *, delete_extra: bool) -> None:
        """Note, before the first write, that ``target`` is being changed; in every storage that takes it.

        Raises:
            Misconfigured: ``NOT_WRITABLE``: none does, so nothing would tell of a database left half restored.
        """
        body = {
            "target": target,
            "since": rfc3339(self._clock.now()),
            "collections": list(collections),
            "delete_extra": delete_extra,
        }
        failures: list[RunbookdError] = []
        copies = self._catalogue.entry(backup).copies
        for copy in copies:
            try:
                self._catalogue.storages[copy.storage].replace(f"{backup}/{_restoring(target)}", seal(body))
            except RunbookdError as error:
                failures.append(error)
        if len(failures) == len(copies):
            raise Misconfigured(
                MisconfiguredReason.NOT_WRITABLE,
                f"no storage of {backup} takes the note that {target} is being restored ({failures[0].message}); "
                "nothing was restored",
                hint=f"make one of them writable, or copy the folder {backup} into storage.local",
            ) from failures[0]

    def keep_report(self, backup: str, report: Mapping[str, Any]) -> None:
        """Keep the report of a finished restore beside the backup that it came from."""
        now = self._clock.now()
        file = f"{_RESTORED}{now:%Y%m%d-%H%M%S-%f}.json"
        for copy in self._catalogue.entry(backup).copies:
            with suppress(RunbookdError):
                self._catalogue.storages[copy.storage].replace(
                    f"{backup}/{file}", seal({"finished_at": rfc3339(now), **report})
                )

    def settle(self, target: str, backup: str | None) -> None:
        """A restore finished; with ``backup`` ``None`` it was of everything, and settles every earlier one."""
        file = _restoring(target)
        for storage in self._catalogue.storages.values():
            with suppress(RunbookdError):
                folders = [backup] if backup else [name for name, files in folders_of(storage).items() if file in files]
                for folder in folders:
                    storage.delete(f"{folder}/{file}")

    def interrupted(self) -> tuple[Interrupted, ...]:
        """Restores that were begun, did not finish, and that nobody is working on."""
        found: dict[tuple[str, str], Interrupted] = {}
        for entry in self._catalogue.entries():
            working = {lease.target for lease in entry.leases}
            for copy in entry.copies:
                for file in copy.files:
                    if not file.startswith(RESTORING):
                        continue
                    with suppress(Permanent):
                        body = unseal(b"".join(self._catalogue.storages[copy.storage].get(f"{entry.id}/{file}")), file)
                        if body["target"] not in working:
                            found[entry.id, body["target"]] = Interrupted(
                                backup=entry.id,
                                target=body["target"],
                                since=datetime.fromisoformat(body["since"]),
                                collections=tuple(body["collections"]),
                                delete_extra=body["delete_extra"],
                            )
        return tuple(found.values())


def _restoring(target: str) -> str:
    return f"{RESTORING}{hashlib.sha256(target.encode()).hexdigest()[:16]}.json"
