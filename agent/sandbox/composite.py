"""Which queries production would refuse for want of an index, given a project's ``firestore.indexes.json``.

Google's emulator answers every query. Production answers a query only if indexes serve it: every field has one by
itself within its collection; an equality combined with an order or a range, orders of several fields, and anything
across a collection group need one that somebody made. Called by the server when it was started with such a file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore.protobuf import delimited, varint
from agent.sandbox.filters import Condition
from agent.sandbox.query import ELEMENTS, Query
from agent.sandbox.status import StatusError, failed_precondition
from agent.sandbox.values import NAME_FIELD

_SCOPES = {"COLLECTION": 1, "COLLECTION_GROUP": 2}
_ASCENDING, _DESCENDING, _CONTAINS = "ASCENDING", "DESCENDING", "CONTAINS"

Field = tuple[str, str]
"""A field's path and how it is indexed: ASCENDING, DESCENDING or CONTAINS."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """One index of the file; a trailing ``__name__`` is left out, as it is implied."""

    collection_group: str
    scope: str
    fields: tuple[Field, ...]


class Indexes:
    """The indexes of a project, and what every collection has without being asked."""

    def __init__(self, indexes: Sequence[Index], groups: frozenset[Field]) -> None:
        self._indexes = tuple(indexes)
        self._group_fields = groups

    def check(self, query: Query) -> None:
        """Refuse ``query`` if no index serves it.

        Raises:
            StatusError: FAILED_PRECONDITION with production's text and the link that makes the index.
        """
        if not query.scope.name:
            return  # in name order over everything: no index is involved
        for required in query.alternatives:
            self._check(query, required)

    def _check(self, query: Query, required: Sequence[Condition]) -> None:
        equal = {
            (".".join(c.path), _CONTAINS if c.op in ELEMENTS else "")
            for c in required
            if not c.is_inequality and c.path != NAME_FIELD
        }
        equal_paths = {path for path, _ in equal}
        order = tuple(
            (".".join(o.path), _DESCENDING if o.descending else _ASCENDING)
            for o in query.orders
            if o.path != NAME_FIELD and ".".join(o.path) not in equal_paths
        )
        scope = "COLLECTION_GROUP" if query.scope.descendants else "COLLECTION"
        simple = not order or (not equal and len(order) == 1)
        if simple and scope == "COLLECTION":
            return
        if simple and self._has_group_fields(query.scope.name, [*equal, *order]):
            return
        if not simple and self._serves(query.scope.name, scope, equal, order):
            return
        if simple:
            path, kind = next(iter(sorted([*equal, *order])))
            raise _missing_group_index(query.scope.root, query.scope.name, path, kind or _ASCENDING)
        raise _missing_index(query.scope.root, query.scope.name, scope, equal, order)

    def _has_group_fields(self, group: str, fields: Sequence[Field]) -> bool:
        wanted = [(f"{group}/{path}", kind or _ASCENDING) for path, kind in fields]
        return all(field in self._group_fields for field in wanted)

    def _serves(self, group: str, scope: str, equal: set[Field], order: tuple[Field, ...]) -> bool:
        """Whether indexes that end in ``order`` (or its reverse) cover the equalities, alone or merged."""
        for ending in (order, _reversed(order)):
            covered: set[Field] = set()
            found = False
            for index in self._indexes:
                if (index.collection_group, index.scope) != (group, scope):
                    continue
                start = len(index.fields) - len(ending)
                head = {(path, kind if kind == _CONTAINS else "") for path, kind in index.fields[: max(start, 0)]}
                if start >= 0 and index.fields[start:] == ending and head <= equal:
                    covered |= head
                    found = True
            if found and covered == equal:
                return True
        return False


def load_indexes(path: Path) -> Indexes:
    """Read a ``firestore.indexes.json``.

    Raises:
        Misconfigured: DEFINITION if it can't be read or isn't one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        indexes = [_index(given) for given in content.get("indexes", [])]
        groups = frozenset(
            (f"{override['collectionGroup']}/{override['fieldPath']}", kind.get("order", _CONTAINS))
            for override in content.get("fieldOverrides", [])
            for kind in override.get("indexes", [])
            if kind.get("queryScope") == "COLLECTION_GROUP"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Misconfigured(
            MisconfiguredReason.DEFINITION,
            f"{path} can't be read as Firestore indexes: {error!r}",
            hint="it is the file that `firebase firestore:indexes` prints",
        ) from error
    return Indexes(indexes, groups)


def _index(given: Mapping[str, Any]) -> Index:
    fields = [(field["fieldPath"], field.get("order") or field["arrayConfig"]) for field in given["fields"]]
    if fields and fields[-1][0] == "__name__":
        fields.pop()
    return Index(
        collection_group=given["collectionGroup"],
        scope=given.get("queryScope", "COLLECTION"),
        fields=tuple(fields),
    )


def _reversed(order: tuple[Field, ...]) -> tuple[Field, ...]:
    return tuple((path, _ASCENDING if kind == _DESCENDING else _DESCENDING) for path, kind in order)


def _missing_index(root: str, group: str, scope: str, equal: set[Field], order: tuple[Field, ...]) -> StatusError:
    last = order[-1][1]
    fields = [*((path, kind or _ASCENDING) for path, kind in sorted(equal)), *order, ("__name__", last)]
    link = f"{_console(root)}?create_composite={_link(root, group, scope, fields)}"
    return failed_precondition(f"The query requires an index. You can create it here: {link}")


def _missing_group_index(root: str, group: str, path: str, kind: str) -> StatusError:
    short = {_ASCENDING: "ASC", _DESCENDING: "DESC", _CONTAINS: "CONTAINS"}[kind]
    link = f"{_console(root)}?create_exemption={_link(root, group, 'COLLECTION_GROUP', [(path, kind)])}"
    return failed_precondition(
        f"The query requires a COLLECTION_GROUP_{short} index for collection {group} and field {path}. "
        f"You can create it here: {link}"
    )


def _console(root: str) -> str:
    _, project, _, database = root.split("/")
    place = "" if database == "(default)" else f"/databases/{database}"
    return f"https://console.firebase.google.com/v1/r/project/{project}/firestore{place}/indexes"


def _link(root: str, group: str, scope: str, fields: Sequence[Field]) -> str:
    """A ``google.firestore.admin.v1.Index``, serialised and in base64, as the console takes it."""
    message = delimited(b"\x0a", f"{root}/collectionGroups/{group}/indexes/_".encode())
    message += b"\x10" + varint(_SCOPES[scope])
    for path, kind in fields:
        mode = b"\x18\x01" if kind == _CONTAINS else b"\x10" + (b"\x02" if kind == _DESCENDING else b"\x01")
        message += delimited(b"\x1a", delimited(b"\x0a", path.encode()) + mode)
    return base64.urlsafe_b64encode(message).decode().rstrip("=")
