"""From a document on the wire, through the transform, to what is to be written: the middle of run, dry run and plan.

Everything here is a function of one document and a definition; where the document came from and who sends the writes
is somebody else's business, so that another engine could drive the same definitions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from agent.faults import RunbookdError
from agent.firestore import (
    DatabaseAddress,
    LazyFields,
    MustExistAt,
    MustNotExist,
    Patch,
    PlannedWrite,
    RawDocument,
    WriteKind,
    canonical,
    difference,
)
from agent.migration.definition import Definition, raised_at
from agent.migration.document import DELETE, Deletion, Document
from agent.migration.journal import Action, Intent

NO_DIGEST = bytes(16)
"""Digest of a document that is not there."""

_WORTH_IT = 0.5  # of the document: above it, the server's merging costs what its reading saves


class PlannedChange(NamedTuple):
    """One write that a transform asks for: what goes to the journal and what goes to the database."""

    intent: Intent
    write: PlannedWrite


class Changes(NamedTuple):
    """What a transform makes of one document.

    Args:
        source: the document that was transformed.
        creates: documents to create; they are written before ``own``, so that a move never loses its document.
        own: what happens to the document itself; ``None`` where it stays as it is.
        problem: why the document must be left alone; then there are no changes.
    """

    source: RawDocument
    creates: tuple[PlannedChange, ...] = ()
    own: PlannedChange | None = None
    problem: str = ""

    @property
    def empty(self) -> bool:
        """Nothing to write."""
        return self.own is None and not self.creates


def digest(fields: bytes) -> bytes:
    """16 bytes for fields in canonical form, as :func:`agent.firestore.encode_fields` returns them."""
    return hashlib.blake2b(fields, digest_size=16).digest()


def digest_of(document: RawDocument | None) -> bytes:
    """The digest of a document as a server sent it, whatever order its map entries are in."""
    return NO_DIGEST if document is None else digest(canonical(document.fields))


def _digest_of_patch(patch: Patch) -> bytes:
    """16 bytes for what differs."""
    return digest(_told(patch))


def _told(patch: Patch) -> bytes:
    """A patch in one piece. Mask and fields have other tags, so none of one passes for some of the other."""
    return patch.mask + patch.fields


def is_as_meant(intent: Intent, version: RawDocument | None) -> bool:
    """Whether ``version`` is what ``intent`` would have made of its document."""
    if version is None or intent.action is Action.DELETE:
        return version is None and intent.action is Action.DELETE
    if intent.action is Action.EDIT:
        return _digest_of_patch(difference(intent.before, version.raw)) == intent.digest
    return digest_of(version) == intent.digest


def to_document(raw: RawDocument, address: DatabaseAddress) -> Document:
    """``raw`` as a definition sees it."""
    return Document.read(address.relative(raw.name), LazyFields(raw.raw))


def changes_of(definition: Definition, raw: RawDocument, address: DatabaseAddress) -> Changes:
    """Transform one document and say what is to be written. Never raises for what a definition does wrong."""
    document = to_document(raw, address)
    try:
        result = definition.transform(document)
    except Exception as error:  # noqa: BLE001 - whatever a definition raises sets its document aside, with the line
        return Changes(raw, problem=raised_at(definition, error))
    if result is None:
        return Changes(raw)
    # Asking whether it is a sequence takes longer than all other questions here together.
    parts = (result,) if isinstance(result, Document) or not isinstance(result, Sequence) else result
    creates: list[PlannedChange] = []
    own: PlannedChange | None = None
    seen: set[str] = set()
    for part in parts:
        problem = _problem(definition, document, part, seen)
        if problem:
            return Changes(raw, problem=problem)
        try:
            if isinstance(part, Deletion):
                own = _delete(raw)
            elif part.name == document.name:
                own = _update(raw, document, part)
            else:
                creates.append(_create(part, address))
        except (TypeError, ValueError, RunbookdError) as error:
            return Changes(raw, problem=f"the result can't be stored: {error}")
    return Changes(raw, tuple(creates), own)


def _problem(definition: Definition, document: Document, part: object, seen: set[str]) -> str:
    """What is wrong with one part of a transform's result; empty if nothing is."""
    if not isinstance(part, (Document, Deletion)):
        return f"transform returned {type(part).__name__}; a Document, DELETE, None or a list of changes is expected"
    target = document.name if isinstance(part, Deletion) else part.name
    if target in seen:
        return f"transform returned two changes of {target}"
    seen.add(target)
    if isinstance(part, Deletion):
        return ""
    if target != document.name and not _is_path(target):
        return f"{target!r} is not the path of a document"
    if definition.validate is None:
        return ""
    try:
        return definition.validate(part) or ""
    except Exception as error:  # noqa: BLE001 - a validation that breaks down has not found the document right
        return raised_at(definition, error)


def _is_path(name: str) -> bool:
    segments = name.split("/")
    return len(segments) % 2 == 0 and all(segments)


def _update(raw: RawDocument, before: Document, after: Document) -> PlannedChange | None:
    """``None`` where nothing differs: Firestore keeps the update_time then, and whether it was done can't be told."""
    name, version, update_time = raw.name, raw.raw, raw.update_time
    patch = after.patch(before)
    if patch is None:  # made anew, not of the document that was read
        fields = after.encoded()
        meant = digest(fields)
        if meant == digest_of(raw):
            return None
        action, write = Action.UPDATE, PlannedWrite(name, WriteKind.SET, fields, MustExistAt(update_time))
    elif not patch.keys:
        return None
    else:
        told = _told(patch)
        action, meant = Action.EDIT, digest(told)
        if len(told) < len(version) * _WORTH_IT:
            write = PlannedWrite(name, WriteKind.SET, b"", MustExistAt(update_time), patch, version)
        else:
            write = PlannedWrite(name, WriteKind.SET, patch.applied_to(version), MustExistAt(update_time))
    return PlannedChange(Intent(action, name, version, update_time, meant), write)


def _delete(raw: RawDocument) -> PlannedChange:
    return PlannedChange(
        Intent(Action.DELETE, raw.name, raw.raw, raw.update_time, NO_DIGEST),
        PlannedWrite(name=raw.name, kind=WriteKind.DELETE, precondition=MustExistAt(raw.update_time)),
    )


def _create(document: Document, address: DatabaseAddress) -> PlannedChange:
    name = address.name(document.name)
    fields = document.encoded()
    return PlannedChange(
        Intent(Action.CREATE, name, b"", 0, digest(fields)),
        PlannedWrite(name=name, kind=WriteKind.SET, fields=fields, precondition=MustNotExist()),
    )


__all__ = [
    "DELETE",
    "NO_DIGEST",
    "Changes",
    "PlannedChange",
    "changes_of",
    "digest",
    "digest_of",
    "is_as_meant",
    "to_document",
]
