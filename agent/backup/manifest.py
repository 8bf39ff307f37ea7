"""The manifest: the file that makes a folder of segments a backup.

It is published last and atomically, so a backup is there whole or not at all. It is sealed, as are the small records
beside it (verification, pin, leases): the JSON carries the SHA-256 of its own content and has one exact form, so that
no byte of it can change unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from agent.backup.segments import Compression, Segment
from agent.clock import rfc3339
from agent.faults import Permanent, PermanentReason

FORMAT = 1
MANIFEST = "manifest.json"

_ID = re.compile(r"backup-(?P<type>[a-z]+)-(?P<time>\d{8}-\d{6})(?:-(?P<serial>\d+))?")


class BackupType(StrEnum):
    """What a backup holds; the word is part of its id."""

    FULL = "full"
    SNAPSHOT = "snapshot"
    INCREMENTAL = "incremental"
    CRITICAL = "critical"

    @property
    def is_whole(self) -> bool:
        """Whether it holds every document of the database by itself."""
        return self in {BackupType.FULL, BackupType.SNAPSHOT}


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Documents of one collection id, and their bytes on the wire."""

    documents: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about one backup but the documents.

    Args:
        id: ``backup-full-20250910-080000``; the time is UTC.
        type: what it holds.
        database: ``projects/p/databases/d``, where it was taken.
        read_time: the one instant at which every document in it was read.
        started_at, finished_at: when the work was done.
        documents: how many documents it holds; for an incremental, how many were new or changed.
        raw_bytes: size of these documents on the wire.
        stored_bytes: size of all files but this one.
        digest: :func:`~agent.backup.segments.digest_of` the documents' segments.
        collections: tally for each collection id.
        segments: the documents. Within one collection id they are in ``__name__`` order; in a backup of the whole
            database they are in that order altogether.
        index: name and update_time of the same documents, as documents without fields; an incremental has none.
        deletes: names of documents that the parent has and the database no longer had, as documents without fields.
        only: the collection ids it was limited to; empty for the whole database.
        parent, parent_sha256: the backup this one builds on, and its manifest's seal; empty if it stands alone.
        total_documents: documents in the database at ``read_time`` within the scope.
        requested: the type asked for, where it could not be made (an incremental without a parent becomes full).
        compression: of segments, index and deletes.
        key_id: which key its files are encrypted with; empty if they are not.
        tool: what wrote it.
        format: version of this layout.
    """

    id: str
    type: BackupType
    database: str
    read_time: datetime
    started_at: datetime
    finished_at: datetime
    documents: int
    raw_bytes: int
    stored_bytes: int
    digest: str
    collections: Mapping[str, Tally]
    segments: tuple[Segment, ...]
    index: tuple[Segment, ...]
    total_documents: int
    deletes: tuple[Segment, ...] = ()
    only: tuple[str, ...] = ()
    parent: str = ""
    parent_sha256: str = ""
    requested: BackupType | None = None
    compression: Compression = Compression.ZSTD
    key_id: str = ""
    tool: str = ""
    format: int = FORMAT
    sha256: str = field(default="", compare=False)

    @property
    def files(self) -> tuple[Segment, ...]:
        """Every file but the manifest."""
        return self.segments + self.index + self.deletes

    def to_bytes(self) -> bytes:
        """The manifest's file."""
        body = asdict(self)
        del body["sha256"]
        for name in ("read_time", "started_at", "finished_at"):
            body[name] = rfc3339(body[name])
        return seal(body)


def read_manifest(data: bytes, file: str = MANIFEST) -> Manifest:
    """The manifest in ``data``.

    Raises:
        Permanent: ``CORRUPT`` if a byte of it changed; ``UNSUPPORTED`` if a newer version wrote it.
    """
    body = unseal(data, file)
    if body.get("format") != FORMAT:
        raise Permanent(
            PermanentReason.UNSUPPORTED,
            f"{file} has format {body.get('format')}; this version reads format {FORMAT}",
            hint="use the version of runbookd that wrote it, or a newer one",
        )
    try:
        known = {item.name for item in fields(Manifest)}
        values: dict[str, Any] = {name: value for name, value in body.items() if name in known}
        for name in ("read_time", "started_at", "finished_at"):
            values[name] = datetime.fromisoformat(values[name]).astimezone(UTC)
        for name in ("segments", "index", "deletes"):
            values[name] = tuple(
                Segment(**{**item, "collections": tuple(item["collections"])}) for item in values[name]
            )
        values["collections"] = {name: Tally(**tally) for name, tally in values["collections"].items()}
        values["only"] = tuple(values["only"])
        values["type"] = BackupType(values["type"])
        values["requested"] = BackupType(values["requested"]) if values["requested"] else None
        values["compression"] = Compression(values["compression"])
        return Manifest(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise Permanent(PermanentReason.CORRUPT, f"{file} is not a manifest ({error})") from error


def backup_id(kind: BackupType, moment: datetime, serial: int = 1) -> str:
    """The name of a backup of ``kind`` started at ``moment``; ``serial`` tells those of one second apart."""
    name = f"backup-{kind}-{moment.astimezone(UTC):%Y%m%d-%H%M%S}"
    return name if serial == 1 else f"{name}-{serial}"


def is_backup_id(text: str) -> bool:
    """Whether ``text`` has the form of a backup's name."""
    match = _ID.fullmatch(text)
    return match is not None and match["type"] in set(BackupType)


def seal(body: Mapping[str, Any]) -> bytes:
    """``body`` as JSON that carries its own SHA-256, in the one form that :func:`unseal` accepts."""
    digest = hashlib.sha256(_json(body)).hexdigest()
    return _json({**body, "sha256": digest})


def unseal(data: bytes, file: str) -> dict[str, Any]:
    """The content of sealed JSON, ``sha256`` included.

    Raises:
        Permanent: ``CORRUPT`` if any byte of it is not the one that was written.
    """
    try:
        body = json.loads(data)
        digest = body["sha256"]
        content = {name: value for name, value in body.items() if name != "sha256"}
        # Comparing the bytes and not only the digest finds a changed blank or escape as well.
        if hashlib.sha256(_json(content)).hexdigest() == digest and _json(body) == data:
            return dict(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Permanent(PermanentReason.CORRUPT, f"{file} is damaged: it is not readable ({error})") from error
    raise Permanent(PermanentReason.CORRUPT, f"{file} is damaged: its content does not match its SHA-256")


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"
