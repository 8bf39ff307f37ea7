"""Rules as values: what a rule file says, compiled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from agent.alerting.sight import KEEP_STATE, Policies
from agent.alerting.states import Patience
from agent.alerting.templates import Template
from agent.promql import Plan


@dataclass(frozen=True, kw_only=True)
class AlertRule:
    """An alerting rule.

    Args:
        unseen: what it does when it can't see.
        place: ``file:line`` of its beginning.
    """

    name: str
    expression: Plan
    pending_for: timedelta
    keep_firing_for: timedelta
    labels: Mapping[str, Template]
    annotations: Mapping[str, Template]
    place: str
    unseen: Policies = KEEP_STATE

    @cached_property
    def key(self) -> str:
        """What makes it the same rule after a reload: name, expression and labels, wherever they are written.

        Durations and annotations may change without an alert losing its state.
        """
        labels = {name: template.text for name, template in sorted(self.labels.items())}
        return _digest("alert", self.name, " ".join(self.expression.text.split()), json.dumps(labels))

    def patience(self, interval: timedelta) -> Patience:
        return Patience(pending_for=self.pending_for, keep_firing_for=self.keep_firing_for, interval=interval)


@dataclass(frozen=True, kw_only=True)
class RecordingRule:
    """A rule whose result becomes the series ``name``."""

    name: str
    expression: Plan
    labels: Mapping[str, str]
    place: str

    @cached_property
    def key(self) -> str:
        return _digest("record", self.name, " ".join(self.expression.text.split()), json.dumps(dict(self.labels)))


Rule = AlertRule | RecordingRule


@dataclass(frozen=True, kw_only=True)
class RuleGroup:
    """Rules that are evaluated together, in order, every ``interval``.

    Args:
        limit: more elements of one rule than this are an error; 0 is no limit.
    """

    name: str
    file: str
    interval: timedelta
    limit: int
    rules: tuple[Rule, ...]

    @property
    def key(self) -> str:
        return f"{self.file};{self.name}"


@dataclass(frozen=True, kw_only=True)
class RuleSet:
    """All groups of all rule files."""

    groups: tuple[RuleGroup, ...] = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(rule for group in self.groups for rule in group.rules)

    @property
    def alerts(self) -> tuple[AlertRule, ...]:
        return tuple(rule for rule in self.rules if isinstance(rule, AlertRule))

    @property
    def recordings(self) -> tuple[RecordingRule, ...]:
        return tuple(rule for rule in self.rules if isinstance(rule, RecordingRule))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
