"""Reading every byte of a backup back: is it what was written, and is it all there?

Each copy is verified by itself, and its result is kept beside it. A backup counts as verified when every backup it
builds on is, too. Deep verification restores the chain into a scratch database and compares the fingerprints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from agent.backup.catalogue import Catalogue
from agent.backup.chain import Chain, load_chain
from agent.backup.manifest import MANIFEST, Manifest, Tally
from agent.backup.ports import Database
from agent.backup.records import Copy, Verification
from agent.backup.restore import Recipe, restore_backup
from agent.backup.segments import Segment, checked_segment, digest_of, documents_of
from agent.backup.soundness import damaged_records
from agent.clock import Clock
from agent.faults import Permanent, PermanentReason, RunbookdError
from agent.firestore import Fingerprinter, NameRange, RawDocument, fingerprint
from agent.firestore.names import sort_key
from agent.telemetry import Progress, ProgressSink

Scratch = Callable[[], AbstractContextManager[Database]]
"""Opens an empty database that is gone afterwards."""


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What a verification found.

    Args:
        id: the backup.
        ok: whether it can be restored: every member of its chain has a sound copy, and nothing contradicts.
        deep: whether it was restored into a scratch database.
        chain: ids of the backups read, the self-contained one first.
        sound: ``storage:id`` of every copy without a problem.
        problems: ``storage: file is ...`` for everything that is wrong, also where another copy is sound.
        documents: documents read, over all copies.
        bytes_read: stored bytes read, over all copies.
        fingerprint: of the state that would be restored; empty if not ``ok``.
        seconds: how long it took.
    """

    id: str
    ok: bool
    deep: bool
    chain: tuple[str, ...]
    sound: tuple[str, ...]
    problems: tuple[str, ...]
    documents: int
    bytes_read: int
    fingerprint: str
    seconds: float


def verify_backup(
    backup: str,
    *,
    catalogue: Catalogue,
    clock: Clock,
    transient: Iterable[str],
    scratch: Scratch | None,
    progress: ProgressSink,
    cancelled: Callable[[], bool],
) -> VerifyReport:
    """Verify every copy of the backup and of what it builds on, and keep the results.

    Args:
        transient: root collections that the fingerprint leaves out.
        scratch: opens a scratch database for deep verification; ``None`` for none.

    Raises:
        Permanent: ``NOT_FOUND`` if there is no such backup; ``CANCELLED``. Damage is reported, not raised.
    """
    began = clock.monotonic()
    problems: list[str] = []
    sound: list[str] = []
    try:
        chain = load_chain(catalogue, backup)
        members: tuple[Manifest, ...] = chain.members
    except Permanent as error:
        if error.reason is PermanentReason.NOT_FOUND and not _exists(catalogue, backup):
            raise
        problems.append(error.message)
        members = tuple(manifest for manifest in [catalogue.entry(backup).manifest] if manifest)
        chain = None
    meter = _Meter(sum(member.documents for member in members), progress, cancelled)
    checked: list[tuple[Manifest, Copy, list[str]]] = []
    with catalogue.in_use([member.id for member in members], "verify") as hold:
        for member in members:
            for copy in catalogue.entry(member.id).copies:
                found = _verify_copy(catalogue, member, copy, meter)
                checked.append((member, copy, found))
                problems += [f"{copy.storage}: {problem}" for problem in found]
                if not found:
                    sound.append(f"{copy.storage}:{member.id}")
                hold.renew()
        whole = chain is not None and all(
            any(not found for other, _, found in checked if other is member) for member in members
        )
        print_of_state = ""
        if chain is not None and whole:
            usable = _from_sound(catalogue, chain, checked)
            disagreement, print_of_state = _verify_state(usable, transient, scratch, clock)
            if disagreement:
                problems.append(disagreement)
                whole = False
                for member, _, found in checked:
                    if member.id == backup:
                        found.append(disagreement)
        for member, copy, found in checked:
            if copy.manifest is not None:
                tried = scratch is not None and whole
                # A proof holds for as long as the bytes do: reading them again does not undo it.
                before = copy.verification if not found and copy.verification and copy.verification.deep else None
                verification = Verification(
                    at=clock.now(),
                    problems=tuple(found),
                    deep=tried or before is not None,
                    manifest_sha256=copy.manifest.sha256,
                    fingerprint=print_of_state if member.id == backup else "",
                    proven_at=clock.now() if tried else before.proven_at if before else None,
                )
                catalogue.record(member.id, copy.storage, verification)
    return VerifyReport(
        id=backup,
        ok=whole,
        deep=scratch is not None and whole,
        chain=tuple(member.id for member in members),
        sound=tuple(sound),
        problems=tuple(problems),
        documents=meter.documents,
        bytes_read=meter.bytes_read,
        fingerprint=print_of_state,
        seconds=clock.monotonic() - began,
    )


def _verify_copy(catalogue: Catalogue, manifest: Manifest, copy: Copy, meter: _Meter) -> list[str]:
    """What is wrong with one copy: a sentence for each file."""
    if copy.manifest is None:
        return [copy.problem.removeprefix(f"{copy.storage}: ")]
    if copy.manifest.sha256 != manifest.sha256:
        return [f"{manifest.id}/{MANIFEST} is another one than in the other storages"]
    problems = []
    read = {}
    for segments in (manifest.segments, manifest.index, manifest.deletes):
        contents = _Contents()
        for segment in segments:
            if segment.file not in copy.files:
                problems.append(f"{manifest.id}/{segment.file} is missing")
                continue
            key = f"{manifest.id}/{segment.file}"
            try:
                data = checked_segment(replace(segment, file=key), catalogue.storages[copy.storage].get(key))
                data = catalogue.keys.open(manifest.key_id, key, data)
                contents.read(segment, data, manifest, meter)
            except (Permanent, ValueError) as error:
                if isinstance(error, Permanent) and error.reason is PermanentReason.CANCELLED:
                    raise
                problems.append(str(error))
        read[segments] = contents
    if not problems:
        problems = _contradictions(manifest, read[manifest.segments], read[manifest.index])
    return problems + damaged_records(catalogue, copy, manifest.id)


def _contradictions(manifest: Manifest, documents: _Contents, index: _Contents) -> list[str]:
    """What manifest, documents and index say differently, though each is undamaged."""
    found = []
    if digest_of(manifest.segments) != manifest.digest:
        found.append(f"{manifest.id}: the documents are not the ones of the manifest")
    if documents.tallies() != dict(manifest.collections):
        found.append(f"{manifest.id}: the counts by collection are not the manifest's")
    if (manifest.index or not manifest.parent) and documents.keys.digest() != index.keys.digest():
        found.append(f"{manifest.id}: the index is not that of the documents")
    return found + [f"{manifest.id}/{file} is not in order" for file in (*documents.unordered, *index.unordered)]


class _Contents:
    """What the documents of a set of segments add up to."""

    def __init__(self) -> None:
        self.keys = hashlib.sha256()
        self.unordered: list[str] = []
        self._tallies: dict[str, list[int]] = {}
        self._last: dict[str, tuple[object, ...]] = {}

    def read(self, segment: Segment, data: bytes, manifest: Manifest, meter: _Meter) -> None:
        prefix = len(f"{manifest.database}/documents/")
        lines, ordered = [], True
        content = hashlib.sha256()
        for raw in documents_of(segment, data, manifest.compression, content):
            document = RawDocument(raw)
            path = document.name[prefix:]
            collection = path.rsplit("/", 2)[-2]
            lines.append(f"{path} {document.update_time}\n")
            tally = self._tallies.setdefault(collection, [0, 0])
            tally[0] += 1
            tally[1] += len(raw)
            # A backup of some collections is in order within each of them.
            scope = collection if manifest.only else ""
            key: tuple[object, ...] = sort_key(path)
            ordered = ordered and self._last.get(scope, ()) < key
            self._last[scope] = key
        if len(lines) != segment.documents:
            raise Permanent(
                PermanentReason.CORRUPT,
                f"{manifest.id}/{segment.file} holds {len(lines)} documents instead of {segment.documents}",
            )
        if content.hexdigest() != segment.content_sha256:
            raise Permanent(
                PermanentReason.CORRUPT, f"{manifest.id}/{segment.file} does not hold what the manifest says"
            )
        self.keys.update("".join(lines).encode())
        if not ordered:
            self.unordered.append(segment.file)
        meter.advance(segment, counts=segment in manifest.segments)

    def tallies(self) -> dict[str, Tally]:
        return {name: Tally(documents=count, bytes=size) for name, (count, size) in self._tallies.items()}


def _verify_state(chain: Chain, transient: Iterable[str], scratch: Scratch | None, clock: Clock) -> tuple[str, str]:
    """What is wrong with the chain's state as a whole (or nothing), and its fingerprint."""
    collected, total = Fingerprinter(transient), 0
    for scope in chain.scopes:
        for stored in chain.documents(scope):
            collected.add(stored.document)
            total += 1
    expected = collected.result()
    if total != chain.newest.total_documents:
        return f"{chain.newest.id} gives {total} documents instead of {chain.newest.total_documents}", ""
    if scratch is not None:
        with scratch() as database:
            restored = restore_backup(chain, Recipe(), database=database, clock=clock)
            actual = fingerprint(database.documents(NameRange()), exclude=transient)
        if restored.failed or restored.conflicts or actual.digest != expected.digest:
            where = ", ".join(actual.differences(expected)) or "nothing"
            return f"{chain.newest.id} restored into a scratch database differs in {where}", ""
    return "", expected.digest


def _from_sound(catalogue: Catalogue, chain: Chain, checked: list[tuple[Manifest, Copy, list[str]]]) -> Chain:
    """The chain, read from copies that were just found to be sound."""
    places = {
        member.id: [copy.storage for other, copy, found in checked if other is member and not found]
        for member in chain.members
    }
    return Chain(
        members=chain.members,
        read=lambda manifest, segment: catalogue.read(manifest, segment, places[manifest.id]),
    )


def _exists(catalogue: Catalogue, backup: str) -> bool:
    try:
        catalogue.entry(backup)
    except RunbookdError:
        return False
    return True


class _Meter:
    """Counts what was read and reports it."""

    def __init__(self, total: int, progress: ProgressSink, cancelled: Callable[[], bool]) -> None:
        self.documents = 0
        self.bytes_read = 0
        self._total = total
        self._progress = progress
        self._cancelled = cancelled

    def advance(self, segment: Segment, *, counts: bool) -> None:
        if self._cancelled():
            raise Permanent(PermanentReason.CANCELLED, "the verification was cancelled")
        self.bytes_read += segment.stored_bytes
        if counts:
            self.documents += segment.documents
            total = max(self._total, self.documents)  # further copies are more than the chain has
            self._progress(Progress(operation="verify", stage=segment.file, done=self.documents, total=total))
