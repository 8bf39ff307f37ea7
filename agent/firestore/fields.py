"""A document's fields, each decoded when somebody asks for it, and written back without having been.

A migration's transform touches a few fields of a document. Decoding all of a document of 1 KB into Python values and
encoding them again costs some 80 us, and was most of a migration's CPU; here the document is parsed by protobuf's C
code (3 us), a field is decoded when it is read, and what nobody has touched goes back as it came: also the bits that
this version knows nothing of.

Called by :mod:`agent.migration`. Who wants every value takes :func:`agent.firestore.values.decode_fields`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from agent.faults import Permanent, PermanentReason
from agent.firestore.patches import Patch, mask_of
from agent.firestore.protos import Document
from agent.firestore.values import decode, encode_into

_ABSENT = object()
_MUTABLE = (list, dict)
_NOT_FIELDS = ("name", "create_time", "update_time")
_WORTH_IT = 0.5  # of the whole: above it, the server's merging costs what its reading saves


class Edited(NamedTuple):
    """A document's fields after a change.

    Args:
        fields: all of them in canonical form, equal to :func:`agent.firestore.values.encode_fields` of the same values.
        patch: what differs from before; ``None`` where that would hardly save anything.
        differs: whether anything is other than before; ``None`` where there is no before.
    """

    fields: bytes
    patch: Patch | None = None
    differs: bool | None = None


class LazyFields:
    """The fields of one document as they came.

    What :meth:`get` and :meth:`all` return is the same object each time, and lists and maps may be changed in place
    by whoever has them; :meth:`edited` therefore encodes those anew. Every other value is immutable.

    Args:
        raw: a serialised ``Document``, with or without name and times.

    Raises:
        google.protobuf.message.DecodeError: ``raw`` is not a message.
    """

    __slots__ = ("_decoded", "_message", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._message: Document | None = Document.FromString(raw)
        self._decoded: dict[str, Any] = {}

    def __contains__(self, key: str) -> bool:
        return key in (self._message or self._parsed()).fields

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a top-level field, as :mod:`agent.firestore.values` decodes it."""
        value = self._decoded.get(key, _ABSENT)
        if value is _ABSENT:
            fields = (self._message or self._parsed()).fields
            if key not in fields:
                return default
            value = self._decoded[key] = decode(fields[key])
        return value

    def all(self) -> dict[str, Any]:
        """Every field, in the order of keys; the dict is the caller's own."""
        return {key: self.get(key) for key in sorted((self._message or self._parsed()).fields)}

    def edited(self, changed: Mapping[str, Any], removed: Iterable[str]) -> Edited:
        """These fields with some changed and some removed.

        Args:
            changed: values by key; a key that is new is added.
            removed: keys; those that are not there are no error.

        Raises:
            Permanent: see :func:`agent.firestore.values.encode_fields`.
        """
        message = self._message or self._parsed()
        self._message = None  # changed below; whoever asks for another field, which is rare, has it parsed again
        for part in _NOT_FIELDS:
            message.ClearField(part)
        fields = message.fields
        new = Document()
        touched: list[str] = []
        differs = False
        for key in removed:
            if key in fields:
                del fields[key]
                touched.append(key)
                differs = True
        for key, value in self._decoded.items():
            if isinstance(value, _MUTABLE) and key not in changed and key in fields:
                _put(new.fields, key, value)
                if _is_same(fields[key], new.fields[key]):
                    del new.fields[key]
                else:
                    del fields[key]  # a Value that is not empty would be merged with, not replaced
                    touched.append(key)
                    differs = True
        for key, value in changed.items():
            _put(new.fields, key, value)
            touched.append(key)
            if key in fields:
                differs = differs or not _is_same(fields[key], new.fields[key])
                del fields[key]
            else:
                differs = True
        message.MergeFrom(new)
        whole = message.SerializeToString(deterministic=True)
        patch = Patch(new.SerializeToString(), mask_of(tuple(touched)))
        # Nothing touched would be a mask of nothing, which on the wire is no mask at all.
        worth_it = touched and patch.size < len(whole) * _WORTH_IT
        return Edited(whole, patch if worth_it else None, differs)

    def edited_as(self, fields: Mapping[str, Any]) -> Edited:
        """:meth:`edited`, for whoever has all the fields that there should be; what they have left alone is spliced.

        Raises:
            Permanent: see :func:`agent.firestore.values.encode_fields`.
        """
        left_alone = self._decoded
        changed = {key: value for key, value in fields.items() if left_alone.get(key, _ABSENT) is not value}
        here = (self._message or self._parsed()).fields
        return self.edited(changed, [key for key in here if key not in fields])

    def _parsed(self) -> Document:
        self._message = message = Document.FromString(self._raw)
        return message


def _put(new: Any, key: str, value: Any) -> None:
    try:
        encode_into(new[key], value)
    except Permanent as error:
        raise Permanent(PermanentReason.INVALID, f"field {key!r}: {error.message}", hint=error.hint) from error


def _is_same(value: Any, other: Any) -> bool:
    """Bit for bit, the order in maps aside: unlike ``==``, tells 0.0 from -0.0 and finds NaN equal to itself."""
    return bool(value.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True))
