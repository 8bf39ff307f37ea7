"""What a transform sees: one document, with a path and plain Python fields.

Definitions under ``migrations/`` import :class:`Document` and :data:`DELETE` from :mod:`agent.migration`; nothing here
knows of a server, so that a transform is tested by calling it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

_ABSENT: Final = object()


class Deletion(Enum):
    """The type of :data:`DELETE`."""

    DELETE = "delete"


DELETE: Final = Deletion.DELETE
"""What a transform returns to have the document deleted."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document as a transform sees it and returns it.

    Args:
        name: path below the database, e.g. ``"users/u-17/reviews/r-3"``.
        fields: the fields as :mod:`agent.firestore.values` decodes them. Types that Python does not have keep their
            own class (``Timestamp`` with nanoseconds, ``GeoPoint``, ``Reference``, ``Vector``, and what this version
            does not know), so a field that the transform leaves alone is written back bit for bit.

    The methods return a changed copy and leave the document as it was. Paths are dotted (``"schedule.interval"``); a
    key that itself contains a dot is given as a tuple of keys.
    """

    name: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The last segment of the name."""
        return self.name.rpartition("/")[2]

    @property
    def collection(self) -> str:
        """Id of the collection (the collection group) that the document is in."""
        return self.name.split("/")[-2]

    @property
    def parent(self) -> str | None:
        """Path of the document above, or ``None`` in a root collection. That document need not exist."""
        segments = self.name.split("/")
        return "/".join(segments[:-2]) or None

    def get(self, path: str | Sequence[str], default: Any = None) -> Any:
        """The value at ``path``, or ``default`` where there is none."""
        value: Any = self.fields
        for key in _keys(path):
            value = value.get(key, _ABSENT) if isinstance(value, Mapping) else _ABSENT
            if value is _ABSENT:
                return default
        return value

    def has(self, path: str | Sequence[str]) -> bool:
        """Whether there is a value at ``path``, null included."""
        return self.get(path, _ABSENT) is not _ABSENT

    def with_fields(self, **values: Any) -> Document:
        """A copy with these top-level fields set."""
        return Document(self.name, {**self.fields, **values})

    def with_field(self, path: str | Sequence[str], value: Any) -> Document:
        """A copy with ``value`` at ``path``; maps on the way are made where they are missing."""
        return Document(self.name, _placed(self.fields, _keys(path), value))

    def without(self, *paths: str | Sequence[str]) -> Document:
        """A copy without the fields at ``paths``; those that are not there are no error."""
        fields = self.fields
        for path in paths:
            fields = _removed(fields, _keys(path))
        return Document(self.name, dict(fields))

    def renamed(self, old: str | Sequence[str], new: str | Sequence[str]) -> Document:
        """A copy in which the value at ``old`` is at ``new``; unchanged where there is none at ``old``."""
        value = self.get(old, _ABSENT)
        return self if value is _ABSENT else self.without(old).with_field(new, value)

    def elsewhere(self, name: str, fields: Mapping[str, Any] | None = None) -> Document:
        """A new document at another path, with these fields (default: this one's).

        A transform that returns ``[document, document.elsewhere("archive/a-1", {...})]`` creates it; one that returns
        ``[document.elsewhere("archive/a-1"), DELETE]`` moves the document. A document that already stands at the
        path is never overwritten.
        """
        return Document(name, dict(self.fields if fields is None else fields))


Change = Document | Deletion
Transformed = Change | None | Sequence[Change]
"""What a transform may return: the document to write, :data:`DELETE`, ``None`` (leave it), or several changes."""


def _keys(path: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(path.split(".")) if isinstance(path, str) else tuple(path)


def _placed(fields: Mapping[str, Any], keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, rest = keys[0], keys[1:]
    if rest:
        below = fields.get(first)
        value = _placed(below if isinstance(below, Mapping) else {}, rest, value)
    return {**fields, first: value}


def _removed(fields: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    first, rest = keys[0], keys[1:]
    copy = dict(fields)
    if not rest:
        copy.pop(first, None)
    elif isinstance(copy.get(first), Mapping):
        copy[first] = _removed(copy[first], rest)
    return copy
