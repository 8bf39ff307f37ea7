"""Which Firestore database, and where it answers: every room that opens a connection starts from this value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

PRODUCTION = "firestore.googleapis.com:443"


@dataclass(frozen=True, kw_only=True)
class DatabaseAddress:
    """One database.

    Args:
        project: Google Cloud project id.
        database: database id.
        host: ``host:port`` of an emulator, sandbox or proxy (no TLS, no credentials); ``None`` is production.
    """

    project: str
    database: str = "(default)"
    host: str | None = None

    @cached_property
    def root(self) -> str:
        """``projects/P/databases/D``."""
        return f"projects/{self.project}/databases/{self.database}"

    @cached_property
    def documents(self) -> str:
        """The parent of all root collections: ``projects/P/databases/D/documents``."""
        return f"{self.root}/documents"

    @property
    def target(self) -> str:
        """``host:port`` to connect to."""
        return self.host or PRODUCTION

    def name(self, *segments: str) -> str:
        """Full name of a document or collection; ``segments`` may themselves hold slashes."""
        return "/".join((self.documents, *segments))

    def relative(self, name: str) -> str:
        """``name`` without the database in front: ``users/u1``.

        Raises:
            ValueError: ``name`` belongs to another database.
        """
        prefix = self._prefix
        if not name.startswith(prefix):
            raise ValueError(f"{name!r} is not in {self.documents}")
        return name[len(prefix) :]

    @cached_property
    def _prefix(self) -> str:
        return f"{self.documents}/"

    def __str__(self) -> str:
        return f"project {self.project}, database {self.database} at {self.target}"
