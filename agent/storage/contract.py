"""What a place for backups promises, whatever it is made of.

``backup`` is written against this promise alone; ``tests/storage`` holds every implementation to each sentence of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agent.faults import Permanent, PermanentReason

CHUNK_BYTES = 1 << 20

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,199}")


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One published object.

    Args:
        key: ``/``-separated name below the storage's root.
        size_bytes: its length.
        stored_at: when it was published, by the storage's own clock.
    """

    key: str
    size_bytes: int
    stored_at: datetime


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How full a storage is.

    Args:
        used_bytes: what counts against ``capacity_bytes``. With a configured capacity that is what the storage
            itself holds; with the file system's capacity it is everything on that file system, because that is
            what makes the next backup fail.
        capacity_bytes: the ceiling, or ``None`` where there is none (a bucket without a configured capacity).
        stored_bytes: what the storage itself holds, published objects only.
    """

    used_bytes: int
    capacity_bytes: int | None
    stored_bytes: int

    @property
    def ratio(self) -> float | None:
        """Used share of the capacity, or ``None`` where there is no ceiling."""
        return self.used_bytes / self.capacity_bytes if self.capacity_bytes else None


class Storage(Protocol):
    """A flat set of immutable objects, each of which is there whole or not at all.

    Safe for several threads and several processes at once. Calls raise

    - ``Transient`` when the same call may succeed in a moment (after the implementation's own retries),
    - ``Permanent(DISK_FULL)`` when there is no room,
    - ``Misconfigured(NOT_WRITABLE | CREDENTIALS | ADDRESS)`` when a person has to change something first,
    - ``Permanent(INVALID)`` for a key that is not made of plain parts (``[A-Za-z0-9_.=-]``, no leading dot).
    """

    @property
    def name(self) -> str:
        """Short and unique within a configuration, e.g. ``local`` or ``gcs``; the metric label."""

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        """Publish a new object.

        Once this returns, the object is durable, its stored bytes are the bytes given, and :meth:`list` shows it.
        Until then nobody sees any part of it, not even after ``kill -9``, power loss or an error from ``chunks``
        (which is raised on). Of two writers of one key exactly one succeeds.

        Raises:
            Permanent: ``CONFLICT``: the key exists, with other bytes than these. The object there is untouched.
        """

    def replace(self, key: str, data: bytes) -> StoredObject:
        """Publish ``data`` under ``key``, whether or not the key exists; readers see the old or the new, never a mix.

        For small records that change (a verification's result, a lease), not for data.
        """

    def get(self, key: str) -> Iterator[bytes]:
        """The object's bytes, in order, in chunks of a few megabytes at most.

        Raises:
            Permanent: ``NOT_FOUND`` at the first chunk; ``CORRUPT`` at the latest after the last one, when the
                storage itself knows that the bytes are not the ones that were put.
        """

    def exists(self, key: str) -> bool:
        """Whether the object is published."""

    def list(self, prefix: str = "") -> list[StoredObject]:
        """Published objects whose key starts with ``prefix``, sorted by key; never a partial one."""

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens if it is not there."""

    def usage(self) -> Usage:
        """How full this storage is now."""

    def sweep(self) -> int:
        """Remove what interrupted writes left behind and return how many. Never touches a write under way."""


def checked_key(key: str) -> str:
    """``key``, if every storage can hold it under exactly that name.

    Raises:
        Permanent: ``INVALID``.
    """
    if len(key) <= 900 and all(_PART.fullmatch(part) for part in key.split("/")):
        return key
    raise Permanent(PermanentReason.INVALID, f"{key!r} can't be the name of a stored object")
