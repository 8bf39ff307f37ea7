"""What differs between two versions of a document, for writes that send that and no more.

A migration changes a few fields of a document. Under a precondition that pins the document's version, naming those
fields in the write's update mask gives the same document as sending it whole, and the server has less to read: the
example's writes are 230 bytes instead of 1,050, and cost Google's emulator two thirds of the CPU. Nor does anybody have
to put the whole document together, which takes 8 us for one of 1 KB.

A version and what it is to become have exactly one patch, so patches compare by their bytes.

Made by :mod:`agent.firestore.fields`; sent by :class:`agent.firestore.writes.PlannedWrite`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from agent.firestore.encoded import canonical_value, is_same
from agent.firestore.envelope import FieldsEnvelope
from agent.firestore.protos import Document, DocumentMask

# https://firebase.google.com/docs/firestore/reference/rpc/google.firestore.v1#google.firestore.v1.StructuredQuery.FieldReference
_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z_0-9]*\Z")
_NOT_FIELDS = ("name", "create_time", "update_time")


class Patch(NamedTuple):
    """The difference between a version of a document and what it is to become.

    Args:
        keys: of the top-level fields that are new, have another value or are to go; sorted.
        fields: those of them that are not to go, in canonical form, as :attr:`PlannedWrite.fields
            <agent.firestore.writes.PlannedWrite.fields>`.
    """

    keys: tuple[str, ...]
    fields: bytes

    @property
    def mask(self) -> bytes:
        """A serialised ``DocumentMask`` of the keys."""
        return _mask_of(self.keys)

    def applied_to(self, raw: bytes) -> bytes:
        """All fields of what the version is to become, in canonical form.

        Args:
            raw: the version, a serialised ``Document``.
        """
        message = Document.FromString(raw)
        for part in _NOT_FIELDS:
            message.ClearField(part)
        for key in self.keys:
            message.fields.pop(key, None)  # a Value that is not empty would be merged with, not replaced
        message.MergeFromString(self.fields)
        whole: bytes = message.SerializeToString(deterministic=True)
        return whole


def patch_of(keys: Collection[str], new: FieldsEnvelope) -> Patch:
    """The patch that touches ``keys``, ``new`` holding those that are not to go, their values in canonical form."""
    return Patch(tuple(sorted(keys)), new.SerializeToString(deterministic=True))


def difference(before: bytes, after: bytes) -> Patch:
    """What makes ``after`` of ``before``, both serialised ``Document`` messages, with or without name and times."""
    earlier, later = FieldsEnvelope.FromString(before), FieldsEnvelope.FromString(after)
    was, is_now = earlier.fields, later.fields
    new = FieldsEnvelope()
    keys = {key for key in was if key not in is_now}
    for key in is_now:
        value = canonical_value(is_now[key])
        if key not in was or not is_same(was[key], value):
            keys.add(key)
            new.fields[key] = value
    return patch_of(keys, new)


def field_path(key: str) -> str:
    """The path of a top-level field: its name, quoted unless it is an identifier."""
    if _SIMPLE.match(key):
        return key
    escaped = key.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


@lru_cache(maxsize=1024)  # a migration touches the same fields of every document
def _mask_of(keys: tuple[str, ...]) -> bytes:
    """A serialised ``DocumentMask`` of top-level fields."""
    return DocumentMask(field_paths=[field_path(key) for key in keys]).SerializeToString()
