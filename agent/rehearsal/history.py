"""A history fetched from a Prometheus: the raw samples of whatever a set of rules reads.

Range selectors at ``/api/v1/query`` return samples as they were scraped, where ``query_range`` returns them at steps of
its own; a backtest wants the former. Used by ``runbookd rules backtest --prometheus``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx

from agent.alerting import RuleSet
from agent.alerting.recordings import Recording, recording_of
from agent.faults import Permanent, PermanentReason, Transient, TransientReason
from agent.promql import Select
from agent.promql.expressions import Subquery, Window, walk
from agent.samples import Labels, labels_of, selector_text

Ask = Callable[[str, Mapping[str, str]], httpx.Response]
"""GET of a path with parameters."""

_PIECE = timedelta(hours=1)  # of a busy series at 1 s that is 3,600 samples; Prometheus allows 50 million a query
_LOOKBACK = timedelta(minutes=5)
_TIMEOUT_S = 60.0


def asker(url: str) -> Ask:
    """Asks the Prometheus at ``url``; user and password may stand in it."""

    def ask(path: str, parameters: Mapping[str, str]) -> httpx.Response:
        return httpx.get(f"{url.rstrip('/')}{path}", params=dict(parameters), timeout=_TIMEOUT_S)

    return ask


def fetched(rules: RuleSet, ask: Ask, *, start: datetime, end: datetime) -> Recording:
    """What ``rules`` read from ``start`` to ``end``, and as far before as their longest window looks back.

    Raises:
        Transient: the server does not answer.
        Permanent: it refuses a query, or has no sample of any metric that the rules read.
    """
    found: dict[Labels, dict[float, float]] = {}
    recorded = {rule.name for rule in rules.recordings}
    since = start - _longest(rules) - _LOOKBACK
    for select in _selectors(rules):
        if select.metric in recorded:
            continue
        for labels, samples in _samples(ask, selector_text(select.matchers), since, end):
            found.setdefault(labels, {}).update(samples)
    if not found:
        raise Permanent(
            PermanentReason.NOT_FOUND,
            "the server has no sample of anything that the rules read in that time",
            hint="compare --from and --to with its retention, and the metrics with those that it scrapes",
        )
    return recording_of({labels: list(samples.items()) for labels, samples in found.items()})


def _selectors(rules: RuleSet) -> Iterable[Select]:
    """Every selector once, without its offset: what it reads is what counts."""
    bare = {select.matchers: select for rule in rules.rules for select in rule.expression.selectors}
    return bare.values()


def _longest(rules: RuleSet) -> timedelta:
    """The longest way back from a moment to what a rule reads there."""
    ways = [0]
    for rule in rules.rules:
        for node in walk(rule.expression.root):
            if isinstance(node, Window):
                ways.append(node.length + max(node.select.offset, 0))
            elif isinstance(node, Subquery):
                ways.append(node.length + max(node.offset, 0))
            elif isinstance(node, Select):
                ways.append(max(node.offset, 0))
    return timedelta(milliseconds=max(ways))


def _samples(
    ask: Ask, selector: str, since: datetime, until: datetime
) -> Iterator[tuple[Labels, list[tuple[float, float]]]]:
    at = since
    while at < until:
        following = min(at + _PIECE, until)
        # A millisecond more than the piece: what 2.x and 3.x think of a window's left end does not matter then.
        length = round((following - at).total_seconds() * 1000) + 1
        data = _asked(ask, {"query": f"{selector}[{length}ms]", "time": f"{following.timestamp():.3f}"})
        for series in data["result"]:
            metric = dict(series["metric"])
            labels = labels_of(metric.pop("__name__", ""), metric)
            yield labels, [(float(moment), float(value)) for moment, value in series.get("values", ())]
        at = following


def _asked(ask: Ask, parameters: Mapping[str, str]) -> dict[str, Any]:
    try:
        answer = ask("/api/v1/query", parameters)
    except httpx.HTTPError as error:
        raise Transient(
            TransientReason.UNAVAILABLE, f"the Prometheus does not answer ({error})", hint="check --prometheus"
        ) from error
    try:
        body = answer.json()
    except ValueError as error:
        raise Permanent(
            PermanentReason.INVALID, f"what answers ({answer.status_code}) is no Prometheus", hint="check --prometheus"
        ) from error
    if body.get("status") != "success":
        raise Permanent(
            PermanentReason.INVALID,
            f"the Prometheus refuses {parameters['query']!r}: {body.get('error', answer.status_code)}",
            hint="a shorter time from --from to --to asks for fewer samples",
        )
    data: dict[str, Any] = body["data"]
    return data
