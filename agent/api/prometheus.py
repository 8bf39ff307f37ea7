"""The read side of Prometheus's HTTP API, as far as Grafana and promtool use it.

Queries run two at a time, because they share the process with the rule loop, which must not wait for a dashboard;
those that wait hold no thread, so that health checks are answered meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from agent import __version__
from agent.alerting import AlertRule, RuleStatus
from agent.api.answers import TRUNCATED, of_alert, of_exemplars, of_group
from agent.api.encoding import JsonResponse, data_of_value, stamp
from agent.api.parameters import ApiError, Arguments, arguments_of, bad_data, label_name
from agent.api.sources import Queried
from agent.faults import RunbookdError, Transient
from agent.promql import Answer, Kind
from agent.samples import Exemplar, Labels, Matcher, SeriesStore
from agent.samples.columns import present

_log = logging.getLogger(__name__)

_POINTS = 11_000
_AT_ONCE = 2
_PATIENCE_S = 5.0
_ROWS_AT_ONCE = 240
_REMARKS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is answered, and what there is to say about it."""

    data: Any
    warnings: Sequence[str] = ()
    infos: Sequence[str] = ()


Question = Callable[[Arguments], Outcome]


def router(sources: Queried, *, at_once: int = _AT_ONCE, patience: float = _PATIENCE_S) -> APIRouter:
    """Routes below ``/api/v1``.

    Args:
        at_once: queries that run at a time.
        patience: seconds for which others wait before they are turned away.
    """
    routes = APIRouter(prefix="/api/v1")
    questions = _Questions(sources)
    turns = _Turns(at_once, patience)

    def offer(path: str, question: Question, *methods: str) -> None:
        async def answer(request: Request) -> JsonResponse:
            async def work() -> Outcome:
                arguments = await arguments_of(request)
                return await turns.take(partial(question, arguments))

            return await _answered(work)

        routes.add_api_route(path, answer, methods=list(methods or ("GET",)), name=path)

    offer("/query", questions.query, "GET", "POST")
    offer("/query_range", questions.query_range, "GET", "POST")
    offer("/query_exemplars", questions.exemplars, "GET", "POST")
    offer("/series", questions.series, "GET", "POST")
    offer("/labels", questions.label_names, "GET", "POST")
    offer("/metadata", questions.metadata)
    offer("/rules", questions.rules)
    offer("/alerts", questions.alerts)
    offer("/status/buildinfo", questions.buildinfo)

    @routes.get("/label/{name}/values")
    async def label_values(name: str, request: Request) -> JsonResponse:
        async def work() -> Outcome:
            arguments = await arguments_of(request)
            return await turns.take(partial(questions.label_values, name, arguments))

        return await _answered(work)

    return routes


class _Turns:
    """Lets a few questions run at a time, each in a thread."""

    def __init__(self, at_once: int, patience: float) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._patience = patience

    async def take(self, work: Callable[[], Outcome]) -> Outcome:
        try:
            await asyncio.wait_for(self._free.acquire(), self._patience)
        except TimeoutError as error:
            raise ApiError(503, "timeout", "too many queries at once; try again") from error
        try:
            return await run_in_threadpool(work)
        finally:
            self._free.release()


class _Questions:
    """What may be asked; each method runs in a thread and raises :class:`ApiError` or a RunbookdError."""

    def __init__(self, sources: Queried) -> None:
        self._sources = sources

    def query(self, arguments: Arguments) -> Outcome:
        plan = arguments.expression()
        at = arguments.time("time", default=self._now())
        limit = arguments.limit()
        arguments.check_options()
        return self._told(self._sources.engine.query(plan, at, timeout=arguments.timeout()), at, limit)

    def query_range(self, arguments: Arguments) -> Outcome:
        start, end, step = arguments.time("start"), arguments.time("end"), arguments.step()
        limit = arguments.limit()
        if end < start:
            raise bad_data("end", "end timestamp must not be before start time")
        if (end - start) / step > _POINTS:
            raise ApiError(
                400,
                "bad_data",
                "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution "
                "(?step=XX)",
            )
        arguments.check_options()
        timeout = arguments.timeout()
        plan = arguments.expression()
        if plan.kind not in (Kind.VECTOR, Kind.SCALAR):
            raise bad_data(
                "query", f'invalid expression type "{plan.kind}" for range query, must be Scalar or instant Vector'
            )
        return self._told(self._sources.engine.query_range(plan, start, end, step, timeout=timeout), end, limit)

    def exemplars(self, arguments: Arguments) -> Outcome:
        """Traces behind the series that a query reads."""
        start, end = arguments.span()
        found: dict[Labels, list[Exemplar]] = {}
        for select in arguments.expression().selectors:
            for labels, exemplar in self._sources.store.exemplars(select.matchers, start):
                kept = found.setdefault(labels, [])
                if exemplar.timestamp <= end and exemplar not in kept:
                    kept.append(exemplar)
        return Outcome([of_exemplars(labels, found[labels], stamp) for labels in sorted(found) if found[labels]])

    def series(self, arguments: Arguments) -> Outcome:
        found = sorted(self._matching(arguments, required=True))
        return _limited([dict(labels) for labels in found], arguments)

    def label_names(self, arguments: Arguments) -> Outcome:
        if not arguments.all("match[]"):
            arguments.span()
            return _limited(self._sources.store.label_names(), arguments)
        return _limited(sorted({name for labels in self._matching(arguments) for name, _ in labels}), arguments)

    def label_values(self, name: str, arguments: Arguments) -> Outcome:
        name = label_name(name)
        if not arguments.all("match[]"):
            arguments.span()
            return _limited(self._sources.store.label_values(name), arguments)
        found = {dict(labels).get(name, "") for labels in self._matching(arguments)}
        return _limited(sorted(found - {""}), arguments)

    def metadata(self, arguments: Arguments) -> Outcome:
        wanted, limit = arguments.text("metric"), arguments.text("limit")
        found = {name: about for name, about in self._sources.metadata().items() if wanted in ("", name)}
        # Unlike everywhere else 0 means none here, and what is negative means all.
        if limit and not limit.startswith("-"):
            found = dict(list(found.items())[: arguments.limit()])
        return Outcome(found)

    def rules(self, arguments: Arguments) -> Outcome:
        kind = arguments.text("type").lower()
        if kind not in ("", "alert", "record"):
            raise ApiError(400, "bad_data", f'not supported value "{kind}" of parameter "type"')
        excluded = arguments.text("exclude_alerts").lower() in ("1", "t", "true")
        names, groups, files = (arguments.all(name) for name in ("rule_name[]", "rule_group[]", "file[]"))

        def asked(status: RuleStatus) -> bool:
            fits = not kind or (kind == "alert") is isinstance(status.rule, AlertRule)
            return fits and (not names or status.rule.name in names)

        found = []
        for status in self._sources.rules.groups():
            if (groups and status.group.name not in groups) or (files and status.group.file not in files):
                continue
            rules = [rule for rule in status.rules if asked(rule)]
            if rules or not (kind or names):
                found.append(of_group(status, rules, alerts=not excluded))
        return Outcome({"groups": found})

    def alerts(self, arguments: Arguments) -> Outcome:
        del arguments
        return Outcome({"alerts": [of_alert(alert) for alert in self._sources.rules.active()]})

    def buildinfo(self, arguments: Arguments) -> Outcome:
        """Grafana asks for it, to know which functions it may offer: those of Prometheus 3."""
        del arguments
        return Outcome(
            {
                "version": "3.0.0",
                "revision": f"runbookd-{__version__}",
                "branch": "",
                "buildUser": "",
                "buildDate": "",
                "goVersion": "",
            }
        )

    # --- inside -----------------------------------------------------------------------------------------------

    def _told(self, answer: Answer, at: float, limit: int) -> Outcome:
        data, cut = data_of_value(answer.value, at, limit, self._sources.engine.way.give)
        warnings, infos = _first(answer.warnings, "warning"), _first(answer.infos, "info")
        return Outcome(data, [TRUNCATED, *warnings] if cut else warnings, infos)

    def _now(self) -> float:
        return self._sources.clock.now().timestamp()

    def _matching(self, arguments: Arguments, *, required: bool = False) -> set[Labels]:
        start, end = arguments.span()
        found: set[Labels] = set()
        for matchers in arguments.selectors(required=required):
            found.update(_alive_between(self._sources.store, matchers, start, end))
        return found


async def _answered(work: Callable[[], Awaitable[Outcome]]) -> JsonResponse:
    """Prometheus's envelope around what ``work`` returns or raises."""
    try:
        outcome = await work()
    except ApiError as error:
        return _error(error.status, error.kind, str(error))
    except Transient as error:
        return _error(503, "timeout", str(error))
    except RunbookdError as error:
        # The parameters were understood by now: this is what the data, or the limits on them, do not allow.
        return _error(422, "execution", str(error))
    except Exception as error:  # noqa: BLE001 - a client of this API expects its envelope around a bug, too
        _log.exception("a query failed unexpectedly")
        return _error(500, "internal", f"{type(error).__name__}: {error}")
    body: dict[str, Any] = {"status": "success", "data": outcome.data}
    if outcome.warnings:
        body["warnings"] = list(outcome.warnings)
    if outcome.infos:
        body["infos"] = list(outcome.infos)
    return JsonResponse(body)


def _error(status: int, kind: str, message: str) -> JsonResponse:
    return JsonResponse({"status": "error", "errorType": kind, "error": message}, status_code=status)


def _limited(found: list[Any], arguments: Arguments) -> Outcome:
    limit = arguments.limit()
    return Outcome(found[:limit], [TRUNCATED]) if limit and len(found) > limit else Outcome(found)


def _first(remarks: Sequence[str], kind: str) -> list[str]:
    """As many as Prometheus tells."""
    more = len(remarks) - _REMARKS
    return [*remarks[:_REMARKS], *([f"{more} more {kind} annotations omitted"] if more > 0 else [])]


def _alive_between(store: SeriesStore, matchers: tuple[Matcher, ...], start: float, end: float) -> Iterable[Labels]:
    """Label sets of the selected series that have a sample from ``start`` to ``end``.

    Looked for from the newest rows backwards, a few at a time: nearly every series is found in the first.
    """
    selection = store.select(matchers)
    if math.isinf(start) and math.isinf(end):
        yield from selection.labels
        return
    after = -(1 << 62) if math.isinf(start) else round(start * 1000) - 1
    until = (1 << 62) if math.isinf(end) else round(end * 1000)
    for part in selection.parts:
        view = store.view(part, after, until)
        columns, positions = part.columns, part.positions
        high = len(view)
        while high > 0 and len(columns):
            low = max(0, high - _ROWS_AT_ONCE)
            seen = present(view.block(low, high, columns)).any(axis=0)
            yield from (selection.labels[position] for position in positions[seen].tolist())
            columns, positions = columns[np.logical_not(seen)], positions[np.logical_not(seen)]
            high = low
