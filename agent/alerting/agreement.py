"""Whether the page, the rules, the metrics and the dashboards still say the same.

``runbookd check`` prints what :func:`disagreements` finds, and the daemon reads it at start: a threshold that no rule
watches, a rule that follows no threshold, a metric that nothing emits, a link that leads nowhere. Pure but for
:func:`read_dashboards`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.alerting.rules import AlertRule, Rule, RuleSet
from agent.faults import Misconfigured, MisconfiguredReason, RunbookdError
from agent.promql import Plan, Select, compile_expression
from agent.runbook import ChannelKind, MatrixRow, Policy, Problem, Severity
from agent.samples import MatchOperator
from agent.telemetry.catalogue import RUNBOOK_DECISION_THRESHOLD, RUNBOOK_THRESHOLD, MetricSpec

_LEVELS = ("warning", "critical")
_ALERT_SEVERITY = {
    Severity.CRITICAL: "critical",
    Severity.HIGH: "critical",
    Severity.MEDIUM: "warning",
    Severity.LOW: "info",
}
# Series that the rule evaluator and the scraper make, as Prometheus does.
_MADE_HERE = frozenset({"ALERTS", "ALERTS_FOR_STATE", "up"})
_OWN_HEALTH = "agent"


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A Grafana dashboard: the file's name and its JSON."""

    file: str
    content: Any


@dataclass(frozen=True)
class _Reference:
    """A threshold that an expression reads: ``level`` is None for a row of the decision matrix."""

    name: str
    level: str | None


def disagreements(
    policy: Policy, rules: RuleSet, catalogue: Iterable[MetricSpec], *, dashboards: Sequence[Dashboard] = ()
) -> list[Problem]:
    """Everything in which the page, the rules, the catalogue and the dashboards differ; empty if they agree."""
    metrics = {name for spec in catalogue for name in spec.series_names}
    metrics |= _MADE_HERE | {rule.name for rule in rules.recordings}
    return [
        *_unwatched_thresholds(policy, rules),
        *_unwatched_rows(policy, rules),
        *(problem for rule in rules.alerts for problem in _alert_problems(rule, policy)),
        *(problem for rule in rules.rules for problem in _unknown_metrics(rule, metrics)),
        *(problem for dashboard in dashboards for problem in _dashboard_problems(dashboard, metrics)),
    ]


def read_dashboards(folder: Path) -> list[Dashboard]:
    """Every ``*.json`` below ``folder``, by name.

    Raises:
        Misconfigured: (RULES) a file that can't be read or is not JSON.
    """
    dashboards: list[Dashboard] = []
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Misconfigured(
                MisconfiguredReason.RULES, f"the dashboard {path} can't be read ({error})", hint="export it anew"
            ) from error
        dashboards.append(Dashboard(file=str(path), content=content))
    return dashboards


# --- from the page to the rules -----------------------------------------------------------------------------------


def _unwatched_thresholds(policy: Policy, rules: RuleSet) -> Iterator[Problem]:
    watched = {(_label(rule, "metric"), _label(rule, "severity")) for rule in rules.alerts}
    for threshold in policy.thresholds:
        for level in _LEVELS:
            if (threshold.metric, level) not in watched:
                yield Problem(
                    file=policy.source,
                    line=threshold.line,
                    where=f"row {threshold.title!r} of the key metrics",
                    what=f"its {level} threshold has no rule",
                    hint=f"add a rule with the labels metric: {threshold.metric} and severity: {level}",
                )


def _unwatched_rows(policy: Policy, rules: RuleSet) -> Iterator[Problem]:
    watched = {_label(rule, "matrix") for rule in rules.alerts}
    for row in policy.matrix:
        where = f"row {row.title!r} of the decision matrix"
        if row.condition not in watched and not row.manual:
            yield Problem(
                file=policy.source,
                line=row.line,
                where=where,
                what="it has neither a rule nor the word manual",
                hint=f"add a rule with the label matrix: {row.condition}, or write (manual) behind the issue",
            )
        if row.condition in watched and row.manual:
            yield Problem(
                file=policy.source,
                line=row.line,
                where=where,
                what="it says manual, yet a rule watches it",
                hint="take the word out, or remove the rule",
            )


# --- from a rule to the page --------------------------------------------------------------------------------------


def _alert_problems(rule: AlertRule, policy: Policy) -> Iterator[Problem]:
    references = tuple(_references(rule.expression))
    yield from _unknown_thresholds(rule, references, policy)
    yield from _wrong_labels(rule, references, policy)
    yield from _unknown_channels(rule)
    yield from _dead_links(rule, policy)


def _references(plan: Plan) -> Iterator[_Reference]:
    """The thresholds of the page that an expression reads."""
    for select in plan.selectors:
        if select.metric == RUNBOOK_THRESHOLD.prometheus_name:
            yield _Reference(_exact(select, "metric"), _exact(select, "level"))
        elif select.metric == RUNBOOK_DECISION_THRESHOLD.prometheus_name:
            yield _Reference(_exact(select, "condition"), None)


def _exact(select: Select, label: str) -> str:
    """The one value that a selector allows a label to have; empty where it allows others."""
    for matcher in select.matchers:
        if matcher.name == label and matcher.operator is MatchOperator.EQUAL:
            return matcher.value
    return ""


def _unknown_thresholds(rule: AlertRule, references: Sequence[_Reference], policy: Policy) -> Iterator[Problem]:
    own_health = _label(rule, "scope") == _OWN_HEALTH
    if not references and not own_health:
        yield _of_rule(
            rule,
            "it names no threshold of the page",
            f"compare with {RUNBOOK_THRESHOLD.prometheus_name}{{metric=...,level=...}} or "
            f"{RUNBOOK_DECISION_THRESHOLD.prometheus_name}{{condition=...}}, "
            f"or label it scope: {_OWN_HEALTH} if it watches runbookd itself",
        )
    for reference in references:
        if own_health and not reference.name and not reference.level:
            continue  # whether there are thresholds at all is the agent's own health
        if reference.level is None:
            conditions = [row.condition for row in policy.matrix if not row.manual]
            if reference.name not in conditions:
                yield _of_rule(
                    rule,
                    f"the decision matrix has no threshold for condition {reference.name!r}",
                    f"conditions are {', '.join(conditions)}",
                )
        elif policy.threshold(reference.name) is None or reference.level not in _LEVELS:
            known = ", ".join(threshold.metric for threshold in policy.thresholds)
            yield _of_rule(
                rule,
                f"the page has no threshold with metric {reference.name!r} and level {reference.level!r}",
                f"metrics are {known}; levels are {' and '.join(_LEVELS)}",
            )


def _wrong_labels(rule: AlertRule, references: Sequence[_Reference], policy: Policy) -> Iterator[Problem]:
    """Labels decide whom a notice reaches and which row decides; they must say what the expression compares with."""
    metric, matrix, severity = (_label(rule, name) for name in ("metric", "matrix", "severity"))
    if metric and _Reference(metric, severity) not in references:
        yield _of_rule(
            rule,
            f"its labels say {severity or 'no severity'} of {metric}, and its expression compares with "
            f"{_wording(references)}",
            f'compare with {RUNBOOK_THRESHOLD.prometheus_name}{{metric="{metric}",level="{severity}"}}',
        )
    if matrix:
        row = policy.row(matrix)
        if row is None:
            known = ", ".join(row.condition for row in policy.matrix)
            yield _of_rule(rule, f"the decision matrix has no condition {matrix!r}", f"conditions are {known}")
        else:
            yield from _wrong_row(rule, row, references, severity)
    if _label(rule, "scope") != _OWN_HEALTH and not _label(rule, "condition"):
        yield _of_rule(rule, "it has no label condition", "add the slug under which a person sees it as one incident")


def _wrong_row(rule: AlertRule, row: MatrixRow, references: Sequence[_Reference], severity: str) -> Iterator[Problem]:
    if _Reference(row.condition, None) not in references:
        yield _of_rule(
            rule,
            f"its label says matrix row {row.condition}, and its expression compares with {_wording(references)}",
            f'compare with {RUNBOOK_DECISION_THRESHOLD.prometheus_name}{{condition="{row.condition}"}}',
        )
    expected = _ALERT_SEVERITY[row.severity]
    if severity != expected:
        yield _of_rule(
            rule,
            f"its severity is {severity or 'missing'}, the matrix says {row.severity}",
            f"label it severity: {expected}",
        )


def _unknown_channels(rule: AlertRule) -> Iterator[Problem]:
    known = [kind.value for kind in ChannelKind]
    for label in ("channel", "channels"):
        for name in re.split(r"[\s,+]+", _label(rule, label)):
            if name and name.lower() not in known:
                yield _of_rule(rule, f"unknown channel {name!r}", f"known are {', '.join(known)}")


def _dead_links(rule: AlertRule, policy: Policy) -> Iterator[Problem]:
    url = rule.annotations["runbook_url"].text if "runbook_url" in rule.annotations else ""
    if not url:
        if _label(rule, "scope") != _OWN_HEALTH:
            yield _of_rule(rule, "it has no runbook_url", f"link to a section of {policy.source}")
        return
    parts = urlsplit(url)
    if Path(parts.path).name != Path(policy.source).name:
        # An address elsewhere (a wiki, say) can't be looked up here; a path that is not the page is a mistake.
        if not parts.scheme:
            yield _of_rule(rule, f"its runbook_url {url!r} leads to another page", f"link to {policy.source}")
    elif parts.fragment not in policy.anchors:
        yield _of_rule(
            rule,
            f"its runbook_url leads to #{parts.fragment}, a section that {policy.source} lacks",
            "correct the anchor or add the heading",
        )


# --- metrics ------------------------------------------------------------------------------------------------------


def _unknown_metrics(rule: Rule, metrics: set[str]) -> Iterator[Problem]:
    for name in sorted(rule.expression.metrics - metrics):
        yield _of_rule(rule, f"nothing emits the metric {name!r}", _METRIC_HINT)
    if any(select.metric is None for select in rule.expression.selectors):
        yield _of_rule(rule, "a selector names no metric", "write the metric's name in front of the braces")


_METRIC_HINT = "correct the name; `curl /metrics` lists those there are"


def _dashboard_problems(dashboard: Dashboard, metrics: set[str]) -> Iterator[Problem]:
    for title, expression in _expressions(dashboard.content, "dashboard"):
        where = f"panel {title!r}"
        try:
            plan = compile_expression(_without_variables(expression))
        except RunbookdError as error:
            yield Problem(
                file=dashboard.file,
                where=where,
                what=f"its query {expression!r} can't be answered: {error.message}",
                hint=error.hint or "write it in other words",
            )
            continue
        for name in sorted(plan.metrics - metrics):
            yield Problem(
                file=dashboard.file, where=where, what=f"nothing emits the metric {name!r}", hint=_METRIC_HINT
            )


def _expressions(node: Any, title: str) -> Iterator[tuple[str, str]]:
    """Every query below ``node`` with the title of the panel that it belongs to."""
    if isinstance(node, dict):
        own = node.get("title")
        title = own if isinstance(own, str) and own else title
        expression = node.get("expr")
        if isinstance(expression, str) and expression.strip():
            yield title, expression
        for child in node.values():
            yield from _expressions(child, title)
    elif isinstance(node, list):
        for child in node:
            yield from _expressions(child, title)


def _without_variables(expression: str) -> str:
    """The query as Grafana sends it, with some value for each of its variables."""
    timed = re.sub(r"\$\{?__(?:rate_interval|interval|range)\}?", "1m", expression)
    return re.sub(r"\$\{\w+(?::\w+)?\}|\$\w+|\[\[\w+\]\]", "1", timed)


# --- wording ------------------------------------------------------------------------------------------------------


def _label(rule: AlertRule, name: str) -> str:
    template = rule.labels.get(name)
    return template.text if template else ""


def _wording(references: Sequence[_Reference]) -> str:
    said = [f"matrix row {each.name}" if each.level is None else f"{each.level} of {each.name}" for each in references]
    return " and ".join(said) or "no threshold"


def _of_rule(rule: Rule, what: str, hint: str) -> Problem:
    file, _, line = rule.place.rpartition(":")
    return Problem(file=file, line=int(line), where=f"rule {rule.name!r}", what=what, hint=hint)
