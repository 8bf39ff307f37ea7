"""A document's fields, each decoded when somebody asks for it, and never encoded unless somebody changes it.

A migration's transform touches a few fields of a document. Decoding all of a document of 1 KB into Python values and
encoding them again costs some 80 us, and was most of a migration's CPU; here the document is parsed by protobuf's C
code (3 us), a field is decoded when it is read, and what nobody has touched stays as it came: also the bits that
this version knows nothing of.

Called by :mod:`agent.migration`. Who wants every value takes :func:`agent.firestore.values.decode_fields`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.faults import Permanent, PermanentReason
from agent.firestore.patches import Patch, is_same, patch_of
from agent.firestore.protos import Document
from agent.firestore.values import decode, encode_into

_ABSENT = object()
_MUTABLE = (list, dict)


class LazyFields:
    """The fields of one document as they came.

    What :meth:`get` and :meth:`all` return is the same object each time, and lists and maps may be changed in place
    by whoever has them; :meth:`patch` therefore compares those. Every other value is immutable.

    Args:
        raw: a serialised ``Document``, with or without name and times.

    Raises:
        google.protobuf.message.DecodeError: ``raw`` is not a message.
    """

    __slots__ = ("_decoded", "_fields", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._fields = Document.FromString(raw).fields
        self._decoded: dict[str, Any] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a top-level field, as :mod:`agent.firestore.values` decodes it."""
        value = self._decoded.get(key, _ABSENT)
        if value is _ABSENT:
            fields = self._fields
            if key not in fields:
                return default
            value = self._decoded[key] = decode(fields[key])
        return value

    def all(self) -> dict[str, Any]:
        """Every field, in the order of keys; the dict is the caller's own."""
        return {key: self.get(key) for key in sorted(self._fields)}

    def patch(self, changed: Mapping[str, Any], removed: Iterable[str]) -> Patch:
        """What it takes to have these fields with some changed and some removed.

        Args:
            changed: values by key; a key that is new is added.
            removed: keys; those that are not there are no error.

        Raises:
            Permanent: see :func:`agent.firestore.values.encode_fields`.
        """
        fields = self._fields
        new = Document()
        there = new.fields
        keys = {key for key in removed if key in fields}
        for key, value in self._decoded.items():
            if type(value) in _MUTABLE and key not in changed and key not in keys:
                self._put(there, key, value, keys)
        for key, value in changed.items():
            self._put(there, key, value, keys)
        return patch_of(keys, new)

    def patch_as(self, fields: Mapping[str, Any]) -> Patch:
        """:meth:`patch`, for whoever has all the fields that there should be.

        Raises:
            Permanent: see :func:`agent.firestore.values.encode_fields`.
        """
        left_alone = self._decoded
        changed = {key: value for key, value in fields.items() if left_alone.get(key, _ABSENT) is not value}
        return self.patch(changed, [key for key in self._fields if key not in fields])

    def _put(self, there: Any, key: str, value: Any, keys: set[str]) -> None:
        """Encode ``value`` into the map ``there`` and name it among ``keys``, unless it is what was there before."""
        made = there[key]
        try:
            encode_into(made, value)
        except Permanent as error:
            raise Permanent(PermanentReason.INVALID, f"field {key!r}: {error.message}", hint=error.hint) from error
        before = self._fields
        if key in before and is_same(before[key], made):
            del there[key]
        else:
            keys.add(key)
