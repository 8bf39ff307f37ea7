"""The queries of the page's target table, asked on purpose: to be timed, or to warm up what answers them.

What a query of the page is for a database (collection, filters, order, limit, or documents to write) is said by the
settings' section ``queries``. Values to ask with are taken from documents that are there, so that the same definition
fits production, a copy and the sandbox. Called by ``runbookd perf`` and ``runbookd caches warm``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.clock import Clock
from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason, RunbookdError
from agent.firestore import Collection as CollectionScope
from agent.firestore import (
    CollectionGroup,
    Comparison,
    Firestore,
    Order,
    PlannedWrite,
    RawDocument,
    Scope,
    Where,
    WriteKind,
    WriteState,
    decode_fields,
    encode_fields,
    structured_query,
)
from agent.runbook import QueryTarget
from agent.settings import QueryFilter, QueryRequest
from agent.telemetry import Progress, ProgressSink, ignore_progress

_NAME = "__name__"
_SAMPLE = 50
_HOPELESS = 3  # failures in a row after which the rest is not asked for

Ask = Callable[[int], int]
"""Asks a request with the values of the given turn; returns how many documents came back or were written."""


class Verdict(StrEnum):
    """How a query did. Only ``MET`` is a success: what could not be measured has not met its target."""

    MET = "met"
    MISSED = "missed"
    FAILED = "failed"
    NO_DATA = "no_data"


@dataclass(frozen=True, kw_only=True)
class QueryTiming:
    """A query, measured.

    Args:
        target: seconds, as the page wants it; ``stated`` as the page says it was.
        p50, p95: seconds of the runs that succeeded; ``None`` where none did.
        problem: the first failure, or what kept it from being asked.
    """

    query: str
    title: str
    target: float
    stated: float
    runs: int
    failures: int
    p50: float | None
    p95: float | None
    verdict: Verdict
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Warmed:
    """A query that was asked once; ``requests`` of it read ``documents`` in ``seconds``."""

    query: str
    requests: int
    documents: int
    seconds: float
    problem: str = ""


class PageQueries:
    """The page's queries as requests to a database.

    Args:
        firestore: without retries, because what is measured is one attempt.
        definitions: requests by the page's slug; several requests of a query are asked in turn.
        transient: collections that may be written to.

    Raises:
        Misconfigured: SETTINGS if a definition would write to anything else.
    """

    def __init__(
        self,
        firestore: Firestore,
        definitions: Mapping[str, Sequence[QueryRequest]],
        *,
        transient: Collection[str],
        clock: Clock,
    ) -> None:
        for query, requests in definitions.items():
            for request in requests:
                if request.write and request.collection not in transient:
                    raise Misconfigured(
                        MisconfiguredReason.SETTINGS,
                        f"queries.{query} would write to {request.collection!r}, which is no transient collection",
                        hint=f"write to one that the page calls transient: {', '.join(transient) or 'there is none'}",
                    )
        self._firestore = firestore
        self._definitions = definitions
        self._clock = clock

    def measure(self, target: QueryTarget, *, runs: int, progress: ProgressSink = ignore_progress) -> QueryTiming:
        """Ask ``runs`` times, one after the other, after a first round that is not counted.

        The first round pays for connections and for whatever the server sets up once. What was written is deleted.
        """
        seconds: list[float] = []
        failures: list[str] = []
        requests = self._definitions.get(target.query, ())
        if not requests:
            missing = f"nobody has said what it is: settings, queries.{target.query}"
            return _timing(target, seconds, [missing], asked=False)
        asked = True
        try:
            asks = [self._prepared(target.query, request) for request in requests]
            for ask in asks:
                ask(0)
            self._run(asks, runs, seconds, failures, lambda done: progress(_step(target.query, done, runs)))
        except RunbookdError as error:
            asked = error.reason is not PermanentReason.NOT_FOUND
            failures.append(str(error))
        finally:
            failures += self._cleaned(requests)
        return _timing(target, seconds, failures, asked=asked)

    def warm(self, query: str) -> Warmed:
        """Ask each of a query's reading requests once."""
        requests = [request for request in self._definitions.get(query, ()) if not request.write]
        documents = 0
        began = self._clock.monotonic()
        problem = ""
        try:
            for request in requests:
                documents += self._prepared(query, request)(0)
        except RunbookdError as error:
            problem = str(error)
        seconds = self._clock.monotonic() - began
        return Warmed(query=query, requests=len(requests), documents=documents, seconds=seconds, problem=problem)

    # --- inside -----------------------------------------------------------------------------------------------

    def _run(
        self, asks: Sequence[Ask], runs: int, seconds: list[float], failures: list[str], done: Callable[[int], None]
    ) -> None:
        for turn in range(runs):
            began = self._clock.monotonic()
            try:
                asks[turn % len(asks)](turn // len(asks) + 1)
            except RunbookdError as error:
                failures.append(str(error))
                if len(failures) == _HOPELESS and not seconds:
                    return
            else:
                seconds.append(self._clock.monotonic() - began)
            done(turn + 1)

    def _prepared(self, query: str, request: QueryRequest) -> Ask:
        if request.write:
            return self._write(query, request)
        if any(condition.field == _NAME for condition in request.filters):
            return self._lookup(query, request)
        return self._query(query, request)

    def _lookup(self, query: str, request: QueryRequest) -> Ask:
        (condition, *others) = request.filters
        if others or request.order or request.group:
            raise Misconfigured(
                MisconfiguredReason.SETTINGS,
                f"queries.{query}: a request by {_NAME} has no other filter, no order and no group",
                hint="split it into two requests",
            )
        names = [self._firestore.address.name(request.collection, str(value)) for value in condition.values]
        if not names:
            names = [document.name for document in self._sample(request)]

        def ask(turn: int) -> int:
            name = names[turn % len(names)]
            return sum(found is not None for found in self._firestore.get([name], summary=query).values())

        return ask

    def _query(self, query: str, request: QueryRequest) -> Ask:
        made = [
            structured_query(
                request.collection,
                group=request.group,
                where=where,
                order=[Order(field=path.removeprefix("-"), descending=path.startswith("-")) for path in request.order],
                limit=request.limit,
            )
            for where in self._conditions(request)
        ]

        def ask(turn: int) -> int:
            return sum(1 for _ in self._firestore.run_query(made[turn % len(made)], summary=query))

        return ask

    def _conditions(self, request: QueryRequest) -> list[list[Where]]:
        """The filters with values, once for each document (or given value) to take them from."""
        open_ones = [condition.field for condition in request.filters if not condition.values]
        rows: list[dict[str, Any]] = [{}]
        if open_ones:
            found = [decode_fields(document.fields) for document in self._sample(request)]
            rows = [{path: _at(fields, path) for path in open_ones} for fields in found]
            rows = [row for row in rows if _MISSING not in row.values()]
            if not rows:
                raise Permanent(
                    PermanentReason.NOT_FOUND,
                    f"no document of {request.collection!r} that was looked at has {', '.join(open_ones)}",
                    hint="give values for these filters in the settings' section queries",
                )
        turns = max([len(rows), *(len(condition.values) for condition in request.filters)])
        return [
            [
                Where(
                    field=condition.field,
                    comparison=Comparison(condition.comparison),
                    value=_value(condition, rows[turn % len(rows)].get(condition.field), turn),
                )
                for condition in request.filters
            ]
            for turn in range(turns)
        ]

    def _write(self, query: str, request: QueryRequest) -> Ask:
        sample = self._firestore.head(_scope(request), 1)
        fields = decode_fields(sample[0].fields) if sample else {}

        def ask(turn: int) -> int:
            # Another value each time: a write that changes nothing costs a server less.
            body = encode_fields({**fields, "runbookd": turn})
            writes = [PlannedWrite(name=name, fields=body) for name in self._scratch(request)]
            written = 0
            for outcome in self._firestore.write(writes, summary=query):
                if outcome.state is not WriteState.APPLIED:
                    raise Permanent(PermanentReason.INVALID, f"{outcome.name} was not written: {outcome.message}")
                written += 1
            return written

        return ask

    def _cleaned(self, requests: Sequence[QueryRequest]) -> list[str]:
        """Delete what was written and say what went wrong. A killed run's documents have the same names."""
        deletes = [
            PlannedWrite(name=name, kind=WriteKind.DELETE)
            for request in requests
            if request.write
            for name in self._scratch(request)
        ]
        try:
            outcomes = list(self._firestore.write(deletes)) if deletes else []
        except RunbookdError as error:
            return [f"what was written is still there: {error}"]
        left = [outcome.name for outcome in outcomes if outcome.state is not WriteState.APPLIED]
        return [f"what was written is still there: {', '.join(left)}"] if left else []

    def _scratch(self, request: QueryRequest) -> list[str]:
        name = self._firestore.address.name
        return [name(request.collection, f"runbookd-perf-{number:03d}") for number in range(request.write)]

    def _sample(self, request: QueryRequest) -> list[RawDocument]:
        documents = self._firestore.head(_scope(request), _SAMPLE)
        if not documents:
            raise Permanent(
                PermanentReason.NOT_FOUND,
                f"{request.collection!r} holds no document to ask for",
                hint="seed it, or name another collection in the settings' section queries",
            )
        return documents


def _step(query: str, done: int, runs: int) -> Progress:
    return Progress(operation="perf", stage=query, done=done, total=runs)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that ``share`` (0 to 1) of all values don't exceed (nearest rank); ``None`` of nothing."""
    if not values:
        return None
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


def _timing(target: QueryTarget, seconds: Sequence[float], failures: Sequence[str], *, asked: bool) -> QueryTiming:
    p95 = percentile(seconds, 0.95)
    if not asked:
        verdict = Verdict.NO_DATA
    elif failures or p95 is None:
        verdict = Verdict.FAILED
    else:
        verdict = Verdict.MET if p95 < target.target else Verdict.MISSED
    return QueryTiming(
        query=target.query,
        title=target.title,
        target=target.target,
        stated=target.current,
        runs=len(seconds) + len(failures) if asked else 0,
        failures=len(failures) if asked else 0,
        p50=percentile(seconds, 0.5),
        p95=p95,
        verdict=verdict,
        problem=failures[0] if failures else "",
    )


_MISSING = object()


def _at(fields: Mapping[str, Any], path: str) -> Any:
    found: Any = fields
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return _MISSING
        found = found[part]
    return found


def _value(condition: QueryFilter, found: Any, turn: int) -> Any:
    comparison = Comparison(condition.comparison)
    if comparison is Comparison.IN:
        return list(condition.values) or [found]
    if condition.values:
        return condition.values[turn % len(condition.values)]
    if comparison is Comparison.CONTAINS and isinstance(found, list) and found:
        return found[0]
    return found


def _scope(request: QueryRequest) -> Scope:
    return CollectionGroup(id=request.collection) if request.group else CollectionScope(path=request.collection)
