"""What a gRPC status means: retry or not, for which reason, and what a person can do.

The edge of the vendor: nothing outside this room sees a :class:`grpc.RpcError`.
"""

from __future__ import annotations

import re
from typing import Any

import grpc

from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
    Permanent,
    PermanentReason,
    RunbookdError,
    Transient,
    TransientReason,
)
from agent.firestore.address import DatabaseAddress

_TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE: TransientReason.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: TransientReason.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED: TransientReason.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TransientReason.RESOURCE_EXHAUSTED,
    # A broken stream and a server's own trouble both arrive as INTERNAL; Google's clients retry it on reads, and our
    # writes are safe to send twice.
    grpc.StatusCode.INTERNAL: TransientReason.SERVER_ERROR,
    grpc.StatusCode.UNKNOWN: TransientReason.SERVER_ERROR,
    grpc.StatusCode.CANCELLED: TransientReason.UNAVAILABLE,
}
_PERMANENT = {
    grpc.StatusCode.NOT_FOUND: PermanentReason.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: PermanentReason.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: PermanentReason.CONFLICT,
    grpc.StatusCode.INVALID_ARGUMENT: PermanentReason.INVALID,
    grpc.StatusCode.OUT_OF_RANGE: PermanentReason.INVALID,
    grpc.StatusCode.UNIMPLEMENTED: PermanentReason.UNSUPPORTED,
    grpc.StatusCode.DATA_LOSS: PermanentReason.CORRUPT,
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_LINK = re.compile(r"https://\S+")
# "gRPC message exceeds maximum size 4194304" (the emulator), "Sent message larger than max" (gRPC itself), "Request
# payload size exceeds the limit" (production): the status invites a retry that can't succeed.
_TOO_LARGE = re.compile(r"exceeds (the )?maximum size|larger than max|exceeds the limit|too big", re.IGNORECASE)
_TOO_OLD = re.compile(r"read.?time.*too old|read.?time.*(before|outside)|stale|garbage.collected", re.IGNORECASE)
_INDEX = re.compile(r"requires an? .*index|no matching index", re.IGNORECASE)


def from_rpc_error(error: grpc.RpcError, *, operation: str, address: DatabaseAddress) -> RunbookdError:
    """The product's error for a failed RPC.

    Args:
        operation: e.g. ``RunQuery``.
        address: whom it was sent to.
    """
    call: Any = error  # every RpcError that a call raises is also a Call, which its type does not say
    code = call.code() if hasattr(call, "code") else grpc.StatusCode.UNKNOWN
    details = call.details() if hasattr(call, "details") else str(error)
    return classified(code, details or "", operation=operation, address=address)


def from_status(code: int, details: str, *, operation: str, address: DatabaseAddress) -> RunbookdError:
    """The product's error for a ``google.rpc.Status`` within a reply; ``code`` is not 0."""
    return classified(status_code(code), details, operation=operation, address=address)


def status_code(number: int) -> grpc.StatusCode:
    """The code that goes over the wire as ``number``."""
    return _CODES.get(number, grpc.StatusCode.UNKNOWN)


def classified(code: grpc.StatusCode, details: str, *, operation: str, address: DatabaseAddress) -> RunbookdError:
    """The decision table."""
    where = f"{operation} on {address}"
    said = details.strip() or code.name
    if code is grpc.StatusCode.FAILED_PRECONDITION and _INDEX.search(details):
        link = _LINK.search(details)
        return Misconfigured(
            MisconfiguredReason.MISSING_INDEX,
            f"{where}: the query needs an index that does not exist",
            hint=f"create it: {link[0]}" if link else said,
        )
    if code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT) and _TOO_OLD.search(details):
        return Permanent(
            PermanentReason.READ_TIME_EXPIRED,
            f"{where}: {said}",
            hint="start again with a new read_time; Firestore keeps old versions for an hour without PITR",
        )
    if _TOO_LARGE.search(details) and code in (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
    ):
        return Permanent(
            PermanentReason.INVALID,
            f"{where}: {said}",
            hint="send less in one request: 10 MiB is the limit, 4 MiB on Google's emulator",
        )
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        return Misconfigured(
            MisconfiguredReason.CREDENTIALS,
            f"{where} is not allowed: {said}",
            hint="check GOOGLE_APPLICATION_CREDENTIALS and that the account has roles/datastore.user",
        )
    if code is grpc.StatusCode.NOT_FOUND and re.search(r"database .*does not exist", details, re.IGNORECASE):
        return Misconfigured(
            MisconfiguredReason.ADDRESS, f"{where}: {said}", hint="check the project id and the database id"
        )
    if code in _TRANSIENT:
        return Transient(_TRANSIENT[code], f"{where} failed: {said}")
    return Permanent(_PERMANENT.get(code, PermanentReason.INTERNAL), f"{where} failed: {said}")
