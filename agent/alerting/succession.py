"""Which rule of a new rule set carries on an alert whose own rule is not there any more.

A rule is the same if name, expression and labels are. Where the expression was changed, the alerts of the old text
belong to the new one: the name and the labels, by which people and Prometheus know an alert, are still theirs. The
evaluator asks after a reload, and after a restart with other files.
"""

from __future__ import annotations

from collections.abc import Collection

from agent.alerting.book import Entry
from agent.alerting.rules import AlertRule, RuleSet


def successor(entry: Entry, rules: RuleSet, taken: Collection[str]) -> AlertRule | None:
    """The one rule that ``entry`` can go on under; ``None`` if there is none, or more than one.

    Args:
        taken: keys of rules that were there before: they have alerts of their own.
    """
    found = [
        rule
        for rule in rules.alerts
        if rule.key not in taken and rule.name == entry.alertname and _labelled_alike(rule, entry)
    ]
    return found[0] if len(found) == 1 else None


def _labelled_alike(rule: AlertRule, entry: Entry) -> bool:
    """Whether the labels that the rule gives every alert are those of ``entry``; what a template makes may differ."""
    return all(
        template.dynamic or entry.labels.get(name, "") == template.text for name, template in rule.labels.items()
    )
