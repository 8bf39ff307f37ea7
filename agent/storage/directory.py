"""Backups in a directory: a local disk or a mounted file system.

An object is written to a hidden temporary file beside its place, synced, linked to its name and the folder synced
(https://lwn.net/Articles/457667/ says why each of these is needed). A link, unlike a rename, fails when the name is
taken, so two writers can't overwrite each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason, RunbookdError
from agent.storage.contract import CHUNK_BYTES, StoredObject, Usage, checked_key

_TEMPORARY = ".partial-"
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_ATTEMPTS = 100  # to make a file beside others who tidy; a folder where none can be made at all is no race


class DirectoryStorage:
    """A directory that keeps the promise of :class:`agent.storage.Storage`.

    Args:
        name: the storage's name in configuration and metrics.
        path: the folder; made when the first object is put.
        capacity_bytes: how much may be stored; ``None`` for as much as the file system holds.
    """

    def __init__(self, *, name: str, path: Path, capacity_bytes: int | None = None) -> None:
        self._name = name
        self.path = path
        self._capacity_bytes = capacity_bytes

    @property
    def name(self) -> str:
        return self._name

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        target = self._target(key)
        with self._translated(target), self._temporary(target) as (file, temporary):
            for chunk in chunks:
                file.write(chunk)
            _sync(file)
            try:
                os.link(temporary, target)
            except FileExistsError:
                if not _same_bytes(temporary, target):
                    raise Permanent(PermanentReason.CONFLICT, f"{target} exists already, with other bytes") from None
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                # FAT and some network file systems have no hard links; a rename is still atomic.
                if target.exists() and not _same_bytes(temporary, target):
                    raise Permanent(PermanentReason.CONFLICT, f"{target} exists already, with other bytes") from None
                temporary.rename(target)
            _sync_folder(target.parent)
            return self._describe(key, target)

    def replace(self, key: str, data: bytes) -> StoredObject:
        target = self._target(key)
        with self._translated(target), self._temporary(target) as (file, temporary):
            file.write(data)
            _sync(file)
            temporary.rename(target)
            _sync_folder(target.parent)
            return self._describe(key, target)

    def get(self, key: str) -> Iterator[bytes]:
        target = self._target(key)
        with self._translated(target), target.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def exists(self, key: str) -> bool:
        return self._target(key).is_file()

    def list(self, prefix: str = "") -> list[StoredObject]:
        folder = self.path / prefix.rpartition("/")[0]
        found = []
        for target in self._files(folder):
            key = target.relative_to(self.path).as_posix()
            if key.startswith(prefix) and not target.name.startswith("."):
                with suppress(FileNotFoundError):  # removed while we looked
                    found.append(self._describe(key, target))
        return sorted(found, key=lambda stored: stored.key)

    def delete(self, key: str) -> None:
        target = self._target(key)
        with self._translated(target):
            target.unlink(missing_ok=True)
            self._tidy(target.parent)

    def usage(self) -> Usage:
        stored = sum(stored.size_bytes for stored in self.list())
        if self._capacity_bytes is not None:
            return Usage(used_bytes=stored, capacity_bytes=self._capacity_bytes, stored_bytes=stored)
        folder = self.path
        while not folder.exists():
            folder = folder.parent
        disk = shutil.disk_usage(folder)
        # free + used, not total: the blocks reserved for root are not ours to fill (df counts the same way).
        return Usage(used_bytes=disk.used, capacity_bytes=disk.used + disk.free, stored_bytes=stored)

    def sweep(self) -> int:
        removed = 0
        for file in self._files(self.path):
            if file.name.startswith(_TEMPORARY) and _nobody_writes(file):
                with self._translated(file):
                    file.unlink(missing_ok=True)
                    self._tidy(file.parent)
                removed += 1
        return removed

    def _target(self, key: str) -> Path:
        return self.path / checked_key(key)

    def _files(self, folder: Path) -> Iterator[Path]:
        for root, _, names in os.walk(folder):
            for name in names:
                yield Path(root, name)

    def _tidy(self, folder: Path) -> None:
        """Make a removal durable, and remove the folders that it left empty."""
        while folder != self.path and folder.is_dir():
            _sync_folder(folder)
            try:
                folder.rmdir()
            except OSError:
                return  # others live there
            folder = folder.parent

    def _describe(self, key: str, target: Path) -> StoredObject:
        status = target.stat()
        return StoredObject(key=key, size_bytes=status.st_size, stored_at=datetime.fromtimestamp(status.st_mtime, UTC))

    @contextmanager
    def _temporary(self, target: Path) -> Iterator[tuple[BinaryIO, Path]]:
        """A locked hidden file beside ``target``, gone afterwards."""
        for _ in range(_ATTEMPTS):
            temporary = target.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
            _make_folder(target.parent)
            try:
                file = temporary.open("xb")
            except FileNotFoundError:
                continue  # delete() tidied the empty folder away between our two calls
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                break
            file.close()  # sweep() took it for a leftover in the moment before it was locked
        else:
            raise PermissionError(errno.EACCES, "no file can be made there")
        try:
            with file:
                yield file, temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _translated(self, target: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _fault(error, target) from error


def _fault(error: OSError, target: Path) -> RunbookdError:
    if isinstance(error, FileNotFoundError):
        return Permanent(PermanentReason.NOT_FOUND, f"{target} does not exist")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Permanent(
            PermanentReason.DISK_FULL,
            f"no room is left for {target}",
            hint="remove old backups with `runbookd backup clean --yes`, or make the disk larger",
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}:
        return Misconfigured(
            MisconfiguredReason.NOT_WRITABLE,
            f"{target} can't be used ({error.strerror})",
            hint="give this user permission on the folder, or choose another one for backups",
        )
    return Permanent(PermanentReason.INTERNAL, f"{target}: {error.strerror or error}")


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same_bytes(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while chunk := left.read(CHUNK_BYTES):
            if chunk != right.read(CHUNK_BYTES):
                return False
    return True


def _nobody_writes(file: Path) -> bool:
    """Whether the writer of a temporary file is dead: the kernel drops its lock with it, ``kill -9`` included."""
    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False
