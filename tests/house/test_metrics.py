"""The metric catalogue: nothing in it is dead, and rules know no metric outside it."""

from __future__ import annotations

import ast

import pytest

from agent.alerting import load_rules
from agent.telemetry import CATALOGUE, MetricSpec, by_prometheus_name, catalogue
from tests.house.tree import ROOT, modules

# Written to the store by the rule evaluator itself, as Prometheus does.
MADE_BY_RULES = {"ALERTS", "ALERTS_FOR_STATE"}
HOME = "agent/telemetry/catalogue.py"
CONSTANTS = {name: value for name, value in vars(catalogue).items() if isinstance(value, MetricSpec)}


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_a_metric_is_recorded_somewhere(name: str) -> None:
    """A metric that no code outside the catalogue speaks of would stand in dashboards for ever empty."""
    assert any(name in module.names_used() for module in modules("agent") if module.name != HOME)


def test_names_are_unique() -> None:
    """Two metrics never share a series' name."""
    names = [series for spec in CATALOGUE for series in spec.series_names]
    assert len(names) == len(set(names))


def test_metrics_are_made_in_the_catalogue_alone() -> None:
    """A spec made elsewhere would escape the checks on rules, dashboards and docs."""
    makers = {
        module.name
        for module in modules("agent")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "MetricSpec"
    }
    assert makers == {HOME}


def test_rules_read_what_is_emitted() -> None:
    """Every metric in rules/*.yaml is in the catalogue, or is recorded by a rule."""
    rules = load_rules([ROOT / "rules"])
    recorded = {rule.name for rule in rules.recordings}
    read = {name for rule in rules.rules for name in rule.expression.metrics}
    unknown = {name for name in read if name not in recorded | MADE_BY_RULES and by_prometheus_name(name) is None}
    assert unknown == set()
    assert "db_client_operation_duration_seconds_count" in read


def test_no_rule_reads_what_is_minutes_late() -> None:
    """Cloud Monitoring's figures are too old to page or roll back on."""
    rules = load_rules([ROOT / "rules"])
    read = {name for rule in rules.rules for name in rule.expression.metrics}
    assert {name for name in read if name.startswith("cloud_firestore_")} == set()
