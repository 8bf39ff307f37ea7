"""A document's fields, each decoded when somebody asks for it, and never encoded unless somebody changes it.

A migration's transform touches a few fields of a document. Decoding all of a document of 1 KB into Python values and
encoding them again costs some 80 us, and was most of a migration's CPU; here protobuf's C code cuts the document into
its fields (2 us), a field is decoded when it is read, and what nobody has touched stays as it came: also the bits
that this version knows nothing of.

Called by :mod:`agent.migration`. Who wants every value takes :func:`agent.firestore.values.decode_fields`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent.faults import Permanent, PermanentReason
from agent.firestore.encoded import decode_value, encode_value, is_same
from agent.firestore.envelope import FieldsEnvelope
from agent.firestore.patches import Patch, patch_of

GONE: Final = object()
"""Instead of a value: the field is not to be there."""

_MUTABLE = frozenset((list, dict))


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
        self._fields = FieldsEnvelope.FromString(raw).fields
        self._decoded: dict[str, Any] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a top-level field, as :mod:`agent.firestore.values` decodes it."""
        decoded = self._decoded
        if key in decoded:
            return decoded[key]
        fields = self._fields
        if key not in fields:
            return default
        value = decoded[key] = decode_value(fields[key])
        return value

    def all(self) -> dict[str, Any]:
        """Every field, in the order of keys; the dict is the caller's own."""
        return {key: self.get(key) for key in sorted(self._fields)}

    def patch(self, changed: Mapping[str, Any]) -> Patch:
        """What it takes to have these fields with some changed.

        Args:
            changed: values by key; a key that is new is added. :data:`GONE` takes one away; one that is not there is no
                error.

        Raises:
            Permanent: see :func:`agent.firestore.values.encode_fields`.
        """
        in_place = {key: value for key, value in self._decoded.items() if type(value) in _MUTABLE}
        fields = self._fields
        new = FieldsEnvelope()
        there = new.fields
        keys: list[str] = []
        for key, value in {**in_place, **changed}.items():
            if value is GONE:
                if key in fields:
                    keys.append(key)
                continue
            try:
                made = encode_value(value)
            except Permanent as error:
                raise Permanent(PermanentReason.INVALID, f"field {key!r}: {error.message}", hint=error.hint) from error
            if key not in fields or not is_same(fields[key], made):
                there[key] = made
                keys.append(key)
        return patch_of(keys, new)

    def patch_as(self, fields: Mapping[str, Any]) -> Patch:
        """:meth:`patch`, for whoever has all the fields that there should be.

        Raises:
            Permanent: see :func:`agent.firestore.values.encode_fields`.
        """
        left_alone = self._decoded
        changed = {key: value for key, value in fields.items() if left_alone.get(key, GONE) is not value}
        return self.patch({**changed, **{key: GONE for key in self._fields if key not in fields}})
