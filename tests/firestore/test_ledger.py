"""The ledger writer against a database that fails in every way: nothing lost, nothing counted twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import ManualClock
from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
    Permanent,
    PermanentReason,
    RunbookdError,
    Transient,
    TransientReason,
)
from agent.firestore import (
    Batch,
    Ledger,
    MustExistAt,
    MustNotExist,
    PlannedWrite,
    RateLimit,
    RawDocument,
    WriteKind,
    WriteOutcome,
    WriteRun,
    WriteState,
    canonical,
    encode_fields,
)
from agent.firestore.delivery import Delivery
from agent.firestore.document import with_name
from agent.firestore.protos import Document, Write
from agent.firestore.rate import TokenBucket
from agent.firestore.retry import Retrying, RetryPolicy
from agent.firestore.writer import BatchLimits

_ROOT = "projects/p/databases/(default)/documents"


class Fault(StrEnum):
    """How one request goes wrong."""

    NONE = "none"
    LOST_BEFORE = "unavailable, nothing applied"
    LOST_AFTER = "deadline exceeded, everything applied"
    LOST_HALF_WAY = "unavailable, half of it applied"
    ABORTED = "every other write aborted"
    EXHAUSTED = "every third write out of quota"
    SHORT = "applied, but the last answers are missing"


class Database:
    """A WritePort with Firestore's rules and a list of faults to come, one per request."""

    def __init__(self, faults: Iterable[Fault] = (), *, refuses: Callable[[str], bool] = lambda _: False) -> None:
        self.documents: dict[str, RawDocument] = {}
        self.applied: dict[str, int] = {}
        self.requests = 0
        self._faults = iter(faults)
        self._refuses = refuses
        self._time = 0
        self._lock = threading.Lock()

    def put(self, name: str, fields: bytes) -> int:
        """Somebody else's write; returns its update_time."""
        message = Document.FromString(with_name(name, fields))
        before = self.documents.get(name)
        if before is not None and canonical(before.fields) == canonical(fields):
            return before.update_time
        self._time += 1000
        message.update_time.FromNanoseconds(self._time)
        self.documents[name] = RawDocument(message.SerializeToString())
        return self._time

    def get(self, names: Sequence[str]) -> Mapping[str, RawDocument | None]:
        with self._lock:
            return {name: self.documents.get(name) for name in names}

    def batch_write(self, encoded: Sequence[bytes]) -> list[int | RunbookdError | None]:
        with self._lock:
            self.requests += 1
            writes = [Write.FromString(message) for message in encoded]
            names = [write.update.name or write.delete for write in writes]
            assert len(set(names)) == len(names), "one write a document"
            if any(map(self._refuses, names)):
                raise Permanent(PermanentReason.INVALID, "a document of the request is too large")
            match next(self._faults, Fault.NONE):
                case Fault.LOST_BEFORE:
                    raise Transient(TransientReason.UNAVAILABLE, "gone")
                case Fault.LOST_AFTER:
                    self._apply(writes)
                    raise Transient(TransientReason.DEADLINE_EXCEEDED, "too late")
                case Fault.LOST_HALF_WAY:
                    self._apply(writes[: len(writes) // 2])
                    raise Transient(TransientReason.UNAVAILABLE, "gone")
                case Fault.ABORTED:
                    return self._some(writes, 2, Transient(TransientReason.ABORTED, "contention"))
                case Fault.EXHAUSTED:
                    return self._some(writes, 3, Transient(TransientReason.RESOURCE_EXHAUSTED, "quota"))
                case Fault.SHORT:
                    return self._apply(writes)[:-2]
                case _:
                    return self._apply(writes)

    def _some(self, writes: list[Write], each: int, error: RunbookdError) -> list[int | RunbookdError | None]:
        return [error if index % each == 0 else self._apply([write])[0] for index, write in enumerate(writes)]

    def _apply(self, writes: list[Write]) -> list[int | RunbookdError | None]:
        return [self._apply_one(write) for write in writes]

    def _apply_one(self, write: Write) -> int | RunbookdError | None:
        name = write.update.name or write.delete
        there = self.documents.get(name)
        if write.HasField("current_document"):
            condition = write.current_document
            if condition.HasField("update_time"):
                if there is None:
                    return Permanent(PermanentReason.NOT_FOUND, "no such document")
                if there.update_time != condition.update_time.ToNanoseconds():
                    return Permanent(PermanentReason.CONFLICT, "changed since")
            elif condition.exists is not (there is not None):
                return Permanent(PermanentReason.CONFLICT, "exists" if there else "is missing")
        self.applied[name] = self.applied.get(name, 0) + 1
        if write.delete:
            self.documents.pop(name, None)
            return None
        write.update.ClearField("name")
        return self.put(name, write.update.SerializeToString())


class Diary:
    """A batch observer that notes what it is told, and by whom."""

    def __init__(self) -> None:
        self.before_: list[int] = []
        self.after_: list[int] = []
        self.outcomes: list[WriteOutcome] = []
        self.threads: set[int] = set()

    def before(self, batch: Batch) -> None:
        assert batch.number not in self.before_
        self.before_.append(batch.number)
        self.threads.add(threading.get_ident())

    def after(self, batch: Batch, outcomes: tuple[WriteOutcome, ...]) -> None:
        assert batch.number in self.before_
        assert [outcome.write for outcome in outcomes] == list(batch.writes)
        self.after_.append(batch.number)
        self.outcomes.extend(outcomes)
        self.threads.add(threading.get_ident())


def _retrying(budget: float = 1000.0) -> Retrying:
    return Retrying(RetryPolicy(budget=budget), clock=ManualClock(), draw=lambda: 0.5)


def _run(
    writes: Iterable[PlannedWrite],
    database: Database,
    *,
    count: int = 10,
    parallel: int = 3,
    size: int = 1_000_000,
    observer: Diary | None = None,
    bucket: TokenBucket | None = None,
    budget: float = 1000.0,
) -> WriteRun:
    retrying = _retrying(budget)
    return WriteRun(
        writes,
        deliver=lambda batch: Delivery(batch, port=database, retrying=retrying).run(),
        limits=BatchLimits(count=count, size=size, parallel=parallel),
        observer=observer,
        bucket=bucket,
    )


def _name(index: int) -> str:
    return f"{_ROOT}/users/u{index}"


def _fields(value: object) -> bytes:
    return encode_fields({"v": value})


def _sets(count: int) -> list[PlannedWrite]:
    return [PlannedWrite(name=_name(index), fields=_fields(index)) for index in range(count)]


def test_every_third_request_failing_loses_nothing() -> None:
    """The case in which Google's BulkWriter lost 120 of 400 documents."""
    database = Database([Fault.LOST_BEFORE if n % 3 == 2 else Fault.NONE for n in range(200)])
    run = _run(_sets(400), database)
    states = [outcome.state for outcome in run]
    assert states == [WriteState.APPLIED] * 400
    assert len(database.documents) == 400
    assert run.ledger == Ledger(planned=400, sent=400, applied=400)


@settings(deadline=None)
@given(st.lists(st.sampled_from(Fault), max_size=40), st.integers(1, 7), st.integers(1, 4))
def test_any_mix_of_failures_ends_each_write_once_and_truly(faults: list[Fault], count: int, parallel: int) -> None:
    """Preconditions, user changes, deletes and creations: what the ledger says is what the database holds."""
    database = Database(faults)
    writes, expected = [], {}
    for index in range(30):
        name = _name(index)
        at = database.put(name, _fields("before")) if index % 5 != 4 else 0
        match index % 5:
            case 0:  # untouched since: must be applied
                writes.append(PlannedWrite(name=name, fields=_fields("after"), precondition=MustExistAt(at)))
                expected[name] = WriteState.APPLIED
            case 1:  # a user has changed it since
                database.put(name, _fields("user"))
                writes.append(PlannedWrite(name=name, fields=_fields("after"), precondition=MustExistAt(at)))
                expected[name] = WriteState.CONFLICT
            case 2:
                writes.append(PlannedWrite(name=name, kind=WriteKind.DELETE, precondition=MustExistAt(at)))
                expected[name] = WriteState.APPLIED
            case 3:  # exists already
                writes.append(PlannedWrite(name=name, fields=_fields("after"), precondition=MustNotExist()))
                expected[name] = WriteState.CONFLICT
            case _:
                writes.append(PlannedWrite(name=name, fields=_fields("after"), precondition=MustNotExist()))
                expected[name] = WriteState.APPLIED
    diary = Diary()
    run = _run(writes, database, count=count, parallel=parallel, observer=diary)
    outcomes = {outcome.name: outcome for outcome in run}
    assert {name: outcome.state for name, outcome in outcomes.items()} == expected
    assert len(diary.outcomes) == 30
    assert run.ledger.planned == run.ledger.applied + run.ledger.conflicts == 30
    for write in writes:
        there, outcome = database.documents.get(write.name), outcomes[write.name]
        if outcome.state is WriteState.CONFLICT:
            assert there is not None
            assert canonical(there.fields) in (_fields("user"), _fields("before"))
        elif write.kind is WriteKind.DELETE:
            assert there is None
        else:
            assert there is not None
            assert (canonical(there.fields), there.update_time) == (_fields("after"), outcome.update_time)


def test_an_attempt_that_was_applied_without_an_answer_is_recognised() -> None:
    """The second attempt meets our own first one; the document holds our bytes, so it was applied, and says so."""
    database = Database([Fault.LOST_AFTER])
    at = database.put(_name(0), _fields("before"))
    [outcome] = _run([PlannedWrite(name=_name(0), fields=_fields("after"), precondition=MustExistAt(at))], database)
    assert outcome.state is WriteState.APPLIED
    assert outcome.ambiguous
    assert outcome.update_time == database.documents[_name(0)].update_time
    assert database.applied == {_name(0): 1}


def test_a_poisoned_document_does_not_take_its_batch_along() -> None:
    """A server refuses the whole request for one document too large; that one is rejected, the rest applied."""
    bad = {_name(3), _name(17)}
    database = Database(refuses=lambda name: name in bad)
    run = _run(_sets(20), database, count=20)
    assert {outcome.name for outcome in run if outcome.state is WriteState.REJECTED} == bad
    assert len(database.documents) == 18
    assert run.ledger == Ledger(planned=20, sent=20, applied=18, rejected=2)


def test_a_server_that_stays_away_ends_every_write_as_failed() -> None:
    """The budget ends the run; each write is FAILED, with its reason, and says whether that is certain."""
    database = Database([Fault.LOST_BEFORE] * 10_000)
    outcomes = list(_run(_sets(25), database, budget=5.0))
    assert {outcome.state for outcome in outcomes} == {WriteState.FAILED}
    assert len(outcomes) == 25
    assert {outcome.reason for outcome in outcomes} == {TransientReason.UNAVAILABLE}
    assert all(outcome.ambiguous for outcome in outcomes)


def test_giving_up_looks_once_more() -> None:
    """What arrived in spite of the silence counts as applied."""
    database = Database([Fault.LOST_AFTER] * 10_000)
    run = _run(_sets(10), database, budget=1.0)
    assert {outcome.state for outcome in run} == {WriteState.APPLIED}


def test_lost_permission_stops_the_run_after_its_outcomes() -> None:
    """No other batch would fare better; what was planned and not sent is withheld, and the error comes out."""

    class Forbidden(Database):
        def batch_write(self, _: Sequence[bytes]) -> list[int | RunbookdError | None]:
            raise Misconfigured(MisconfiguredReason.CREDENTIALS, "not allowed")

    run = _run(_sets(1000), Forbidden(), parallel=1)
    seen: list[WriteOutcome] = []
    with pytest.raises(Misconfigured):
        seen.extend(run)
    with pytest.raises(StopIteration):
        next(run)
    assert run.ledger.failed == run.ledger.sent < 1000
    assert run.ledger.planned == run.ledger.sent + run.ledger.withheld
    run.ledger.check()


def test_before_is_told_before_and_after_is_told_after_in_one_thread() -> None:
    """An undo journal needs no locks, and no batch leaves before it is journalled."""
    diary, database = Diary(), Database([Fault.ABORTED, Fault.LOST_BEFORE] * 20)
    _run(_sets(95), database, observer=diary).finish()
    assert diary.before_ == list(range(1, 11))
    assert sorted(diary.after_) == diary.before_
    assert diary.threads == {threading.get_ident()}


def test_a_journal_that_fails_keeps_its_batch_from_being_sent() -> None:
    """A full disk ends the run: what was sent ends properly, the rest is withheld."""

    class Full(Diary):
        def before(self, batch: Batch) -> None:
            if batch.number == 3:
                raise Permanent(PermanentReason.DISK_FULL, "the disk is full")
            super().before(batch)

    diary, database = Full(), Database()
    run = _run(_sets(100), database, observer=diary)
    with pytest.raises(Permanent, match="disk is full"):
        run.finish()
    assert len(database.documents) == run.ledger.sent == run.ledger.applied == 20
    assert sorted(diary.after_) == [1, 2]
    assert run.ledger.withheld == run.ledger.planned - 20


def test_a_journal_that_fails_afterwards_ends_the_run_with_every_outcome_told() -> None:
    """The writes are in the database already: they are counted and yielded, and nothing more is sent."""

    class Torn(Diary):
        def after(self, batch: Batch, outcomes: tuple[WriteOutcome, ...]) -> None:
            super().after(batch, outcomes)
            raise Permanent(PermanentReason.DISK_FULL, f"no room for batch {batch.number}")

    diary, database = Torn(), Database()
    seen: list[WriteOutcome] = []
    run = _run(_sets(100), database, observer=diary)
    with pytest.raises(Permanent, match="no room for batch"):
        seen.extend(run)
    assert len(seen) == run.ledger.applied == len(database.documents) == len(diary.outcomes) < 100
    assert sorted(diary.after_) == diary.before_


def test_closing_early_finishes_what_is_on_its_way_and_tells_the_observer() -> None:
    """Ctrl-C between two outcomes must leave a journal that knows every update_time."""
    diary, database = Diary(), Database()
    run = _run(_sets(1000), database, observer=diary)
    next(run)
    run.close()
    assert sorted(diary.after_) == diary.before_
    assert len(database.documents) == run.ledger.sent == run.ledger.applied == len(diary.outcomes)
    assert run.ledger.planned == run.ledger.sent + run.ledger.withheld


def test_a_source_that_fails_ends_after_the_outcomes_of_what_it_gave() -> None:
    """The caller's own error comes out, last."""

    def source() -> Iterator[PlannedWrite]:
        yield from _sets(35)
        raise Permanent(PermanentReason.CANCELLED, "stop")

    seen: list[WriteOutcome] = []
    run = _run(source(), Database())
    with pytest.raises(Permanent, match="stop"):
        seen.extend(run)
    assert len(seen) == run.ledger.sent == 30
    assert run.ledger.withheld == 5


def test_two_writes_of_one_document_keep_their_order() -> None:
    """They never travel in one request (the server refuses that) nor at the same time."""
    database = Database([Fault.LOST_BEFORE] * 3)
    writes = [PlannedWrite(name=_name(index % 3), fields=_fields(index)) for index in range(30)]
    assert _run(writes, database, count=4, parallel=8).finish().applied == 30
    last = {name: document.parsed().fields["v"].integer_value for name, document in database.documents.items()}
    assert last == {_name(0): 27, _name(1): 28, _name(2): 29}


def test_batches_stay_under_both_ceilings() -> None:
    """Ten writes at most, and 4 KB at most unless one write alone is larger."""
    sizes: list[tuple[int, int]] = []

    class Scales(Diary):
        def before(self, batch: Batch) -> None:
            super().before(batch)
            sizes.append((len(batch.writes), batch.size))
            assert batch.size == sum(map(len, batch.encoded))

    writes = [PlannedWrite(name=_name(n), fields=_fields("x" * (5000 if n == 40 else n * 20))) for n in range(60)]
    _run(writes, Database(), size=4096, observer=Scales()).finish()
    assert sum(count for count, _ in sizes) == 60
    assert all(count <= 10 and (size <= 4096 or count == 1) for count, size in sizes)
    assert any(size > 5000 for _, size in sizes)


def test_memory_is_bounded_by_the_batches_on_their_way() -> None:
    """A source of any length is pulled no further than what is on its way and one batch more."""
    pulled = 0

    def source() -> Iterator[PlannedWrite]:
        nonlocal pulled
        for write in _sets(5000):
            pulled += 1
            yield write

    run = _run(source(), Database(), count=10, parallel=4)
    for done, _ in enumerate(run, start=1):
        assert pulled - done <= 10 * (4 + 1) + 1 + 40
    assert pulled == 5000


def test_memory_is_bounded_by_their_bytes_too() -> None:
    """Eight senders have work at once only as long as their batches come to no more than the limit; one always may."""
    under_way = 0
    seen: list[tuple[int, int]] = []
    lock = threading.Lock()

    def deliver(batch: Batch) -> tuple[tuple[WriteOutcome, ...], None]:
        nonlocal under_way
        with lock:
            under_way += batch.size
            seen.append((under_way, batch.size))
        time.sleep(0.002)
        with lock:
            under_way -= batch.size
        return tuple(WriteOutcome(write=write, state=WriteState.APPLIED) for write in batch.writes), None

    large = [PlannedWrite(name=_name(n), fields=_fields("x" * (90_000 if n == 40 else 5000))) for n in range(80)]
    run = WriteRun(large, deliver=deliver, limits=BatchLimits(count=2, parallel=8, held=32_000))
    assert run.finish().applied == 80
    assert all(together <= 32_000 or together == alone for together, alone in seen)
    assert max(together for together, alone in seen if together != alone) > 20_000


def test_the_rate_limit_is_kept() -> None:
    """A thousand writes at 100 a second take about ten seconds."""
    clock = ManualClock()
    _run(_sets(1000), Database(), bucket=TokenBucket(RateLimit(per_second=100), clock)).finish()
    assert clock.monotonic() == pytest.approx(9.9, abs=0.2)


def test_books_that_do_not_balance_fail_the_run() -> None:
    """A bug in the writer must never look like success."""
    run = WriteRun(
        _sets(20),
        deliver=lambda _: ((), None),
        limits=BatchLimits(count=10),
    )
    with pytest.raises(Permanent) as caught:
        run.finish()
    assert caught.value.reason is PermanentReason.UNBALANCED
