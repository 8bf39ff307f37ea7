"""The read side of Prometheus's HTTP API, as far as Grafana and promtool use it.

Formats, status codes and error types follow https://prometheus.io/docs/prometheus/latest/querying/api/. Queries run
two at a time: they share the process with the rule loop, which must not wait for a dashboard.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from agent import __version__
from agent.alerting import Alert, AlertRule, AlertState, GroupStatus, RuleStatus, parse_duration
from agent.api.sources import Sources
from agent.clock import rfc3339
from agent.faults import Misconfigured, Permanent, Refused, RunbookdError
from agent.promql import Matrix, Scalar, Select, Text, Value, Vector, compile_expression, format_value
from agent.samples import Labels, Matcher
from agent.telemetry import CATALOGUE

_POINTS = 11_000
_AT_ONCE = 2
_PATIENCE_S = 5.0


class _ApiError(Exception):
    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


def router(sources: Sources) -> APIRouter:
    """Routes below ``/api/v1``."""
    routes = APIRouter(prefix="/api/v1")
    turn = threading.BoundedSemaphore(_AT_ONCE)

    @contextmanager
    def in_turn() -> Iterator[None]:
        if not turn.acquire(timeout=_PATIENCE_S):
            raise _ApiError(503, "timeout", "too many queries at once")
        try:
            yield
        finally:
            turn.release()

    def answer(work: Callable[[], Any]) -> JSONResponse:
        try:
            return JSONResponse({"status": "success", "data": work()})
        except _ApiError as error:
            return _error(error.status, error.kind, str(error))
        except (Misconfigured, Refused) as error:
            return _error(400, "bad_data", str(error))
        except Permanent as error:
            return _error(422, "execution", str(error))
        except RunbookdError as error:
            return _error(503, "timeout", str(error))

    def query(arguments: Mapping[str, str]) -> JSONResponse:
        def work() -> Any:
            plan = compile_expression(_required(arguments, "query"))
            at = _time(arguments, "time", default=datetime.now(UTC).timestamp())
            with in_turn():
                return _value(sources.engine.instant(plan, at), at)

        return answer(work)

    def query_range(arguments: Mapping[str, str]) -> JSONResponse:
        def work() -> Any:
            plan = compile_expression(_required(arguments, "query"))
            start, end = _time(arguments, "start"), _time(arguments, "end")
            step = _step(_required(arguments, "step"))
            if end < start:
                raise _ApiError(400, "bad_data", 'invalid parameter "end": end timestamp must not be before start time')
            if (end - start) / step > _POINTS:
                raise _ApiError(
                    400,
                    "bad_data",
                    "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution",
                )
            with in_turn():
                return _value(sources.engine.range(plan, start, end, step), end)

        return answer(work)

    def series(selectors: Sequence[str]) -> JSONResponse:
        def work() -> Any:
            if not selectors:
                raise _ApiError(400, "bad_data", "no match[] parameter provided")
            found = {labels for text in selectors for labels in sources.store.series(_matchers(text))}
            return [dict(labels) for labels in sorted(found)]

        return answer(work)

    def label_names(selectors: Sequence[str]) -> JSONResponse:
        def work() -> Any:
            if not selectors:
                return sources.store.label_names()
            return sorted({name for labels in _matching(sources, selectors) for name, _ in labels})

        return answer(work)

    async def arguments_of(request: Request) -> Mapping[str, str]:
        return {key: values[-1] for key, values in (await _parameters(request)).items()}

    @routes.get("/query")
    def get_query(request: Request) -> JSONResponse:
        return query(request.query_params)

    @routes.get("/query_range")
    def get_query_range(request: Request) -> JSONResponse:
        return query_range(request.query_params)

    @routes.post("/query")
    async def post_query(request: Request) -> JSONResponse:
        arguments = await arguments_of(request)
        return await _in_thread(lambda: query(arguments))

    @routes.post("/query_range")
    async def post_query_range(request: Request) -> JSONResponse:
        arguments = await arguments_of(request)
        return await _in_thread(lambda: query_range(arguments))

    @routes.get("/series")
    def get_series(request: Request) -> JSONResponse:
        return series(request.query_params.getlist("match[]"))

    @routes.post("/series")
    async def post_series(request: Request) -> JSONResponse:
        selectors = (await _parameters(request)).get("match[]", [])
        return await _in_thread(lambda: series(selectors))

    @routes.get("/labels")
    def get_labels(request: Request) -> JSONResponse:
        return label_names(request.query_params.getlist("match[]"))

    @routes.post("/labels")
    async def post_labels(request: Request) -> JSONResponse:
        selectors = (await _parameters(request)).get("match[]", [])
        return await _in_thread(lambda: label_names(selectors))

    @routes.get("/label/{name}/values")
    def label_values(name: str, request: Request) -> JSONResponse:
        selectors = request.query_params.getlist("match[]")

        def work() -> Any:
            if not selectors:
                return sources.store.label_values(name)
            found = {dict(labels).get(name, "") for labels in _matching(sources, selectors)}
            return sorted(found - {""})

        return answer(work)

    @routes.get("/metadata")
    def metadata(metric: str = "", limit: int = -1) -> JSONResponse:
        """From the catalogue; scraped metrics of other processes have none here."""

        def work() -> Any:
            found = {
                spec.prometheus_name: [{"type": str(spec.kind), "help": spec.description, "unit": ""}]
                for spec in CATALOGUE
                if not metric or spec.prometheus_name == metric
            }
            return dict(list(found.items())[:limit] if limit >= 0 else found)

        return answer(work)

    @routes.get("/rules")
    def rules(request: Request) -> JSONResponse:
        wanted = request.query_params.get("type", "")

        def work() -> Any:
            if wanted not in ("", "alert", "record"):
                raise _ApiError(400, "bad_data", f'invalid query parameter type="{wanted}"')
            return {"groups": [_group(group, wanted) for group in sources.rules.groups()]}

        return answer(work)

    @routes.get("/alerts")
    def alerts() -> JSONResponse:
        return answer(lambda: {"alerts": [_alert(alert) for alert in sources.rules.active()]})

    @routes.get("/status/buildinfo")
    def buildinfo() -> JSONResponse:
        """Grafana asks for it, to know which functions it may offer: those of Prometheus 3."""
        return answer(
            lambda: {
                "version": "3.0.0",
                "revision": f"runbookd-{__version__}",
                "branch": "",
                "buildUser": "",
                "buildDate": "",
                "goVersion": "",
                "application": "runbookd",
            }
        )

    return routes


# --- parameters -----------------------------------------------------------------------------------------------------


async def _parameters(request: Request) -> dict[str, list[str]]:
    """Query string and form together, as Prometheus takes them."""
    found: dict[str, list[str]] = {}
    for key, value in request.query_params.multi_items():
        found.setdefault(key, []).append(value)
    body = (await request.body()).decode("utf-8", "replace")
    for key, value in parse_qsl(body, keep_blank_values=True):
        found.setdefault(key, []).append(value)
    return found


async def _in_thread(work: Callable[[], JSONResponse]) -> JSONResponse:
    return await run_in_threadpool(work)


def _required(arguments: Mapping[str, str], name: str) -> str:
    value = arguments.get(name, "")
    if not value:
        raise _ApiError(400, "bad_data", f'invalid parameter "{name}": it is missing')
    return value


def _time(arguments: Mapping[str, str], name: str, *, default: float | None = None) -> float:
    text = arguments.get(name, "")
    if not text and default is not None:
        return default
    try:
        seconds = float(text)
        if math.isfinite(seconds):
            return seconds
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _ApiError(400, "bad_data", f'invalid parameter "{name}": cannot parse "{text}" to a valid timestamp')
    return moment.timestamp()


def _step(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parse_duration(text).total_seconds()
        except ValueError:
            seconds = math.nan
    if not math.isfinite(seconds):
        raise _ApiError(400, "bad_data", f'invalid parameter "step": cannot parse "{text}" to a valid duration')
    if seconds <= 0:
        raise _ApiError(
            400,
            "bad_data",
            'invalid parameter "step": zero or negative query resolution step widths are not accepted. '
            "Try a positive integer",
        )
    return seconds


def _matchers(text: str) -> tuple[Matcher, ...]:
    """The matchers of a ``match[]`` selector."""
    root = compile_expression(text).root
    if not isinstance(root, Select):
        raise _ApiError(400, "bad_data", f'invalid parameter "match[]": {text!r} is not an instant selector')
    return root.matchers


def _matching(sources: Sources, selectors: Sequence[str]) -> Iterator[Labels]:
    for text in selectors:
        yield from sources.store.series(_matchers(text))


# --- answers --------------------------------------------------------------------------------------------------------


def _error(status: int, kind: str, message: str) -> JSONResponse:
    return JSONResponse({"status": "error", "errorType": kind, "error": message}, status_code=status)


def _value(value: Value, at: float) -> dict[str, Any]:
    match value:
        case Vector():
            return {
                "resultType": "vector",
                "result": [
                    {"metric": dict(element.labels), "value": [_stamp(at), format_value(element.value)]}
                    for element in value.elements
                ],
            }
        case Matrix():
            return {
                "resultType": "matrix",
                "result": [
                    {
                        "metric": dict(series.labels),
                        "values": [
                            [_stamp(float(stamp)), format_value(float(number))]
                            for stamp, number in zip(series.timestamps, series.values, strict=True)
                        ],
                    }
                    for series in value.series
                ],
            }
        case Scalar():
            return {"resultType": "scalar", "result": [_stamp(at), format_value(value.value)]}
        case Text():
            return {"resultType": "string", "result": [_stamp(at), value.value]}


def _stamp(seconds: float) -> float | int:
    """Milliseconds at most, and whole seconds without a fraction, as Prometheus writes them."""
    rounded = round(seconds, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def _group(status: GroupStatus, wanted: str) -> dict[str, Any]:
    group = status.group
    return {
        "name": group.name,
        "file": group.file,
        "interval": group.interval.total_seconds(),
        "limit": group.limit,
        "rules": [
            _rule(rule)
            for rule in status.rules
            if not wanted or (wanted == "alert") is isinstance(rule.rule, AlertRule)
        ],
        "evaluationTime": status.seconds,
        "lastEvaluation": _moment(status.last_evaluation),
    }


def _rule(status: RuleStatus) -> dict[str, Any]:
    rule = status.rule
    body: dict[str, Any] = {
        "name": rule.name,
        "query": rule.expression.text,
        "health": "err" if status.health == "err" else "unknown" if status.health == "unknown" else "ok",
        "evaluationTime": status.seconds,
        "lastEvaluation": _moment(status.last_evaluation),
    }
    if status.error:
        body["lastError"] = status.error
    if not isinstance(rule, AlertRule):
        return {**body, "type": "recording", "labels": dict(rule.labels)}
    states = {alert.state for alert in status.alerts}
    firing = states & {AlertState.FIRING, AlertState.RECOVERING}
    return {
        **body,
        "type": "alerting",
        "state": "firing" if firing else "pending" if AlertState.PENDING in states else "inactive",
        "duration": rule.pending_for.total_seconds(),
        "keepFiringFor": rule.keep_firing_for.total_seconds(),
        "labels": {name: template.text for name, template in rule.labels.items()},
        "annotations": {name: template.text for name, template in rule.annotations.items()},
        "alerts": [_alert(alert) for alert in status.alerts],
    }


def _alert(alert: Alert) -> dict[str, Any]:
    """Prometheus knows two states; ``recovering`` still fires."""
    body: dict[str, Any] = {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "state": "pending" if alert.state is AlertState.PENDING else "firing",
        "activeAt": rfc3339(alert.active_since),
        "value": _exponent(alert.value),
    }
    if alert.state is AlertState.RECOVERING:
        body["keepFiringSince"] = rfc3339(alert.fired_at or alert.active_since)
    return body


def _exponent(value: float) -> str:
    """Prometheus writes an alert's value with ``strconv``'s ``e`` format: 5e-01, 1.2345e+03."""
    if not math.isfinite(value):
        return format_value(value)
    mantissa, exponent = f"{value:.17e}".split("e")
    for digits in range(18):
        text = f"{value:.{digits}e}"
        if float(text) == value:
            mantissa, exponent = text.split("e")
            break
    return f"{mantissa}e{exponent[0]}{int(exponent[1:]):02d}"


def _moment(moment: datetime | None) -> str:
    return rfc3339(moment) if moment is not None else "0001-01-01T00:00:00Z"
