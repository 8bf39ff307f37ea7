"""What each gRPC status means."""

from __future__ import annotations

import grpc
import pytest

from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
    Permanent,
    PermanentReason,
    Reason,
    RunbookdError,
    Transient,
    TransientReason,
)
from agent.firestore import DatabaseAddress
from agent.firestore.errors import classified, from_rpc_error, from_status

_ADDRESS = DatabaseAddress(project="p", host="127.0.0.1:1")
_Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "kind", "reason"),
    [
        (_Code.UNAVAILABLE, "", Transient, TransientReason.UNAVAILABLE),
        (_Code.DEADLINE_EXCEEDED, "", Transient, TransientReason.DEADLINE_EXCEEDED),
        (_Code.ABORTED, "Too much contention", Transient, TransientReason.ABORTED),
        (_Code.RESOURCE_EXHAUSTED, "Quota exceeded.", Transient, TransientReason.RESOURCE_EXHAUSTED),
        (_Code.INTERNAL, "RST_STREAM", Transient, TransientReason.SERVER_ERROR),
        (
            _Code.RESOURCE_EXHAUSTED,
            "gRPC message exceeds maximum size 4194304: 5000403",
            Permanent,
            PermanentReason.INVALID,
        ),
        (_Code.NOT_FOUND, "no entity to update", Permanent, PermanentReason.NOT_FOUND),
        (
            _Code.NOT_FOUND,
            "The database (default) does not exist for project p",
            Misconfigured,
            MisconfiguredReason.ADDRESS,
        ),
        (_Code.ALREADY_EXISTS, "", Permanent, PermanentReason.CONFLICT),
        (_Code.FAILED_PRECONDITION, "the stored version does not match", Permanent, PermanentReason.CONFLICT),
        (
            _Code.FAILED_PRECONDITION,
            "The requested 'read_time' is too old.",
            Permanent,
            PermanentReason.READ_TIME_EXPIRED,
        ),
        (_Code.INVALID_ARGUMENT, "", Permanent, PermanentReason.INVALID),
        (_Code.UNIMPLEMENTED, "", Permanent, PermanentReason.UNSUPPORTED),
        (_Code.PERMISSION_DENIED, "", Misconfigured, MisconfiguredReason.CREDENTIALS),
        (_Code.UNAUTHENTICATED, "", Misconfigured, MisconfiguredReason.CREDENTIALS),
    ],
)
def test_status_to_kind_and_reason(code: _Code, details: str, kind: type[RunbookdError], reason: Reason) -> None:
    """Each status answers "retry or not?" and has a closed reason; the message says where."""
    error = classified(code, details, operation="RunQuery", address=_ADDRESS)
    assert type(error) is kind
    assert error.reason is reason
    assert "127.0.0.1:1" in error.message


def test_a_missing_index_carries_the_link_that_creates_it() -> None:
    """Somebody at 3 a.m. wants the link, not the sentence around it."""
    link = "https://console.firebase.google.com/v1/r/project/p/firestore/indexes?create_composite=Ck1w"
    error = classified(
        _Code.FAILED_PRECONDITION,
        f"The query requires an index. You can create it here: {link}",
        operation="RunQuery",
        address=_ADDRESS,
    )
    assert isinstance(error, Misconfigured)
    assert error.reason is MisconfiguredReason.MISSING_INDEX
    assert error.hint == f"create it: {link}"


def test_status_numbers_within_a_reply() -> None:
    """BatchWrite answers with google.rpc.Status numbers; unknown ones are the server's trouble."""
    assert from_status(14, "x", operation="BatchWrite", address=_ADDRESS).reason is TransientReason.UNAVAILABLE
    assert from_status(9, "x", operation="BatchWrite", address=_ADDRESS).reason is PermanentReason.CONFLICT
    assert from_status(99, "x", operation="BatchWrite", address=_ADDRESS).reason is TransientReason.SERVER_ERROR


def test_an_rpc_error_without_a_status_is_the_servers_trouble() -> None:
    """Never an exception of its own."""
    error = from_rpc_error(grpc.RpcError("odd"), operation="RunQuery", address=_ADDRESS)
    assert error.reason is TransientReason.SERVER_ERROR
