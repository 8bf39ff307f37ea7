"""What is known of a backup beside its manifest: where its copies are, how they were verified, who uses it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agent.backup.leases import Lease
from agent.backup.manifest import Manifest, seal, unseal
from agent.clock import rfc3339

VERIFIED = "verified.json"
"""The result of the newest verification of a copy."""

LET_GO = "let-go.json"
"""The note that somebody let go of a backup; see :mod:`agent.backup.letting_go`."""

RESTORING = "restoring-"
"""How the name of a note begins that a restore has begun; see :mod:`agent.backup.notes`."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of the newest verification of one copy.

    Args:
        at: when it ended.
        problems: what was wrong; empty if nothing.
        deep: whether it was restored into a scratch database and compared.
        manifest_sha256: the manifest it was true of.
        fingerprint: of the documents as restored, comparable with :func:`agent.firestore.fingerprint` of a live
            database; empty if there were problems.
        proven_at: when it was last restored and compared; reading it again without that does not change it.
    """

    at: datetime
    problems: tuple[str, ...]
    deep: bool
    manifest_sha256: str
    fingerprint: str = ""
    proven_at: datetime | None = None

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_bytes(self) -> bytes:
        return seal(
            {
                "at": rfc3339(self.at),
                "problems": list(self.problems),
                "deep": self.deep,
                "manifest_sha256": self.manifest_sha256,
                "fingerprint": self.fingerprint,
                "proven_at": rfc3339(self.proven_at) if self.proven_at else "",
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Verification:
        """Read a result.

        Raises:
            Permanent: ``CORRUPT``: it is not what was written.
            KeyError, TypeError, ValueError: it was written by something else.
        """
        body = unseal(data, VERIFIED)
        return cls(
            at=datetime.fromisoformat(body["at"]),
            problems=tuple(body["problems"]),
            deep=body["deep"],
            manifest_sha256=body["manifest_sha256"],
            fingerprint=body["fingerprint"],
            proven_at=datetime.fromisoformat(body["proven_at"]) if body.get("proven_at") else None,
        )


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One backup in one storage.

    Args:
        storage: the storage's name.
        files: names within the backup and their sizes.
        manifest: its manifest, or ``None`` where that is damaged.
        verification: its newest verification, or ``None`` if there is none that can be relied on.
        problem: what is wrong with the manifest, or empty.
    """

    storage: str
    files: dict[str, int]
    manifest: Manifest | None
    verification: Verification | None
    problem: str = ""

    @property
    def verified(self) -> bool:
        """Whether its newest verification found nothing wrong."""
        return self.verification is not None and self.verification.ok


@dataclass(frozen=True, kw_only=True)
class LetGo:
    """Somebody's word that a backup is not needed for holding more than the database does now.

    Args:
        owner: who says so.
        reason: why.
        at: when.
    """

    owner: str
    reason: str
    at: datetime

    def __str__(self) -> str:
        return f"by {self.owner} on {self.at:%Y-%m-%d}: {self.reason}"

    def to_bytes(self) -> bytes:
        return seal({"owner": self.owner, "reason": self.reason, "at": rfc3339(self.at)})

    @classmethod
    def from_bytes(cls, data: bytes) -> LetGo:
        """Read a note.

        Raises:
            Permanent: ``CORRUPT``: it is not what was written.
            KeyError, ValueError: it was written by something else.
        """
        body = unseal(data, LET_GO)
        return cls(owner=body["owner"], reason=body["reason"], at=datetime.fromisoformat(body["at"]))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One backup: its manifest, its copies, who uses it."""

    id: str
    manifest: Manifest | None
    copies: tuple[Copy, ...]
    pinned: bool
    leases: tuple[Lease, ...]
    let_go: LetGo | None = None

    @property
    def verified(self) -> bool:
        """Whether at least one copy is verified."""
        return any(copy.verified for copy in self.copies)

    @property
    def restoring(self) -> bool:
        """Whether a restore from it has begun and not finished."""
        return any(file.startswith(RESTORING) for copy in self.copies for file in copy.files)

    @property
    def proven_at(self) -> datetime | None:
        """When a copy was last restored from and compared."""
        moments = [copy.verification.proven_at for copy in self.copies if copy.verification]
        return max((moment for moment in moments if moment is not None), default=None)

    @property
    def proven(self) -> bool:
        """Whether a copy is verified and was restored from, by itself or as part of a chain, with the right result."""
        return any(copy.verification.ok and copy.verification.deep for copy in self.copies if copy.verification)


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """A restore that wrote to a database and did not finish: that database is neither the old nor the new one.

    Args:
        backup: what was being restored.
        target: ``projects/p/databases/d``.
        since: when it was begun.
        collections, delete_extra: how; the same restore run again completes it.
    """

    backup: str
    target: str
    since: datetime
    collections: tuple[str, ...]
    delete_extra: bool
