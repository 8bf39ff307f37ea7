"""What is said of an alert: labels when it begins, annotations while it holds, the trace of an operation behind it.

Used by the evaluator alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

from agent.alerting.book import Entry
from agent.alerting.exemplars import Exemplars
from agent.alerting.rules import AlertRule, RuleSet
from agent.alerting.sight import SIGHT_LABEL, SIGHTLESS
from agent.alerting.states import Timer
from agent.alerting.template_functions import Sampled
from agent.alerting.templates import Facts, Surroundings
from agent.promql import Engine, Plan, Scalar, Select, Vector, compile_expression
from agent.samples import Labels


class Describer:
    """Fills in templates.

    For one thread; the evaluator says which rules are in force (:meth:`use`).
    """

    def __init__(self, engine: Engine, exemplars: Exemplars, around: Surroundings) -> None:
        self._engine = engine
        self._exemplars = exemplars
        self._around = around
        self._recorded: Mapping[str, Plan] = {}
        self._measured: dict[Plan, tuple[Select, ...]] = {}

    def use(self, rules: RuleSet) -> None:
        """Speak of ``rules`` from now on."""
        self._recorded = {rule.name: rule.expression for rule in rules.recordings}
        self._measured = {}

    def begun(self, rule: AlertRule, element: Labels, timer: Timer, named: Labels) -> Entry:
        sightless = element in SIGHTLESS.values()
        own = {SIGHT_LABEL: element[0][1]} if sightless else dict(element)
        facts = self._facts(dict(named) or own, timer)
        labels = {**own, **{name: each.render(facts) for name, each in rule.labels.items()}}
        labels["alertname"] = rule.name
        labels = {name: value for name, value in sorted(labels.items()) if value}
        return Entry(
            rule=rule.key,
            element=element,
            alertname=rule.name,
            fingerprint=fingerprint(labels),
            labels=labels,
            annotations={},
            timer=timer,
        )

    def described(self, rule: AlertRule, entry: Entry, named: Labels, *, look_for_trace: bool) -> Entry:
        if entry.element in SIGHTLESS.values():
            return replace(entry, annotations=_sightless_annotations(rule, entry))
        facts = self._facts(dict(named), entry.timer)
        annotations = {name: each.render(facts) for name, each in rule.annotations.items()}
        trace_id = entry.trace_id
        if look_for_trace and not trace_id:
            trace_id = self._exemplars(self.read_by(rule.expression), entry.labels, facts.at)
        return replace(entry, annotations=annotations, trace_id=trace_id)

    def _facts(self, labels: Mapping[str, str], timer: Timer) -> Facts:
        """What templates are told; what they ask is asked at the moment of the observation."""
        at = timer.seen_at.timestamp()

        def query(text: str) -> list[Sampled]:
            value = self._engine.instant(compile_expression(text), at)
            if isinstance(value, Scalar):
                return [Sampled({}, value.value)]
            elements = value.elements if isinstance(value, Vector) else ()
            return [Sampled(dict(element.labels), element.value) for element in elements]

        return Facts(labels=labels, value=timer.value, query=query, at=at, around=self._around)

    def read_by(self, plan: Plan) -> tuple[Select, ...]:
        """What the expression reads in the end: recorded series stand for what they were computed from."""
        recorded = dict(self._recorded)
        found: dict[Select, None] = {}
        pending = [plan]
        while pending:
            for select in pending.pop(0).selectors:
                found[select] = None
                source = recorded.pop(select.metric or "", None)
                if source is not None:
                    pending.append(source)
        return tuple(found)

    def measured_by(self, plan: Plan) -> tuple[Select, ...]:
        """What the expression reads in the end, without what rules record: that was measured, and can fall silent."""
        known = self._measured.get(plan)
        if known is None:
            read = self.read_by(plan)
            known = self._measured[plan] = tuple(each for each in read if each.metric not in self._recorded)
        return known


def _sightless_annotations(rule: AlertRule, entry: Entry) -> dict[str, str]:
    """What is said of a rule that can't see: its own texts speak of a value that there is not."""
    said = {
        "summary": f"{rule.name} can't be judged: {entry.blind}",
        "description": f"The rule {rule.name} does not see ({entry.blind}). Its alerts keep their state.",
    }
    return {name: said.get(name, template.text) for name, template in rule.annotations.items()} | said


def fingerprint(labels: Mapping[str, str]) -> str:
    """A stable hash of an alert's labels."""
    return hashlib.sha256(json.dumps(sorted(labels.items())).encode()).hexdigest()[:16]
