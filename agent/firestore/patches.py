"""What has changed of a document, for writes that send that and no more.

A migration changes a few fields of a document. Under a precondition that pins the document's version, naming those
fields in the write's update mask gives the same document as sending it whole, and the server has less to read: the
example's writes are 230 bytes instead of 1,050, and cost Google's emulator two thirds of the CPU.

Made by :mod:`agent.firestore.fields`; sent by :class:`agent.firestore.writes.PlannedWrite`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from agent.firestore.protos import DocumentMask

# https://firebase.google.com/docs/firestore/reference/rpc/google.firestore.v1#google.firestore.v1.StructuredQuery.FieldReference
_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z_0-9]*\Z")


class Patch(NamedTuple):
    """The difference between a version of a document and what it is to become.

    Args:
        fields: the fields that are new or have another value, as :attr:`PlannedWrite.fields
            <agent.firestore.writes.PlannedWrite.fields>`.
        mask: a serialised ``DocumentMask`` of those, and of those that are to go.
    """

    fields: bytes
    mask: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.fields) + len(self.mask)


def field_path(key: str) -> str:
    """The path of a top-level field: its name, quoted unless it is an identifier."""
    if _SIMPLE.match(key):
        return key
    escaped = key.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


@lru_cache(maxsize=1024)  # a migration touches the same fields of every document
def mask_of(keys: tuple[str, ...]) -> bytes:
    """A serialised ``DocumentMask`` of top-level fields."""
    return DocumentMask(field_paths=[field_path(key) for key in keys]).SerializeToString()
