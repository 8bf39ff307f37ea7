"""Scans over a wire that breaks: every document once, at one read_time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import ManualClock
from agent.faults import Permanent, PermanentReason, Transient, TransientReason
from agent.firestore import EVERYTHING, Carrier, Collection, DatabaseAddress, NameRange
from agent.firestore.names import sort_key
from agent.firestore.protos import (
    Document,
    ListDocumentsRequest,
    ListDocumentsResponse,
    RunQueryRequest,
    RunQueryResponse,
    StructuredQuery,
    Timestamp,
)
from agent.firestore.retry import Retrying, RetryPolicy
from agent.firestore.scan import Scanner

_AT = datetime(2026, 1, 1, tzinfo=UTC)
_PATHS = [f"users/u{n:04d}" for n in range(950)]


class Frail:
    """A wire to 950 documents whose calls break where ``breaks`` says: after that many messages, and how."""

    def __init__(self, breaks: list[tuple[int, str]]) -> None:
        self.address = DatabaseAddress(project="p", host="fake")
        self.calls = 0
        self.read_times: set[int] = set()
        self._breaks = iter(breaks)

    def stream(
        self, method: str, request: bytes, *, summary: str = "", deadline: float | None = None
    ) -> Iterator[bytes]:
        assert (method, summary, deadline) == ("RunQuery", "", 300.0)
        self.calls += 1
        query = RunQueryRequest.FromString(request)
        self.read_times.add(query.read_time.ToNanoseconds())
        after, how = next(self._breaks, (10**9, ""))
        found = [path for path in _PATHS if self._matches(path, query)]
        for index, path in enumerate(found):
            if index == after:
                break
            done = index == len(found) - 1 and how != "no done"
            yield RunQueryResponse(
                document=Document(name=self.address.name(path)), read_time=query.read_time, done=done or None
            ).SerializeToString()
        if after < len(found) or how == "nothing":
            if how == "silent" or how == "nothing":
                return
            if how == "expired":
                raise Permanent(PermanentReason.READ_TIME_EXPIRED, "too old")
            raise Transient(TransientReason.UNAVAILABLE, "stream broke")
        if not found:
            yield RunQueryResponse(read_time=query.read_time, done=True).SerializeToString()

    def unary(self, method: str, request: bytes, *, summary: str = "", deadline: float | None = None) -> bytes:
        assert (method, summary, deadline) == ("ListDocuments", "", None)
        self.calls += 1
        asked = ListDocumentsRequest.FromString(request)
        self.read_times.add(asked.read_time.ToNanoseconds())
        if next(self._breaks, None):
            raise Transient(TransientReason.UNAVAILABLE, "broke")
        begin = int(asked.page_token or 0)
        # Fewer than asked for, as production does.
        page = _PATHS[begin : begin + 100]
        return ListDocumentsResponse(
            documents=[Document(name=self.address.name(path)) for path in page],
            next_page_token=str(begin + 100) if begin + 100 < len(_PATHS) else "",
        ).SerializeToString()

    def _matches(self, path: str, query: RunQueryRequest) -> bool:
        where = query.structured_query.where
        filters = [where] if where.HasField("field_filter") else list(where.composite_filter.filters)
        key = sort_key(path)
        for found in filters:
            bound = sort_key(self.address.relative(found.field_filter.value.reference_value))
            match found.field_filter.op:
                case StructuredQuery.FieldFilter.GREATER_THAN:
                    kept = key > bound
                case StructuredQuery.FieldFilter.GREATER_THAN_OR_EQUAL:
                    kept = key >= bound
                case _:
                    kept = key < bound
            if not kept:
                return False
        return True


def _scanner(wire: Frail, budget: float = 60.0) -> Scanner:
    return Scanner(wire, Retrying(RetryPolicy(budget=budget), clock=ManualClock(), draw=lambda: 0.5))


def _paths(wire: Frail, scope: NameRange | Collection = EVERYTHING, carrier: Carrier = Carrier.STREAM) -> list[str]:
    pages = _scanner(wire).pages(scope, _AT, carrier=carrier)
    return [wire.address.relative(document.name) for page in pages for document in page]


@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["error", "silent", "no done"])), max_size=12))
def test_broken_streams_continue_behind_the_last_name(breaks: list[tuple[int, str]]) -> None:
    """Errors and silent ends alike: every document once, in order, all at the same read_time."""
    # A silent end before the first document, with nothing said at all, is a failure like any other.
    wire = Frail([(after, "error" if after == 0 and how == "silent" else how) for after, how in breaks])
    assert _paths(wire) == _PATHS
    expected = Timestamp()
    expected.FromDatetime(_AT)
    assert wire.read_times == {expected.ToNanoseconds()}


def test_a_stream_that_says_nothing_is_asked_again() -> None:
    """An OK without a single message is no proof of an empty collection."""
    wire = Frail([(0, "nothing"), (0, "nothing")])
    assert _paths(wire) == _PATHS
    assert wire.calls == 3


def test_one_request_is_enough_when_the_server_says_done() -> None:
    """No extra request where the end is known."""
    wire = Frail([])
    assert _paths(wire) == _PATHS
    assert wire.calls == 1


def test_ranges_are_half_open() -> None:
    """First is in, last is out, also when the stream breaks inside."""
    wire = Frail([(5, "error")])
    scope = NameRange(first="users/u0010", last="users/u0020")
    assert _paths(wire, scope) == _PATHS[10:20]


def test_pages_follow_the_token_and_survive_failures() -> None:
    """Smaller pages than asked for and failed requests lose nothing."""
    wire = Frail([(0, "x"), (0, "x")])
    assert _paths(wire, Collection(path="users"), Carrier.PAGES) == _PATHS
    assert wire.calls == 2 + 10


class Timed(Frail):
    """A wire that takes its time: so many seconds for a stream's first documents, and for each page of 100."""

    def __init__(self, clock: ManualClock, *, stream: float, page: float) -> None:
        super().__init__([])
        self._clock, self._stream, self._page = clock, stream, page

    def stream(
        self, method: str, request: bytes, *, summary: str = "", deadline: float | None = None
    ) -> Iterator[bytes]:
        self._clock.sleep(self._stream)
        yield from super().stream(method, request, summary=summary, deadline=deadline)

    def unary(self, method: str, request: bytes, *, summary: str = "", deadline: float | None = None) -> bytes:
        self._clock.sleep(self._page)
        return super().unary(method, request, summary=summary, deadline=deadline)


@pytest.mark.parametrize(
    ("stream", "page", "carrier"), [(3.0, 0.5, Carrier.PAGES), (3.0, 0.8, Carrier.STREAM), (0.3, 0.5, Carrier.STREAM)]
)
def test_the_faster_carrier_is_told_by_the_document_not_by_the_page(
    stream: float, page: float, carrier: Carrier
) -> None:
    """A server that answers with smaller pages than asked for is compared all the same."""
    clock = ManualClock()
    scanner = Scanner(Timed(clock, stream=stream, page=page), Retrying(RetryPolicy(), clock=clock, draw=lambda: 0.5))
    assert scanner.faster(Collection(path="users"), _AT, clock) is carrier


def test_no_progress_ends_in_the_failure() -> None:
    """A server that stays away ends the scan within the budget."""
    with pytest.raises(Transient, match="stream broke"):
        list(_scanner(Frail([(0, "error")] * 10_000), budget=10.0).pages(EVERYTHING, _AT))


def test_an_expired_read_time_ends_the_scan_at_once() -> None:
    """Going on at another moment would tear the picture."""
    wire = Frail([(350, "expired")])
    with pytest.raises(Permanent) as caught:
        _paths(wire)
    assert caught.value.reason is PermanentReason.READ_TIME_EXPIRED
    assert wire.calls == 1
