"""firestore: the wire.

Belongs here: the gRPC channel, the raw protobuf classes, scans at a pinned read_time, the ledger writer, names and
values, fingerprints, composite indexes, the maintenance flag. Does not belong here: what a backup or a migration is,
what a document means, any file on disk. This room is the sole importer of the vendor's Firestore package; no other
room sees a vendor exception.

The promise to its consumers::

    address = DatabaseAddress(project="p", database="(default)", host="127.0.0.1:8080")   # host None: production
    address.name("users", "u1")                # "projects/p/databases/(default)/documents/users/u1"
    address.relative(name)                     # "users/u1"

    with Firestore(address, telemetry=telemetry, origin="backup") as firestore:
        firestore.check()                                      # Misconfigured(ADDRESS) if nothing answers
        at: datetime = firestore.server_time()                 # a read_time to pin
        firestore.ranges(parts, at)                            # list[Scope]: disjoint; together everything
        firestore.documents(scope, at)                         # Iterator[RawDocument]
        firestore.pages(scope, at)                             # Iterator[list[RawDocument]]: as they arrive
        firestore.keys(scope, at)                              # Iterator[DocumentKey(name, update_time)]
        firestore.get(names, at)                               # dict[str, RawDocument | None]
        firestore.count(scope, at)                             # int
        firestore.collection_ids(parent="", read_time=at)      # list[str]
        firestore.head(scope, limit, at)                       # list[RawDocument]: the first ones, no more are read
        firestore.run_query(structured_query, parent="")       # Iterator[RawDocument]; for probes
        firestore.write(writes, origin="undo", on_batch=observer, rate_limit=RateLimit(per_second=500))

    scope: a range of names NameRange(first="", last="")      # names from first up to, without, last; both relative
           one collection    Collection(path="users")          # its direct documents only
           a collection id   CollectionGroup(id="reviews")     # wherever it occurs

``write`` returns a :class:`WriteRun`, an iterator that yields one :class:`WriteOutcome` for each
:class:`PlannedWrite` (in order of completion) and has ``.ledger`` (planned, applied, conflicts, rejected, failed).
The caller's thread pulls the writes, forms batches, calls ``on_batch.before(batch)`` before a batch is first sent
and ``on_batch.after(batch, outcomes)`` when all of its writes are terminal; other threads only send. An exception
out of ``before`` keeps that batch from being sent.

    PlannedWrite(name=..., kind=WriteKind.SET, fields=document.fields, precondition=MustExistAt(update_time))
    PlannedWrite(name=..., kind=WriteKind.DELETE)
    WriteOutcome: .write, .name, .state (WriteState), .update_time (ns or None), .reason, .message, .ambiguous

    RawDocument: .name, .raw (Document message as received), .fields (bytes of the fields alone), .create_time,
    .update_time (ns since the epoch), .parsed() (protobuf Document)
    structured_query("reviews", where=[Where(field="userId", value="u1")], order=[Order(field="dueAt")], limit=20)
    check_indexes(firestore, IndexAdmin(address, clock=clock), indexes) -> statuses of composite indexes
    decode_fields(document.fields) -> dict ; encode_fields(mapping) -> bytes
    LazyFields(document.raw): .get(key), .all() -> dict, .patch(changed) -> Patch; decodes what is asked for;
    GONE among the changed takes a field away
    difference(raw, other_raw) -> Patch(.keys, .fields): what one has to become the other
    fingerprint(documents, exclude=("sessions", "_config")) -> Fingerprint(.digest, .documents, .collections)
    take_fingerprint(firestore, exclude=...)               # of the whole database at one moment
    read_maintenance(firestore) / set_maintenance(firestore, enabled=..., now=..., message=..., by=...)
"""

from agent.firestore.address import DatabaseAddress
from agent.firestore.client import Firestore
from agent.firestore.document import DocumentKey, RawDocument, canonical
from agent.firestore.fields import GONE, LazyFields
from agent.firestore.fingerprint import Fingerprint, Fingerprinter, fingerprint, take_fingerprint
from agent.firestore.indexes import IndexAdmin, IndexState, IndexStatus, check_indexes
from agent.firestore.maintenance import Maintenance, read_maintenance, set_maintenance
from agent.firestore.patches import Patch, difference
from agent.firestore.queries import Comparison, Order, Where, structured_query
from agent.firestore.rate import NEW_COLLECTION, RateLimit
from agent.firestore.retry import NO_RETRY, RetryPolicy
from agent.firestore.scan import Carrier
from agent.firestore.scopes import EVERYTHING, Collection, CollectionGroup, NameRange, Scope
from agent.firestore.values import (
    GeoPoint,
    Opaque,
    Reference,
    Timestamp,
    Vector,
    decode,
    decode_fields,
    encode,
    encode_fields,
)
from agent.firestore.writer import WriteRun
from agent.firestore.writes import (
    Batch,
    BatchObserver,
    Ledger,
    MustExist,
    MustExistAt,
    MustNotExist,
    PlannedWrite,
    WriteKind,
    WriteOutcome,
    WriteState,
)

__all__ = [
    "EVERYTHING",
    "GONE",
    "NEW_COLLECTION",
    "NO_RETRY",
    "Batch",
    "BatchObserver",
    "Carrier",
    "Collection",
    "CollectionGroup",
    "Comparison",
    "DatabaseAddress",
    "DocumentKey",
    "Fingerprint",
    "Fingerprinter",
    "Firestore",
    "GeoPoint",
    "IndexAdmin",
    "IndexState",
    "IndexStatus",
    "LazyFields",
    "Ledger",
    "Maintenance",
    "MustExist",
    "MustExistAt",
    "MustNotExist",
    "NameRange",
    "Opaque",
    "Order",
    "Patch",
    "PlannedWrite",
    "RateLimit",
    "RawDocument",
    "Reference",
    "RetryPolicy",
    "Scope",
    "Timestamp",
    "Vector",
    "Where",
    "WriteKind",
    "WriteOutcome",
    "WriteRun",
    "WriteState",
    "canonical",
    "check_indexes",
    "decode",
    "decode_fields",
    "difference",
    "encode",
    "encode_fields",
    "fingerprint",
    "read_maintenance",
    "set_maintenance",
    "structured_query",
    "take_fingerprint",
]
