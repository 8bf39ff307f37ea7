"""Document names, and the bytes they sort by.

Firestore orders ``__name__`` segment by segment: ids written ``__id7__`` first, by number, then all others by their
UTF-8 bytes. :func:`segment_key` turns one segment into bytes whose plain comparison is that order, and whose
concatenation orders whole paths, a parent directly before what lies beneath it. Called by the store for every
document, by queries for ``__name__`` bounds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.sandbox.status import invalid

MAX_SEGMENT_BYTES = 1_500
MAX_NAME_BYTES = 6 * 1024
MAX_DEPTH = 100  # subcollections a document can be deep, as the service documents

_NUMBER = re.compile(r"__id(0|-?[1-9][0-9]*)__\Z")
_NO_NUMBER = "__id0__"  # in order it has a place; as an id it stands for "none yet", and the emulator refuses it, too
_RESERVED = re.compile(r"__.*__\Z", re.DOTALL)
_ROOT = re.compile(r"projects/([^/]+)/databases/([^/]+)\Z")

_NUMBER_TAG = b"\x01"
_TEXT_TAG = b"\x02"

# Sorts after every key that continues a given prefix: tags are 1 and 2, and escapes are only ever within a segment.
AFTER_DESCENDANTS = b"\xff"


def segment_key(segment: str) -> bytes:
    """``segment`` as bytes that compare as Firestore compares ids; no such key is a prefix of another."""
    if segment.startswith("__id") and (match := _NUMBER.match(segment)):
        number = int(match.group(1))
        if -(2**63) <= number < 2**63:
            return _NUMBER_TAG + (number + 2**63).to_bytes(8, "big")
    raw = segment.encode()
    if b"\x00" in raw:
        raw = raw.replace(b"\x00", b"\x00\xff")
    return _TEXT_TAG + raw + b"\x00"


def segment_of(key: bytes) -> bytes:
    """The id that :func:`segment_key` made ``key`` of, in UTF-8."""
    if key[:1] == _NUMBER_TAG:
        return b"__id%d__" % (int.from_bytes(key[1:], "big") - 2**63)
    raw = key[1:-1]
    return raw.replace(b"\x00\xff", b"\x00") if b"\x00" in raw else raw


def path_key(segments: Sequence[str]) -> bytes:
    """The key of a whole path below ``documents``."""
    return b"".join(map(segment_key, segments))


def database_root(database: str) -> str:
    """``projects/p/databases/d``, checked.

    Raises:
        StatusError: INVALID_ARGUMENT if it isn't of that form.
    """
    if not _ROOT.match(database):
        raise invalid(f'Database name "{database}" is not of the form "projects/PROJECT/databases/DATABASE".')
    return database


def split_name(name: str) -> tuple[str, list[str]]:
    """A resource name as database root and path segments below ``documents`` (none, for the root itself).

    Raises:
        StatusError: INVALID_ARGUMENT if it isn't a resource name of a document or a document root.
    """
    parts = name.split("/")
    if len(parts) < 5 or parts[0] != "projects" or parts[2] != "databases" or parts[4] != "documents":
        raise invalid(f'Document name "{name}" is not of the form "projects/P/databases/D/documents/...".')
    return "/".join(parts[:4]), parts[5:]


def split_document(name: str) -> tuple[str, list[str]]:
    """As :func:`split_name`, for a name that has to be a document's.

    Raises:
        StatusError: INVALID_ARGUMENT if the path has an odd number of segments, none, or an illegal one.
    """
    root, segments = split_name(name)
    if not segments or len(segments) % 2:
        raise invalid(f'Document name "{name}" lacks "/" at index {len(name.encode())}.')
    for position, segment in enumerate(segments):
        check_segment(segment, name, is_collection=position % 2 == 0)
    if len(segments) // 2 > MAX_DEPTH:
        raise invalid(f"Document paths cannot be deeper than {MAX_DEPTH} subcollections: {name}")
    return root, segments


def split_parent(name: str) -> tuple[str, list[str]]:
    """As :func:`split_name`, for a parent: the document root or a document.

    Raises:
        StatusError: INVALID_ARGUMENT if it names a collection.
    """
    root, segments = split_name(name)
    if len(segments) % 2:
        raise invalid(f'Document parent name "{name}" lacks "/" at index {len(name.encode())}.')
    return root, segments


def check_segment(segment: str, name: str, *, is_collection: bool) -> None:
    """Refuse an id that the service refuses.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    if not segment:
        raise invalid(f'Document name "{name}" has an empty resource id.')
    if segment in (".", ".."):
        raise invalid(f'Document name "{name}" contains a resource id "{segment}".')
    if (
        segment.startswith("__")
        and _RESERVED.match(segment)
        and (is_collection or segment == _NO_NUMBER or not _NUMBER.match(segment))
    ):
        kind = "Collection" if is_collection else "Resource"
        raise invalid(f'{kind} id "{segment}" is invalid because it is reserved.')
    if len(segment) > MAX_SEGMENT_BYTES // 4 and len(segment.encode()) > MAX_SEGMENT_BYTES:
        raise invalid(f"The key path element name is longer than {MAX_SEGMENT_BYTES} bytes.")
