"""The page, the rules, the metrics and the dashboards: each way in which they can come apart is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.alerting import load_rules
from agent.alerting.agreement import Dashboard, disagreements, read_dashboards
from agent.faults import Misconfigured
from agent.runbook import Policy, load_runbook
from agent.telemetry.catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]
PAGE = "runbooks/firestore-operations.md"

Disagree = Callable[..., list[str]]

_METRICS = {
    "query_latency_p95": "histogram_quantile(0.95, rate(db_client_operation_duration_seconds_bucket[1m]))",
    "error_rate": 'sum(rate(db_client_operation_duration_seconds_count{error_type!=""}[1m]))',
    "document_write_rate": "sum(rate(firestore_documents_written_total[1m]))",
    "backup_failure": "max(runbookd_backup_consecutive_failures)",
    "storage_usage": "max(runbookd_storage_usage_ratio)",
}
_ROWS = {
    "data_corruption": ("critical", "sum(runbookd_migration_mismatched_documents)"),
    "error_rate": ("critical", "job:errors:ratio"),
    "performance_degradation": ("critical", "max(runbookd_baseline_query_latency_seconds)"),
    "missing_indexes": ("warning", 'sum(rate(db_client_operation_duration_seconds_count{error_type="x"}[1m]))'),
}


def _rule(name: str, expr: str, labels: dict[str, str], anchor: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        "labels": labels,
        "annotations": {"runbook_url": f"{PAGE}#{anchor}" if anchor else ""},
    }


def _threshold_rule(metric: str, level: str) -> dict[str, Any]:
    return _rule(
        f"{metric} {level}",
        f'{_METRICS[metric]} > scalar(runbook_threshold{{metric="{metric}",level="{level}"}})',
        {"severity": level, "metric": metric, "condition": metric},
        metric.replace("_", "-"),
    )


def _matrix_rule(condition: str) -> dict[str, Any]:
    severity, expr = _ROWS[condition]
    return _rule(
        f"matrix {condition}",
        f'{expr} > scalar(runbook_decision_threshold{{condition="{condition}"}})',
        {"severity": severity, "matrix": condition, "condition": condition},
        condition.replace("_", "-"),
    )


@pytest.fixture(scope="module")
def policy() -> Policy:
    return replace(load_runbook(ROOT / PAGE), source=PAGE)


@pytest.fixture
def rules() -> dict[str, dict[str, Any]]:
    """Rules that agree with our page, by name."""
    thresholds = [_threshold_rule(metric, level) for metric in _METRICS for level in ("warning", "critical")]
    return {rule["alert"]: rule for rule in (*thresholds, *map(_matrix_rule, _ROWS))}


@pytest.fixture
def disagree(policy: Policy, tmp_path: Path) -> Disagree:
    """What is found wrong with some rules, one text a problem, the file's folder left out."""

    def find(
        rules: dict[str, dict[str, Any]], *, policy: Policy = policy, dashboards: tuple[Dashboard, ...] = ()
    ) -> list[str]:
        recording = {"record": "job:errors:ratio", "expr": "sum(up)"}
        file = tmp_path / "rules.yaml"
        # JSON is YAML; each rule on a line of its own, so that places can be told.
        lines = ",\n".join(json.dumps(rule) for rule in (recording, *rules.values()))
        file.write_text(f'{{"groups": [{{"name": "g", "rules": [\n{lines}\n]}}]}}')
        found = disagreements(policy, load_rules([file]), CATALOGUE, dashboards=dashboards)
        return [str(problem).replace(str(tmp_path) + "/", "") for problem in found]

    return find


def test_what_agrees_is_silent(disagree: Disagree, rules: dict[str, dict[str, Any]]) -> None:
    """Every threshold and row watched, every metric and link real: nothing to say."""
    assert disagree(rules) == []


def test_this_repository_agrees() -> None:
    """Our page, our rules, our metrics and our dashboards say the same."""
    page = load_runbook(ROOT / PAGE)
    rules = load_rules([ROOT / "rules"])
    assert [
        str(each) for each in disagreements(page, rules, CATALOGUE, dashboards=read_dashboards(ROOT / "grafana"))
    ] == []


def test_a_threshold_without_a_rule(disagree: Disagree, rules: dict[str, dict[str, Any]], policy: Policy) -> None:
    """Each level needs a rule of its own; the page's line is given."""
    del rules["storage_usage warning"]
    threshold = policy.threshold("storage_usage")
    assert threshold is not None
    assert disagree(rules) == [
        f"{PAGE}:{threshold.line}: row 'Storage usage' of the key metrics: its warning threshold has no rule: "
        "add a rule with the labels metric: storage_usage and severity: warning"
    ]


def test_a_matrix_row_without_a_rule(disagree: Disagree, rules: dict[str, dict[str, Any]], policy: Policy) -> None:
    """A row is watched by a rule or, as it says itself, by a person."""
    del rules["matrix missing_indexes"]
    row = policy.row("missing_indexes")
    assert row is not None
    assert disagree(rules) == [
        f"{PAGE}:{row.line}: row 'Missing indexes' of the decision matrix: it has neither a rule nor the word manual: "
        "add a rule with the label matrix: missing_indexes, or write (manual) behind the issue"
    ]


def test_a_manual_row_with_a_rule(disagree: Disagree, rules: dict[str, dict[str, Any]], policy: Policy) -> None:
    """A row can't be left to people and watched by a rule at once."""
    matrix = tuple(replace(row, manual=row.manual or row.condition == "missing_indexes") for row in policy.matrix)
    said = disagree(rules, policy=replace(policy, matrix=matrix))
    assert any("it says manual, yet a rule watches it: take the word out, or remove the rule" in line for line in said)


def test_a_rule_that_names_no_threshold(disagree: Disagree, rules: dict[str, dict[str, Any]]) -> None:
    """A figure written into a rule can drift from the page; only the agent's own health may have one."""
    rules["own"] = _rule("own", "absent(runbook_threshold) or sum(up) < 1", {"scope": "agent"}, "")
    rules["stray"] = _rule("stray", "sum(up) < 1", {"severity": "critical", "condition": "x"}, "error-rate")
    (said,) = disagree(rules)
    assert said.startswith(
        "rules.yaml:18: rule 'stray': it names no threshold of the page: compare with runbook_threshold"
    )
    assert "scope: agent" in said


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (
            'runbook_threshold{metric="happiness",level="warning"}',
            "the page has no threshold with metric 'happiness' and level 'warning': metrics are query_latency_p95, ",
        ),
        ('runbook_threshold{metric="error_rate",level="info"}', "metric 'error_rate' and level 'info'"),
        ('runbook_threshold{metric="error_rate"}', "metric 'error_rate' and level ''"),
        ('runbook_decision_threshold{condition="boredom"}', "no threshold for condition 'boredom'"),
        ('runbook_decision_threshold{condition="ui_issues"}', "no threshold for condition 'ui_issues'"),
    ],
)
def test_a_rule_that_names_a_threshold_the_page_lacks(
    disagree: Disagree, rules: dict[str, dict[str, Any]], selector: str, expected: str
) -> None:
    """A misspelt threshold is an empty series, and its rule would never fire."""
    rules["bad"] = _rule("bad", f"sum(up) > scalar({selector})", {"severity": "info", "condition": "x"}, "error-rate")
    (said,) = disagree(rules)
    assert said.startswith("rules.yaml:17: rule 'bad': ")
    assert expected in said


def test_labels_that_say_another_level(disagree: Disagree, rules: dict[str, dict[str, Any]]) -> None:
    """A rule labelled critical that compares with the warning level would wake people for a warning."""
    rules["error_rate critical"]["expr"] = rules["error_rate warning"]["expr"]
    (said,) = disagree(rules)
    assert (
        "rule 'error_rate critical': its labels say critical of error_rate, "
        "and its expression compares with warning of error_rate" in said
    )


def test_a_matrix_label_that_the_page_lacks(disagree: Disagree, rules: dict[str, dict[str, Any]]) -> None:
    """A row that isn't there can't decide."""
    rules["matrix error_rate"]["labels"]["matrix"] = "boredom"
    said = disagree(rules)
    assert any("rule 'matrix error_rate': the decision matrix has no condition 'boredom'" in line for line in said)
    assert any("'>5% error rate' of the decision matrix: it has neither a rule" in line for line in said)


def test_a_matrix_rule_that_compares_with_something_else(disagree: Disagree, rules: dict[str, dict[str, Any]]) -> None:
    """The row's own threshold decides, not another one."""
    rules["matrix error_rate"]["expr"] = rules["error_rate critical"]["expr"]
    (said,) = disagree(rules)
    assert "its label says matrix row error_rate, and its expression compares with critical of error_rate" in said


def test_a_matrix_rule_with_another_severity(disagree: Disagree, rules: dict[str, dict[str, Any]]) -> None:
    """HIGH wakes people as CRITICAL does; the labels must say so."""
    rules["matrix performance_degradation"]["labels"]["severity"] = "info"
    (said,) = disagree(rules)
    assert "its severity is info, the matrix says high: label it severity: critical" in said


def test_a_rule_without_condition(disagree: Disagree, rules: dict[str, dict[str, Any]]) -> None:
    """Without it, one incident would be many pages."""
    del rules["error_rate warning"]["labels"]["condition"]
    (said,) = disagree(rules)
    assert "rule 'error_rate warning': it has no label condition" in said


def test_a_metric_that_nothing_emits(disagree: Disagree, rules: dict[str, dict[str, Any]]) -> None:
    """A misspelt metric is silence for ever; recorded series, ALERTS and up are known."""
    rules["storage_usage warning"]["expr"] = rules["storage_usage warning"]["expr"].replace("usage_ratio", "use_ratio")
    rules["own"] = _rule(
        "own", 'sum(ALERTS{alertstate="firing"}) + sum(up) + job:errors:ratio > 9', {"scope": "agent"}, ""
    )
    (said,) = disagree(rules)
    assert "rule 'storage_usage warning': nothing emits the metric 'runbookd_storage_use_ratio'" in said


def test_a_selector_without_metric(disagree: Disagree, rules: dict[str, dict[str, Any]]) -> None:
    """What a pattern selects can't be checked."""
    rules["own"] = _rule("own", 'sum({__name__=~"up.*"}) > 9', {"scope": "agent"}, "")
    (said,) = disagree(rules)
    assert "rule 'own': a selector names no metric" in said


def test_a_channel_that_does_not_exist(disagree: Disagree, rules: dict[str, dict[str, Any]]) -> None:
    """A rule may name channels of its own, of those that there are."""
    rules["error_rate warning"]["labels"]["channels"] = "slack+pigeon"
    (said,) = disagree(rules)
    assert "rule 'error_rate warning': unknown channel 'pigeon': known are slack, pagerduty, email" in said


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"{PAGE}#error-rates", f"leads to #error-rates, a section that {PAGE} lacks"),
        (f"https://github.com/o/r/blob/main/{PAGE}#nothing", "leads to #nothing"),
        ("runbooks/other.md#error-rate", "leads to another page"),
        ("", "it has no runbook_url"),
    ],
)
def test_a_link_that_leads_nowhere(
    disagree: Disagree, rules: dict[str, dict[str, Any]], url: str, expected: str
) -> None:
    """At 3 a.m. the link has to land on the response."""
    rules["error_rate warning"]["annotations"]["runbook_url"] = url
    (said,) = disagree(rules)
    assert said.startswith("rules.yaml:5: rule 'error_rate warning': ")
    assert expected in said


@pytest.mark.parametrize("url", [f"https://github.com/o/r/blob/main/{PAGE}#error-rate", "https://wiki.example/x#y"])
def test_links_that_lead_somewhere(disagree: Disagree, rules: dict[str, dict[str, Any]], url: str) -> None:
    """The page under its full address, or a page that isn't ours to check."""
    rules["error_rate warning"]["annotations"]["runbook_url"] = url
    assert disagree(rules) == []


def test_panels_of_dashboards(disagree: Disagree, rules: dict[str, dict[str, Any]]) -> None:
    """Queries are found in nested rows too, with Grafana's variables; bad ones are named by their panel."""
    panels = [
        {"title": "Good", "targets": [{"expr": 'sum(rate(up{job="$job"}[$__rate_interval])) by (job)'}]},
        {"title": "Row", "panels": [{"title": "Lost", "targets": [{"expr": "sum(lost_metric)"}, {"expr": ""}]}]},
        {"title": "Broken", "targets": [{"expr": "sum("}]},
        {"title": "Text", "options": {"content": "no query"}},
    ]
    dashboard = Dashboard(file="grafana/overview.json", content={"title": "Overview", "panels": panels})
    lost, broken = disagree(rules, dashboards=(dashboard,))
    assert lost.startswith("grafana/overview.json: panel 'Lost': nothing emits the metric 'lost_metric': correct")
    assert broken.startswith("grafana/overview.json: panel 'Broken': its query 'sum(' can't be answered: ")


def test_dashboards_are_read_from_their_folder(tmp_path: Path) -> None:
    """Every JSON file below it, and a broken one is named."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.json").write_text('{"title": "One"}')
    (dashboard,) = read_dashboards(tmp_path)
    assert dashboard.content == {"title": "One"}
    (tmp_path / "two.json").write_text("{")
    with pytest.raises(Misconfigured, match=r"two\.json can't be read"):
        read_dashboards(tmp_path)
