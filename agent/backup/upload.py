"""Bringing copies to where the page wants them: what an upload that failed, or damage, left missing.

``create`` publishes in every storage of a type at once; if one of them is down, the others have the backup and this
one lacks it. An upload makes up for that from a sound copy, file by file as they are stored (encrypted ones stay so),
the manifest last. Killed half-way, it goes on at the next call, or ``clean`` removes what it left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from agent.backup.catalogue import PINNED, Catalogue, remove_folder
from agent.backup.manifest import MANIFEST, BackupType, Manifest
from agent.backup.records import LET_GO, Copy, Entry
from agent.backup.segments import Segment, checked_segment
from agent.faults import Permanent, PermanentReason, RunbookdError
from agent.storage import Storage
from agent.telemetry import Progress, ProgressSink


@dataclass(frozen=True, kw_only=True)
class UploadReport:
    """What an upload did.

    Args:
        uploaded: ``storage:id`` of every copy that is there now and was not, or was damaged, before.
        problems: a sentence for each copy that could not be made.
        bytes_written: stored bytes of the copies made.
    """

    uploaded: tuple[str, ...]
    problems: tuple[str, ...]
    bytes_written: int


def upload_copies(
    catalogue: Catalogue,
    entries: Sequence[Entry],
    *,
    wanted: Callable[[BackupType], Collection[str]],
    progress: ProgressSink,
    cancelled: Callable[[], bool],
) -> UploadReport:
    """Make the copies of ``entries`` that are missing or known to be damaged, parents before children.

    Args:
        wanted: names of the storages that a type goes to.

    Raises:
        Permanent: ``CANCELLED``; what is whole by then stays.
    """
    uploaded: list[str] = []
    problems: list[str] = []
    written = 0
    problems += [f"{entry.id} has no copy with a readable manifest" for entry in entries if entry.manifest is None]
    readable = [(entry, entry.manifest) for entry in entries if entry.manifest is not None]
    for entry, manifest in sorted(readable, key=lambda one: one[1].read_time):
        for storage in lacking(entry, wanted(manifest.type)):
            try:
                written += _upload(catalogue, entry, manifest, storage, progress, cancelled)
            except RunbookdError as error:
                if error.reason is PermanentReason.CANCELLED:
                    raise
                problems.append(f"{storage}:{entry.id}: {error.message}")
                continue
            uploaded.append(f"{storage}:{entry.id}")
    return UploadReport(uploaded=tuple(uploaded), problems=tuple(problems), bytes_written=written)


def lacking(entry: Entry, wanted: Collection[str]) -> list[str]:
    """The wanted storages that have no copy of the backup, or one that is known to be damaged."""
    sound = {copy.storage for copy in entry.copies if _is_usable(copy, entry.manifest)}
    return [storage for storage in wanted if storage not in sound]


def _is_usable(copy: Copy, manifest: Manifest | None) -> bool:
    """Whether nothing is known against the copy."""
    if copy.manifest is None or manifest is None or copy.manifest.sha256 != manifest.sha256:
        return False
    return copy.verification is None or copy.verification.ok


def _upload(
    catalogue: Catalogue,
    entry: Entry,
    manifest: Manifest,
    storage: str,
    progress: ProgressSink,
    cancelled: Callable[[], bool],
) -> int:
    """Make one copy; returns its stored bytes."""
    source = next((copy for copy in entry.copies if _is_usable(copy, manifest) and copy.storage != storage), None)
    if source is None:
        raise Permanent(PermanentReason.CORRUPT, "there is no sound copy of it to take")
    origin, target = catalogue.storages[source.storage], catalogue.storages[storage]
    if any(copy.storage == storage for copy in entry.copies):
        # It may have the one sound instance of some file: only a source that was read to its end replaces it.
        for segment in manifest.files:
            _stored(origin, entry.id, segment)
        remove_folder(target, entry.id)
    documents = 0
    with catalogue.in_use([entry.id], "upload", also=[storage]) as hold:
        for segment in manifest.files:
            if cancelled():
                raise Permanent(PermanentReason.CANCELLED, "the upload was cancelled; the next one goes on")
            target.put(f"{entry.id}/{segment.file}", [_stored(origin, entry.id, segment)])
            hold.renew()
            documents += segment.documents if segment in manifest.segments else 0
            progress(Progress(operation="upload", stage=f"to {storage}", done=documents, total=manifest.documents))
        for record in (PINNED, LET_GO):
            if record in source.files:
                target.replace(f"{entry.id}/{record}", b"".join(origin.get(f"{entry.id}/{record}")))
        target.put(f"{entry.id}/{MANIFEST}", [b"".join(origin.get(f"{entry.id}/{MANIFEST}"))])
    return manifest.stored_bytes


def _stored(storage: Storage, backup: str, segment: Segment) -> bytes:
    """The checked bytes of a file as they are stored, encrypted or not."""
    key = f"{backup}/{segment.file}"
    return checked_segment(replace(segment, file=key), storage.get(key))
