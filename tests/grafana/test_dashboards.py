"""The dashboards: as their generator makes them, about metrics there are, with queries that we can answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.alerting import load_rules
from agent.alerting.agreement import Dashboard, disagreements, read_dashboards
from agent.promql import compile_expression
from agent.runbook import load_runbook
from agent.telemetry import CATALOGUE, by_prometheus_name
from grafana.generate import DASHBOARDS, FOLDER, text_of

ROOT = Path(__file__).parents[2]
BOARDS = read_dashboards(ROOT / "grafana")
# Series that the rule loop makes, as Prometheus does.
MADE_BY_RULES = {"ALERTS", "ALERTS_FOR_STATE"}


def _named(node: Any, key: str) -> Iterator[Any]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from _named(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from _named(item, key)


def _expressions(board: Dashboard) -> list[str]:
    return [re.sub(r"\$__rate_interval", "1m", text) for text in _named(board.content, "expr")]


EXPRESSIONS = [text for board in BOARDS for text in _expressions(board)]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_committed_dashboard_is_what_the_generator_makes(name: str) -> None:
    """Nobody edited the JSON, and nobody forgot ``make dashboards``."""
    assert (FOLDER / name).read_text(encoding="utf-8") == text_of(DASHBOARDS[name]())


def test_every_dashboard_is_generated() -> None:
    """No JSON lies about that nothing makes."""
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(DASHBOARDS)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_query_compiles_and_reads_metrics_there_are(expression: str) -> None:
    """Our engine can evaluate it, and something emits or records each metric it names."""
    recorded = {rule.name for rule in load_rules([ROOT / "rules"]).recordings}
    metrics = compile_expression(expression).metrics
    assert metrics or expression == "vector(0)"
    assert [
        name
        for name in metrics
        if by_prometheus_name(name) is None and name not in recorded and name not in MADE_BY_RULES
    ] == []


def test_page_rules_and_dashboards_agree() -> None:
    """What ``runbookd check`` says of the committed files: nothing."""
    policy = load_runbook(ROOT / "runbooks" / "firestore-operations.md")
    assert disagreements(policy, load_rules([ROOT / "rules"]), CATALOGUE, dashboards=BOARDS) == []


def test_a_query_about_nothing_is_found() -> None:
    """The agreement notices a dashboard whose metric nobody emits, and one that can't be evaluated."""
    policy = load_runbook(ROOT / "runbooks" / "firestore-operations.md")
    panels = [{"title": "Wrong", "targets": [{"expr": "no_such_metric"}, {"expr": "rate(up)"}]}]
    wrong = Dashboard(file="wrong.json", content={"panels": panels})
    problems = [str(problem) for problem in disagreements(policy, load_rules([ROOT / "rules"]), CATALOGUE,
                                                          dashboards=[wrong])]  # fmt: skip
    assert len(problems) == 2
    assert all("Wrong" in problem for problem in problems)


def test_every_threshold_of_the_page_is_a_line() -> None:
    """Each key metric has a panel with the page's warning and critical, read from the page's series."""
    policy = load_runbook(ROOT / "runbooks" / "firestore-operations.md")
    for threshold in policy.thresholds:
        for level in ("warning", "critical"):
            selector = f'runbook_threshold{{metric="{threshold.metric}",level="{level}"}}'
            assert any(selector in text for text in EXPRESSIONS), selector


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: Path(board.file).name)
def test_panels_have_ids_places_and_names_of_their_own(board: Dashboard) -> None:
    """What Grafana needs and the builders don't see to: unique ids, unique query letters, no two panels on one spot."""
    panels = [panel for panel in board.content["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart or below


def test_provisioning_names_what_there_is() -> None:
    """The data source is a Prometheus by runbookd's default port, the provider reads where the README mounts."""
    folder = ROOT / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "runbookd.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "runbookd.yaml").read_text())["providers"]
    assert source["type"] == "prometheus"
    assert source["url"].endswith(":8080")
    assert provider["options"]["path"] in (ROOT / "grafana" / "README.md").read_text()
