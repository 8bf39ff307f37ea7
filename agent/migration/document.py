"""What a transform sees: one document, with a path and plain Python fields.

Definitions under ``migrations/`` import :class:`Document` and :data:`DELETE` from :mod:`agent.migration`; nothing here
knows of a server, so that a transform is tested by calling it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from agent.firestore import GONE, LazyFields, Patch, encode_fields


class Deletion(Enum):
    """The type of :data:`DELETE`."""

    DELETE = "delete"


DELETE: Final = Deletion.DELETE
"""What a transform returns to have the document deleted."""


class Document:
    """A document as a transform sees it and returns it.

    The methods read and change single fields; they return a changed copy and leave the document as it was. Paths are
    dotted (``"schedule.interval"``); a key that itself contains a dot is given as a tuple of keys.

    What a transform reads is decoded, what it leaves alone is not: asking for single fields (:meth:`get`, :meth:`has`)
    costs a fraction of asking for :attr:`fields`.

    Args:
        name: path below the database, e.g. ``"users/u-17/reviews/r-3"``.
        fields: as :attr:`fields`.
    """

    __slots__ = ("_name", "_source", "_top", "_whole")

    def __init__(self, name: str, fields: dict[str, Any] | None = None) -> None:
        self._name = name
        self._source: LazyFields | None = None
        self._top: dict[str, Any] = {} if fields is None else fields  # all fields, or those changed over the source
        self._whole = True

    @classmethod
    def read(cls, name: str, source: LazyFields) -> Document:
        """A document as it came from a database."""
        return _made(name, source, {}, whole=False)

    @property
    def name(self) -> str:
        """Path below the database."""
        return self._name

    @property
    def fields(self) -> dict[str, Any]:
        """All fields, as :mod:`agent.firestore.values` decodes them.

        Types that Python does not have keep their own class (``Timestamp`` with nanoseconds, ``GeoPoint``,
        ``Reference``, ``Vector``, and what this version does not know), so a field that the transform leaves alone is
        written back bit for bit.
        """
        if not self._whole and self._source is not None:
            self._top = _present({**self._source.all(), **self._top})
            self._whole = True
        return self._top

    @property
    def id(self) -> str:
        """The last segment of the name."""
        return self._name.rpartition("/")[2]

    @property
    def collection(self) -> str:
        """Id of the collection (the collection group) that the document is in."""
        return self._name.split("/")[-2]

    @property
    def parent(self) -> str | None:
        """Path of the document above, or ``None`` in a root collection. That document need not exist."""
        segments = self._name.split("/")
        return "/".join(segments[:-2]) or None

    def get(self, path: str | Sequence[str], default: Any = None) -> Any:
        """The value at ``path``, or ``default`` where there is none."""
        keys = _keys(path)
        value = self._look(self._top, keys[0])
        for key in keys[1:]:
            value = value.get(key, GONE) if _is_map(value) else GONE
        return default if value is GONE else value

    def has(self, path: str | Sequence[str]) -> bool:
        """Whether there is a value at ``path``, null included."""
        keys = _keys(path)
        if len(keys) == 1 and not self._whole and keys[0] not in self._top:
            return self._source is not None and keys[0] in self._source
        return self.get(keys, GONE) is not GONE

    def with_fields(self, **values: Any) -> Document:
        """A copy with these top-level fields set."""
        return self._with({**self._top, **values})

    def with_field(self, path: str | Sequence[str], value: Any) -> Document:
        """A copy with ``value`` at ``path``; maps on the way are made where they are missing."""
        top = {**self._top}
        self._place(top, _keys(path), value)
        return self._with(top)

    def without(self, *paths: str | Sequence[str]) -> Document:
        """A copy without the fields at ``paths``; those that are not there are no error."""
        top = {**self._top}
        for path in paths:
            self._remove(top, _keys(path))
        return self._with(top)

    def renamed(self, old: str | Sequence[str], new: str | Sequence[str]) -> Document:
        """A copy in which the value at ``old`` is at ``new``; unchanged where there is none at ``old``."""
        keys = _keys(old)
        top = {**self._top}
        value = self._look(top, keys[0]) if len(keys) == 1 else self.get(keys, GONE)
        if value is GONE:
            return self
        self._remove(top, keys)
        self._place(top, _keys(new), value)
        return self._with(top)

    def elsewhere(self, name: str, fields: Mapping[str, Any] | None = None) -> Document:
        """A new document at another path, with these fields (default: this one's).

        A transform that returns ``[document, document.elsewhere("archive/a-1", {...})]`` creates it; one that returns
        ``[document.elsewhere("archive/a-1"), DELETE]`` moves the document. A document that already stands at the
        path is never overwritten.
        """
        return Document(name, dict(self.fields if fields is None else fields))

    def encoded(self) -> bytes:
        """The fields as :func:`agent.firestore.encode_fields` gives them; what nobody has touched is not encoded anew.

        Raises:
            Permanent: a field can't be stored; the message names it.
        """
        if self._source is None:
            return encode_fields(self.fields)
        return self._patch(self._source).applied_to(self._source.raw)

    def patch(self, of: Document) -> Patch | None:
        """What differs from ``of``; ``None`` if this one was not made of that one, as it was read.

        Raises:
            Permanent: a field can't be stored; the message names it.
        """
        return None if self._source is None or self._source is not of._source else self._patch(self._source)

    def _patch(self, source: LazyFields) -> Patch:
        return source.patch_as(self._top) if self._whole else source.patch(self._top)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Document) and self._name == other._name and self.fields == other.fields

    __hash__ = None  # type: ignore[assignment]  # the dict that it hands out may be changed

    def __repr__(self) -> str:
        return f"Document(name={self._name!r}, fields={self.fields!r})"

    def __reduce__(self) -> tuple[type[Document], tuple[str, dict[str, Any]]]:
        return Document, (self._name, self.fields)

    def _look(self, top: Mapping[str, Any], key: str) -> Any:
        """The value of a top-level field, ``top`` being this document's or a changed copy of it; or ``GONE``."""
        value = top.get(key, self)
        if value is not self:
            return value
        return GONE if self._whole or self._source is None else self._source.get(key, GONE)

    def _place(self, top: dict[str, Any], keys: Sequence[str], value: Any) -> None:
        """Have ``value`` at ``keys``."""
        first = keys[0]
        top[first] = value if len(keys) == 1 else _placed(self._look(top, first), keys[1:], value)

    def _remove(self, top: dict[str, Any], keys: Sequence[str]) -> None:
        """Have nothing at ``keys``."""
        first = keys[0]
        if len(keys) == 1:
            top[first] = GONE
            return
        below = self._look(top, first)
        if _is_map(below):
            top[first] = _removed(below, keys[1:])

    def _with(self, top: dict[str, Any]) -> Document:
        """A copy with ``top`` instead, a changed copy of this document's."""
        return _made(self._name, self._source, _present(top) if self._whole else top, whole=self._whole)


def _made(name: str, source: LazyFields | None, top: dict[str, Any], *, whole: bool) -> Document:
    made = Document.__new__(Document)
    made._name, made._source, made._top, made._whole = name, source, top, whole
    return made


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not GONE}


Change = Document | Deletion
Transformed = Change | None | Sequence[Change]
"""What a transform may return: the document to write, :data:`DELETE`, ``None`` (leave it), or several changes."""


@lru_cache(maxsize=4096)  # a transform names the same few paths for every document
def _split(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def _keys(path: str | Sequence[str]) -> Sequence[str]:
    return _split(path) if isinstance(path, str) else path


def _is_map(value: object) -> bool:
    # Asking an abstract class takes ten times as long.
    return type(value) is dict or (value is not GONE and isinstance(value, Mapping))


def _placed(below: object, keys: Sequence[str], value: Any) -> dict[str, Any]:
    fields: Mapping[str, Any] = below if _is_map(below) else {}  # type: ignore[assignment]
    first = keys[0]
    return {**fields, first: value if len(keys) == 1 else _placed(fields.get(first), keys[1:], value)}


def _removed(fields: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    first, rest = keys[0], keys[1:]
    copy = dict(fields)
    if not rest:
        copy.pop(first, None)
    elif _is_map(copy.get(first)):
        copy[first] = _removed(copy[first], rest)
    return copy
