"""Which backups there are, in which storages, and what is known of each copy.

A backup is a folder named after its id in each of its storages. It exists where its manifest does. Beside the
manifest live small sealed records: ``verified.json`` (the result of the newest verification of this copy),
``pinned.json``, and leases. Everything else in this room asks here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agent.backup.encryption import Keyring
from agent.backup.leases import LEASE_PREFIX, Lease, is_living, new_lease, read_lease
from agent.backup.manifest import (
    MANIFEST,
    BackupType,
    Manifest,
    backup_id,
    is_backup_id,
    read_manifest,
    seal,
)
from agent.backup.records import LET_GO, VERIFIED, Copy, Entry, LetGo, Verification
from agent.backup.segments import Segment, checked_segment
from agent.clock import Clock, rfc3339
from agent.faults import (
    Permanent,
    PermanentReason,
    RunbookdError,
    Transient,
    TransientReason,
)
from agent.storage import Storage, StoredObject

PINNED = "pinned.json"
_RENEW_AFTER = timedelta(minutes=10)


class Catalogue:
    """The backups in a set of storages.

    Args:
        storages: in the order in which they are read: nearest first.
        keys: what encrypted backups are opened with, and new ones sealed.
    """

    def __init__(self, *, storages: Sequence[Storage], clock: Clock, keys: Keyring | None = None) -> None:
        self.keys = keys or Keyring()
        self.storages = {storage.name: storage for storage in storages}
        self._clock = clock
        self._manifests: dict[tuple[str, StoredObject], Manifest] = {}
        self.unreachable: dict[str, RunbookdError] = {}
        """Storages that did not answer the last question, and why."""

    def refresh(self) -> None:
        """Forget manifests that were read before: a damaged one may have kept its size and time."""
        self._manifests.clear()

    def entries(self, *, everywhere: bool = False) -> list[Entry]:
        """Every backup, newest first.

        A storage that does not answer is left out and named in :attr:`unreachable`: when the bucket is down, a
        restore from the local copies must still be possible.

        Args:
            everywhere: raise instead, for callers who must not decide on half the facts.
        """
        self.unreachable = {}
        found: dict[str, dict[str, dict[str, StoredObject]]] = {}
        for name in self.storages:
            for folder, files in self._held(name, "backup-").items():
                found.setdefault(folder, {})[name] = files
        entries = [entry for folder, held in found.items() if (entry := self._entry(folder, held)) is not None]
        if self.unreachable and (everywhere or len(self.unreachable) == len(self.storages)):
            raise next(iter(self.unreachable.values()))
        return sorted(entries, key=_age, reverse=True)

    def entry(self, backup: str) -> Entry:
        """One backup.

        Raises:
            Permanent: ``NOT_FOUND``.
        """
        self.unreachable = {}
        held = {}
        if is_backup_id(backup):
            held = {name: files for name in self.storages for files in self._held(name, backup + "/").values()}
        entry = self._entry(backup, held)
        if entry is None:
            if self.unreachable:
                raise next(iter(self.unreachable.values()))
            raise Permanent(
                PermanentReason.NOT_FOUND,
                f"there is no backup {backup}",
                hint="`runbookd backup list` shows those there are",
            )
        return entry

    def manifest(self, backup: str) -> Manifest:
        """The manifest of a backup, from the first storage that has a sound one.

        Raises:
            Permanent: ``NOT_FOUND``; ``CORRUPT`` if it is damaged wherever it is.
        """
        entry = self.entry(backup)
        if entry.manifest is None:
            raise Permanent(PermanentReason.CORRUPT, "; ".join(copy.problem for copy in entry.copies))
        return entry.manifest

    def read(self, manifest: Manifest, segment: Segment, storages: Iterable[str] = ()) -> bytes:
        """The checked and decrypted bytes of a file of a backup, from the first storage where it is sound.

        Args:
            storages: where to look, in order; everywhere by default.

        Raises:
            Permanent: ``CORRUPT`` or ``NOT_FOUND``, naming every storage and file tried.
            Misconfigured: ``SETTINGS``: the key that it is encrypted with is missing.
        """
        self.keys.require(manifest.key_id, manifest.id)
        problems: list[str] = []
        key = f"{manifest.id}/{segment.file}"
        for name in storages or self.storages:
            try:
                data = checked_segment(replace(segment, file=key), self.storages[name].get(key))
                return self.keys.open(manifest.key_id, key, data)
            except RunbookdError as error:
                problems.append(f"{name}: {error}")
        raise Permanent(PermanentReason.CORRUPT, "; ".join(problems))

    def record(self, backup: str, storage: str, verification: Verification) -> None:
        """Keep the result of a verification beside the copy it is about."""
        self.storages[storage].replace(f"{backup}/{VERIFIED}", verification.to_bytes())

    def pin(self, backup: str, reason: str) -> None:
        """Keep a backup until it is unpinned."""
        for copy in self.entry(backup).copies:
            body = {"reason": reason, "since": rfc3339(self._clock.now())}
            self.storages[copy.storage].replace(f"{backup}/{PINNED}", seal(body))

    def unpin(self, backup: str) -> None:
        """Let retention have it again."""
        for copy in self.entry(backup).copies:
            self.storages[copy.storage].delete(f"{backup}/{PINNED}")

    def let_go(self, backup: str, note: LetGo) -> None:
        """Keep somebody's word beside each copy of a backup."""
        for copy in self.entry(backup).copies:
            self.storages[copy.storage].replace(f"{backup}/{LET_GO}", note.to_bytes())

    # --- making and removing --------------------------------------------------------------------------------------

    def claim(self, kind: BackupType, moment: datetime, storages: Sequence[str]) -> tuple[str, Lease]:
        """Reserve an id for a backup that is about to be made.

        Its lease is in each of ``storages`` that can be written; what of it is there without a manifest, once the
        lease is dead, is a leftover.
        """
        lease = new_lease("create", self._clock.now())
        for serial in range(1, 1000):
            backup = backup_id(kind, moment, serial)
            if self._is_taken(backup):
                continue
            if self._claimed(f"{backup}/{LEASE_PREFIX}create.json", lease, storages):
                return backup, lease
        raise Transient(TransientReason.BUSY, "a thousand backups were begun in one second")

    def _is_taken(self, backup: str) -> bool:
        """Whether any storage that answers has something under the id."""
        for storage in self.storages.values():
            with suppress(RunbookdError):
                if storage.list(backup + "/"):
                    return True
        return False

    def _claimed(self, key: str, lease: Lease, storages: Sequence[str]) -> bool:
        """Whether the lease could be put where all creators put theirs: of two that want one id, one gets it."""
        failures: list[RunbookdError] = []
        for name in storages:
            try:
                self.storages[name].put(key, [lease.to_bytes()])
            except RunbookdError as error:
                if error.reason is PermanentReason.CONFLICT:
                    return False
                failures.append(error)  # this storage is down; if others work, publishing to it will say so
        if len(failures) == len(storages):
            raise failures[0]
        return True

    def release_claim(self, backup: str, storages: Sequence[str]) -> None:
        """The backup is published, or given up and removed."""
        for name in storages:
            with suppress(RunbookdError):
                self.storages[name].delete(f"{backup}/{LEASE_PREFIX}create.json")

    @contextmanager
    def in_use(
        self, backups: Sequence[str], purpose: str, target: str = "", *, also: Sequence[str] = ()
    ) -> Iterator[_Hold]:
        """Hold a lease on each of ``backups`` inside the block; retention leaves them alone.

        Args:
            target: for a restore, the database it writes to.
            also: storages that are about to hold them; a lease there keeps what is not yet whole.
        """
        hold = _Hold(self, backups, new_lease(purpose, self._clock.now(), target), self._clock, also)
        hold.write()
        try:
            yield hold
        finally:
            hold.release()

    def remove(self, backup: str, storage: str) -> None:
        """Delete one copy of a backup: its manifest first, so that no half of it is ever listed."""
        remove_folder(self.storages[storage], backup)

    def leftovers(self) -> list[tuple[str, str]]:
        """Storage and folder, or file, of what killed work left: what has no manifest, and leases of the dead."""
        found = []
        for storage in self.storages.values():
            for folder, files in folders_of(storage).items():
                living = self._living(storage, folder, files)
                if MANIFEST not in files:
                    found += [] if living else [(storage.name, folder)]
                    continue
                dead = [file for file in files if file.startswith(LEASE_PREFIX) and file not in living]
                found += [(storage.name, f"{folder}/{file}") for file in dead]
        return found

    def remove_leftovers(self) -> list[str]:
        """Delete what killed creates, killed removals and killed writes left; what was deleted, for the report."""
        removed = []
        for name, place in self.leftovers():
            folder, _, file = place.partition("/")
            if file:
                self.storages[name].delete(place)
            else:
                remove_folder(self.storages[name], folder)
            removed.append(f"{name}:{place}")
        for storage in self.storages.values():
            removed += [f"{storage.name}:partial file"] * storage.sweep()
        return removed

    # --- reading --------------------------------------------------------------------------------------------------

    def _held(self, name: str, prefix: str) -> dict[str, dict[str, StoredObject]]:
        """The backups in one storage; none if it does not answer."""
        try:
            folders = folders_of(self.storages[name], prefix)
        except RunbookdError as error:
            self.unreachable[name] = error
            return {}
        return {folder: files for folder, files in folders.items() if MANIFEST in files}

    def _entry(self, backup: str, held: Mapping[str, dict[str, StoredObject]]) -> Entry | None:
        copies = []
        leases: dict[str, Lease] = {}
        for name, files in held.items():
            try:
                copy = self._copy(self.storages[name], backup, files)
                found = self._living(self.storages[name], backup, files)
            except RunbookdError as error:
                if error.reason is not PermanentReason.NOT_FOUND:  # removed while we looked
                    self.unreachable[name] = error
                continue
            copies.append(copy)
            leases |= {lease.token: lease for lease in found.values()}
        if not copies:
            return None
        return Entry(
            id=backup,
            manifest=next((copy.manifest for copy in copies if copy.manifest), None),
            copies=tuple(copies),
            pinned=any(PINNED in copy.files for copy in copies),
            leases=tuple(leases.values()),
            let_go=next((note for copy in copies if (note := self._let_go(backup, copy))), None),
        )

    def _let_go(self, backup: str, copy: Copy) -> LetGo | None:
        if LET_GO not in copy.files:
            return None
        # A note that can't be read, damaged or on its way out with the backup, lets go of nothing.
        with suppress(RunbookdError, KeyError, ValueError):
            return LetGo.from_bytes(b"".join(self.storages[copy.storage].get(f"{backup}/{LET_GO}")))
        return None

    def _copy(self, storage: Storage, backup: str, files: Mapping[str, StoredObject]) -> Copy:
        problem, manifest = "", None
        try:
            manifest = self._read_manifest(storage, files[MANIFEST])
        except Permanent as error:
            if error.reason is PermanentReason.NOT_FOUND:
                raise
            problem = f"{storage.name}: {error}"
        return Copy(
            storage=storage.name,
            files={file: stored.size_bytes for file, stored in files.items()},
            manifest=manifest,
            verification=_verification(storage, backup, files, manifest),
            problem=problem,
        )

    def _read_manifest(self, storage: Storage, stored: StoredObject) -> Manifest:
        known = self._manifests.get((storage.name, stored))
        if known is None:
            data = b"".join(storage.get(stored.key))
            known = read_manifest(data, stored.key)
            if known.id != stored.key.partition("/")[0]:
                raise Permanent(PermanentReason.CORRUPT, f"{stored.key} is the manifest of {known.id}")
            self._manifests[storage.name, stored] = known
        return known

    def _living(self, storage: Storage, backup: str, files: Iterable[str]) -> dict[str, Lease]:
        """The leases whose holders may still be at work, by file."""
        living = {}
        for file in files:
            if file.startswith(LEASE_PREFIX):
                # A lease that can't be read (released this moment, or damaged) protects nothing.
                with suppress(Permanent):
                    lease = read_lease(b"".join(storage.get(f"{backup}/{file}")), file)
                    if is_living(lease, self._clock.now()):
                        living[file] = lease
        return living


class _Hold:
    """Leases that are held; renewed as the work goes on."""

    def __init__(
        self, catalogue: Catalogue, backups: Sequence[str], lease: Lease, clock: Clock, also: Sequence[str]
    ) -> None:
        self._catalogue = catalogue
        self._backups = backups
        self._lease = lease
        self._clock = clock
        self._also = also

    def write(self) -> None:
        for backup in self._backups:
            for storage in {*(copy.storage for copy in self._catalogue.entry(backup).copies), *self._also}:
                # A storage that can be read and not written still serves a restore; it can't be cleaned either.
                with suppress(RunbookdError):
                    self._catalogue.storages[storage].replace(f"{backup}/{self._lease.file}", self._lease.to_bytes())

    def renew(self) -> None:
        """To be called now and then by long work; cheap."""
        now = self._clock.now()
        if now - self._lease.since > _RENEW_AFTER:
            length = self._lease.expires_at - self._lease.since
            self._lease = replace(self._lease, since=now, expires_at=now + length)
            self.write()

    def release(self) -> None:
        for backup in self._backups:
            for storage in self._catalogue.storages.values():
                with suppress(RunbookdError):
                    storage.delete(f"{backup}/{self._lease.file}")


def remove_folder(storage: Storage, folder: str) -> None:
    """Delete what is in ``folder``: the manifest first, the creator's lease last."""

    def order(stored: StoredObject) -> tuple[bool, bool]:
        return not stored.key.endswith(f"/{MANIFEST}"), f"/{LEASE_PREFIX}" in stored.key

    for stored in sorted(storage.list(folder + "/"), key=order):
        storage.delete(stored.key)


def folders_of(storage: Storage, prefix: str = "backup-") -> dict[str, dict[str, StoredObject]]:
    """Objects by backup id and by name within it."""
    found: dict[str, dict[str, StoredObject]] = {}
    for stored in storage.list(prefix):
        folder, _, file = stored.key.partition("/")
        if file and is_backup_id(folder):
            found.setdefault(folder, {})[file] = stored
    return found


def _verification(
    storage: Storage, backup: str, files: Iterable[str], manifest: Manifest | None
) -> Verification | None:
    if manifest is None or VERIFIED not in files:
        return None
    try:
        verification = Verification.from_bytes(b"".join(storage.get(f"{backup}/{VERIFIED}")))
    except (Permanent, KeyError, TypeError, ValueError):
        return None
    return verification if verification.manifest_sha256 == manifest.sha256 else None


def _age(entry: Entry) -> tuple[datetime, str]:
    return (entry.manifest.read_time if entry.manifest else datetime.min.replace(tzinfo=UTC), entry.id)
