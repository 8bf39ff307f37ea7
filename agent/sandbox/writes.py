"""Applying writes: Commit, BatchWrite, and the single-document RPCs that are a commit of one.

A plain write (a whole document or a delete, with or without a precondition) is what a backup's restore and a
migration's undo send by the hundred thousand; it is stored as the bytes it came in. A migration sends top-level fields
under a mask; they are put beside the stored ones, which stay bytes. Nested masks, transforms and anything out of the
ordinary go through parsed messages. Called by the server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from agent.firestore.protobuf import delimited
from agent.firestore.protos import Document, DocumentMask, Precondition, Value, Write, WriteResult
from agent.sandbox import frames
from agent.sandbox.catalogue import Collection
from agent.sandbox.frames import LazyDocument, LazyWrite
from agent.sandbox.keys import MAX_NAME_BYTES, segment_key, split_document
from agent.sandbox.status import already_exists, failed_precondition, invalid, not_found
from agent.sandbox.store import Store
from agent.sandbox.transaction import Commit, Stored
from agent.sandbox.transforms import apply_transforms
from agent.sandbox.values import (
    MAX_DOCUMENT_BYTES,
    MAX_FIELD_DEPTH,
    MAX_FIELD_NAME_BYTES,
    check_fields,
    document_size,
    merge_masked,
    parse_field_path,
)

# A document this small on the wire can't be over the limit in the service's own count of bytes.
_SURELY_SMALL = 500_000

# What a document that breaks a rule looks like on the wire; so may a few that don't, and those are parsed for nothing.
_NESTING = re.compile(rb"[\x32\x4a][\x00-\xff]{1,4}?\x0a", re.DOTALL)  # the start of a map or an array
_ARRAY_IN_ARRAY = re.compile(rb"\x4a[\x00-\xff]{1,4}?\x0a[\x00-\xff]{1,4}?\x4a", re.DOTALL)
_LONG_NAME = re.compile(rb"\x0a[\x80-\xff][\x0b-\xff]", re.DOTALL)  # field 1 of 1,408 bytes or more


class Target:
    """The document a write is for."""

    __slots__ = ("collection", "key", "name")

    def __init__(self, name: str, collection: Collection, key: bytes) -> None:
        self.name = name
        self.collection = collection
        self.key = key


class Writes:
    """Applies writes to a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parents: dict[str, Collection] = {}  # "projects/.../documents/users" to its collection

    def target(self, name: str, root: str) -> Target:
        """The document called ``name``.

        Raises:
            StatusError: INVALID_ARGUMENT if that isn't a document's name, or not one of the database ``root``.
        """
        parent, _, document_id = name.rpartition("/")
        collection = self._parents.get(parent)
        if collection is None or not document_id or document_id[0] in "._" or len(document_id) > 300:
            collection = self._checked(name, root)
            self._parents[parent] = collection
        if collection.root != root:
            raise invalid(f'Document name "{name}" is not in the database "{root}" of the request.')
        return Target(name, collection, segment_key(document_id))

    def _checked(self, name: str, root: str) -> Collection:
        found_root, segments = split_document(name)
        if found_root != root:
            raise invalid(f'Document name "{name}" is not in the database "{root}" of the request.')
        if len(name.encode()) > MAX_NAME_BYTES:
            raise invalid(f"The document name is longer than {MAX_NAME_BYTES} bytes.")
        return self._store.collection(root, "/".join(segments[:-1]))

    def commit(self, root: str, writes: Sequence[bytes]) -> bytes:
        """All of ``writes`` (serialised) or none; the serialised CommitResponse.

        Raises:
            StatusError: why none of them happened.
        """
        prepared = [self.prepare(root, raw) for raw in writes]
        with self._store.commit() as commit:
            results = [write.apply(commit) for write in prepared]
        return commit_response(results, commit.time)

    def prepare(self, root: str, raw: bytes) -> PlainWrite | MaskedWrite | ParsedWrite:
        """Parse and check what can be checked before the commit starts.

        Raises:
            StatusError: INVALID_ARGUMENT.
        """
        write = LazyWrite.FromString(raw)
        if write.update_transforms or write.transform:
            return self._parsed(root, Write.FromString(raw))
        condition = None
        if write.HasField("current_document"):
            condition = Precondition.FromString(write.current_document)
        if write.update_mask:
            keys = _top_level(b"".join(write.update_mask))
            new = frames.entries(write.update)
            if keys is None or new is None or not write.HasField("update"):
                return self._parsed(root, Write.FromString(raw))
            name = LazyDocument.FromString(write.update).name
            is_suspect = _is_suspect(write.update, len(frames.named(name)))
            return MaskedWrite(self.target(name, root), keys, new, condition, is_suspect=is_suspect)
        if write.HasField("update"):
            update = LazyDocument.FromString(write.update)
            content = _content(write.update, update)
            return PlainWrite(self.target(update.name, root), content, condition)
        if write.HasField("delete"):
            return PlainWrite(self.target(write.delete, root), None, condition)
        raise invalid("Write must have an operation.")

    def _parsed(self, root: str, write: Write) -> ParsedWrite:
        name = write.update.name if write.HasField("update") else write.transform.document
        return ParsedWrite(self.target(name, root), write)


class PlainWrite:
    """Replace a document by ``content`` (name and fields, serialised) or, for ``None``, delete it."""

    __slots__ = ("_condition", "_content", "target")

    def __init__(self, target: Target, content: bytes | None, condition: Precondition | None) -> None:
        self.target = target
        self._content = content
        self._condition = condition

    def apply(self, commit: Commit) -> bytes:
        """Do it; the serialised WriteResult.

        Raises:
            StatusError: the precondition doesn't hold.
        """
        target = self.target
        stored = commit.find(target.collection, target.key)
        if self._condition is not None:
            check_precondition(self._condition, stored, target.name)
        if self._content is None:
            if stored is not None:
                commit.remove(target.collection, stored)
            return b""
        return write_result(commit.put(target.collection, target.key, self._content, stored))


class MaskedWrite:
    """Set or remove top-level fields, ``keys``; ``new`` holds the serialised map entries of those that are set."""

    __slots__ = ("_condition", "_is_suspect", "_keys", "_new", "target")

    def __init__(
        self,
        target: Target,
        keys: frozenset[bytes],
        new: dict[bytes, bytes],
        condition: Precondition | None,
        *,
        is_suspect: bool,
    ) -> None:
        self.target = target
        self._keys = keys
        self._new = new
        self._condition = condition
        self._is_suspect = is_suspect

    def apply(self, commit: Commit) -> bytes:
        """Do it; the serialised WriteResult.

        Raises:
            StatusError: the precondition doesn't hold, or the document may not be what it would become.
        """
        target, keys = self.target, self._keys
        stored = commit.find(target.collection, target.key)
        if self._condition is not None:
            check_precondition(self._condition, stored, target.name)
        there = {} if stored is None else _entries(stored.frame)
        kept = [entry for key, entry in there.items() if key not in keys]
        kept += [entry for key, entry in self._new.items() if key in keys]
        content = frames.named(target.name) + b"".join([delimited(b"\x12", entry) for entry in kept])
        if self._is_suspect or len(content) > _SURELY_SMALL:
            check_document(Document.FromString(content))
        return write_result(commit.put(target.collection, target.key, content, stored))


class ParsedWrite:
    """A write with transforms, or with a mask of nested fields."""

    __slots__ = ("_mask", "_write", "target")

    def __init__(self, target: Target, write: Write) -> None:
        self.target = target
        self._write = write
        self._mask = None
        if write.HasField("update_mask"):
            self._mask = [parse_field_path(path) for path in write.update_mask.field_paths]

    def apply(self, commit: Commit) -> bytes:
        """Do it; the serialised WriteResult.

        Raises:
            StatusError: the precondition doesn't hold, or the document may not be what it would become.
        """
        write, target = self._write, self.target
        stored = commit.find(target.collection, target.key)
        if write.HasField("current_document"):
            check_precondition(write.current_document, stored, target.name)
        document = Document(name=target.name)
        if stored is not None and (self._mask is not None or not write.HasField("update")):
            document.MergeFrom(frames.parse(stored.frame))
        if self._mask is not None:
            merge_masked(document, write.update, self._mask)
        elif write.HasField("update"):
            document.MergeFrom(write.update)
        transforms = write.update_transforms or write.transform.field_transforms
        results = apply_transforms(document, transforms, commit.time)
        check_document(document)
        updated = commit.put(target.collection, target.key, frames.body_of(document), stored)
        return write_result(updated, results)


def check_precondition(condition: Precondition, stored: Stored | None, name: str) -> None:
    """Compare what a write expects of the document with what it is.

    Raises:
        StatusError: ALREADY_EXISTS, NOT_FOUND or FAILED_PRECONDITION.
    """
    kind = condition.WhichOneof("condition_type")
    if kind == "exists":
        if condition.exists and stored is None:
            raise not_found(f"No document to update: {name}")
        if not condition.exists and stored is not None:
            raise already_exists(f"Document already exists: {name}")
    elif kind == "update_time":
        expected = condition.update_time.ToMicroseconds()
        found = stored.updated if stored is not None else 0
        if found != expected:
            raise failed_precondition(
                f"the stored version ({found}) does not match the required base version ({expected})"
            )


def check_document(document: Document) -> None:
    """Refuse a document that the service would not store.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    check_fields(document)
    size = document_size(document)
    if size > MAX_DOCUMENT_BYTES:
        raise invalid(
            f"Document '{document.name}' cannot be written because its size ({size:,} bytes) "
            f"exceeds the maximum allowed size of {MAX_DOCUMENT_BYTES:,} bytes."
        )


def _entries(framed: bytes) -> dict[bytes, bytes]:
    """The serialised map entries of a stored document's fields, by key."""
    found = frames.entries(frames.message(framed))
    # Stored as it came, in an order that no serialiser produces.
    return frames.entries(frames.body_of(frames.parse(framed))) or {} if found is None else found


@lru_cache(maxsize=1024)  # a client's writes are masked alike
def _top_level(mask: bytes) -> frozenset[bytes] | None:
    """The names of the fields of a serialised mask; ``None`` if one is within another.

    Raises:
        StatusError: INVALID_ARGUMENT if it holds what is not a field path.
    """
    paths = [parse_field_path(path) for path in DocumentMask.FromString(mask).field_paths]
    if any(len(path) > 1 for path in paths):
        return None
    return frozenset(path[0].encode() for path in paths)


def _content(raw: bytes, update: Any) -> bytes:
    """Name and fields of a document to store, as they came if that is their normal form."""
    start = frames.named(update.name)
    ordinary = raw.startswith(start) and not update.create_time and not update.update_time
    if ordinary and not _is_suspect(raw, len(start)):
        return raw
    document = Document.FromString(raw)
    check_document(document)
    return raw if ordinary else frames.body_of(document)


def _is_suspect(raw: bytes, start: int) -> bool:
    """Whether a document has to be parsed to know that it is within the rules; rarely true, and cheap to ask."""
    if (
        len(raw) > _SURELY_SMALL
        or raw.find(b"__", start) >= 0  # perhaps a reserved name
        or raw.find(b"\x0a\x00", start) >= 0  # perhaps an empty one
        or raw.find(b"\x12\x00", start) >= 0  # perhaps a value without a type
        or (len(raw) > MAX_FIELD_NAME_BYTES and _LONG_NAME.search(raw, start))
    ):
        return True
    arrays = raw.count(b"\x4a")
    if arrays > 1 and _ARRAY_IN_ARRAY.search(raw, start):
        return True
    return arrays + raw.count(b"\x32") >= MAX_FIELD_DEPTH and len(_NESTING.findall(raw)) >= MAX_FIELD_DEPTH


def write_result(updated: int, results: Sequence[Value] = ()) -> bytes:
    """A serialised WriteResult."""
    encoded = delimited(b"\x0a", frames.timestamp(updated))
    if results:
        encoded += WriteResult(transform_results=results).SerializeToString()
    return encoded


def commit_response(results: Sequence[bytes], time: int) -> bytes:
    """A serialised CommitResponse, put together from serialised results."""
    repeated = b"".join(delimited(b"\x0a", result) for result in results)
    return repeated + delimited(b"\x12", frames.timestamp(time))
