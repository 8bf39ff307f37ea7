"""Loading the sample database into any Firestore that needs no credentials: the sandbox or Google's emulator.

Called by the demo, ``runbookd sandbox --seed-scale``, drills and tests.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import grpc

from agent.faults import Misconfigured, MisconfiguredReason, Transient, TransientReason
from agent.firestore.protobuf import delimited
from agent.firestore.protos import SERVICE
from agent.sandbox.dataset import COUNTS, Planned, documents, total
from agent.sandbox.frames import named
from agent.telemetry.progress import Progress, ProgressSink, ignore_progress

_BATCH_WRITES = 500
_BATCH_BYTES = 3_000_000  # the emulator takes 4 MiB a request
_IN_FLIGHT = 4  # more gain nothing: the server commits one batch at a time
# Without it Google's emulator evaluates security rules for every write: 2.5 ms of its CPU a document instead of 0.4.
_OWNER = ("authorization", "Bearer owner")
_DEADLINE = 120.0  # seconds a commit may take; Google's emulator pauses for long collections of garbage

_REASONS = {
    grpc.StatusCode.UNAVAILABLE: TransientReason.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: TransientReason.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TransientReason.RESOURCE_EXHAUSTED,
}


@dataclass(frozen=True, kw_only=True)
class SeedReport:
    """What was loaded.

    Args:
        documents: of the five collections of the page; sessions and configuration are not counted.
        bytes: their names and fields on the wire.
        seconds: of wall time.
        collections: documents by collection id, subcollections included.
    """

    documents: int
    bytes: int
    seconds: float
    collections: Mapping[str, int]


def seed(
    host: str,
    project: str,
    scale: float = 1.0,
    progress: ProgressSink = ignore_progress,
    *,
    database: str = "(default)",
) -> SeedReport:
    """Load the sample database, overwriting documents of the same names.

    Args:
        host: ``host:port`` of a sandbox or emulator.
        scale: 1 for 306,725 documents; the same scale always gives the same bytes.

    Raises:
        Misconfigured: ADDRESS if nothing answers at ``host`` or it is no Firestore.
        Transient: if the server gives up on a batch.
    """
    root = f"projects/{project}/databases/{database}"
    expected = total(scale)
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    size = done = 0
    pending: deque[tuple[grpc.Future[bytes], list[Planned]]] = deque()
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(host, options=options) as channel:
        commit = channel.unary_unary(f"/{SERVICE}/Commit", None, None)

        def settle() -> None:
            nonlocal size, done
            future, batch = pending.popleft()
            try:
                future.result()
            except grpc.RpcError as error:
                raise _translated(error, host, answered=done > 0) from error
            for document in batch:
                if document.collection in COUNTS:
                    counts[document.collection] += 1
                    size += len(root) + 11 + len(document.path) + len(document.fields)
            done = sum(counts.values())
            progress(Progress(operation="seed", stage=batch[-1].collection, done=done, total=expected))

        for batch in _batches(documents(root, scale)):
            request = _commit_request(root, batch)
            metadata = (("google-cloud-resource-prefix", root), _OWNER)
            pending.append((commit.future(request, timeout=_DEADLINE, metadata=metadata), batch))
            if len(pending) >= _IN_FLIGHT:
                settle()
        while pending:
            settle()
    return SeedReport(documents=done, bytes=size, seconds=time.perf_counter() - started, collections=dict(counts))


def _batches(planned: Iterator[Planned]) -> Iterator[list[Planned]]:
    """Batches within the limits of a request."""
    batch: list[Planned] = []
    size = 0
    for document in planned:
        length = len(document.path) + len(document.fields) + 100
        if batch and (len(batch) == _BATCH_WRITES or size + length > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += length
    if batch:
        yield batch


def _commit_request(root: str, batch: list[Planned]) -> bytes:
    """A serialised CommitRequest that sets every document of ``batch``."""
    writes = (
        delimited(b"\x12", delimited(b"\x0a", named(f"{root}/documents/{document.path}") + document.fields))
        for document in batch
    )
    return delimited(b"\x0a", root.encode()) + b"".join(writes)


def _translated(error: grpc.RpcError, host: str, *, answered: bool) -> Misconfigured | Transient:
    code = error.code()
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Misconfigured(
            MisconfiguredReason.ADDRESS,
            f"what answers at {host} is no Firestore",
            hint="give the address of a sandbox or of Google's emulator",
        )
    if code is grpc.StatusCode.UNAVAILABLE and not answered:
        return Misconfigured(
            MisconfiguredReason.ADDRESS,
            f"no Firestore answers at {host}",
            hint="start one with `runbookd sandbox`, or check FIRESTORE_EMULATOR_HOST",
        )
    reason = _REASONS.get(code, TransientReason.ABORTED)
    return Transient(reason, f"loading the sample database into {host} failed: {error.details()}")
