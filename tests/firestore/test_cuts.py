"""Whether a server cuts, and where."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from agent.clock import ManualClock
from agent.faults import Permanent, PermanentReason
from agent.firestore import DatabaseAddress
from agent.firestore.cuts import Cuts
from agent.firestore.protos import Cursor, PartitionQueryRequest, PartitionQueryResponse, Value
from agent.firestore.retry import Retrying, RetryPolicy

_AT = datetime(2026, 1, 1, tzinfo=UTC)


class Partitioning:
    """A wire to a server that cuts every collection at the same names, one a page; or that refuses."""

    def __init__(self, names: list[str], refusal: PermanentReason | None = None) -> None:
        self.address = DatabaseAddress(project="p", host="fake")
        self.requests: list[PartitionQueryRequest] = []
        self._names = names
        self._refusal = refusal

    def unary(self, method: str, request: bytes, *, summary: str = "", deadline: float | None = None) -> bytes:
        assert (method, summary, deadline) == ("PartitionQuery", "", None)
        asked = PartitionQueryRequest.FromString(request)
        self.requests.append(asked)
        if self._refusal is not None:
            raise Permanent(self._refusal, "refused")
        place = int(asked.page_token or 0)
        cursor = Cursor(values=[Value(reference_value=self.address.name(self._names[place]))])
        more = str(place + 1) if place + 1 < len(self._names) else ""
        return PartitionQueryResponse(partitions=[cursor], next_page_token=more).SerializeToString()

    def stream(
        self, method: str, request: bytes, *, summary: str = "", deadline: float | None = None
    ) -> Iterator[bytes]:
        raise AssertionError(method, request, summary, deadline)


def _cuts(wire: Partitioning) -> Cuts:
    return Cuts(wire, Retrying(RetryPolicy(), clock=ManualClock(), draw=lambda: 0.5))


def test_cuts_follow_the_token_at_the_pinned_moment() -> None:
    """All pages, all of the same read_time."""
    wire = Partitioning(["users/u3", "users/u6"])
    assert _cuts(wire).of("users", 3, _AT) == ["users/u3", "users/u6"]
    assert [request.partition_count for request in wire.requests] == [2, 2]
    assert {request.read_time.ToDatetime(tzinfo=UTC) for request in wire.requests} == {_AT}


@pytest.mark.parametrize("refusal", [None, PermanentReason.UNSUPPORTED, PermanentReason.INVALID])
def test_a_server_is_asked_once_whether_it_cuts(refusal: PermanentReason | None) -> None:
    """A refusal of the call is an answer, too."""
    wire = Partitioning(["users/u3"], refusal)
    cuts = _cuts(wire)
    assert [cuts.possible(_AT) for _ in range(3)] == [refusal is None] * 3
    assert len(wire.requests) == 1


def test_another_error_is_no_answer() -> None:
    """A moment that is too old is nothing to go on from."""
    with pytest.raises(Permanent, match="refused"):
        _cuts(Partitioning([], PermanentReason.READ_TIME_EXPIRED)).possible(_AT)
