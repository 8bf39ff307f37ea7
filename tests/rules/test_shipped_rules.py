"""The rules that come with runbookd: Prometheus takes them, their scripts hold, and they name no figure of the page."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from agent.alerting import AlertRule, load_rules
from agent.alerting.scripts import Assertion, run_script
from agent.alerting.sight import ANNOTATIONS
from agent.decisions import Verdict
from agent.promql.expressions import Binary, Call, Node, Number, walk
from agent.rehearsal import run_journey
from agent.runbook import ChannelKind, load_runbook
from agent.telemetry import by_prometheus_name

ROOT = Path(__file__).parents[2]
RULES = ROOT / "rules"
FILES = sorted(RULES.glob("*.yaml"))
SCRIPTS = sorted((RULES / "tests").glob("*.test.yaml"))
JOURNEYS = sorted((RULES / "tests").glob("*.journey.yaml"))
PAGE = ROOT / "runbooks" / "firestore-operations.md"

THRESHOLD_METRICS = {"query_latency_p95", "error_rate", "document_write_rate", "backup_failure", "storage_usage"}
MATRIX_ROWS = {"data_corruption", "error_rate", "performance_degradation", "missing_indexes"}


@cache
def outcome(script: Path) -> tuple[Assertion, ...]:
    """A script's assertions; run once for all tests that ask."""
    return run_script(script)


@pytest.mark.prometheus
def test_prometheus_accepts_the_rules(promtool: str) -> None:
    """The same files load in a real Prometheus."""
    done = subprocess.run([promtool, "check", "rules", *map(str, FILES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_hold_in_prometheus(promtool: str, script: Path) -> None:
    """What a script says of a rule is so in Prometheus's engine."""
    done = subprocess.run([promtool, "test", "rules", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_hold_in_our_engine(script: Path) -> None:
    """What a script says of a rule is so in our engine and state machine."""
    failed = [assertion for assertion in outcome(script) if not assertion.passed]
    assert failed == []


@cache
def played(journey: Path) -> tuple[Assertion, ...]:
    """A file of journeys; played once for all tests that ask."""
    return run_journey(journey)


@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda path: path.name)
def test_the_journeys_hold(journey: Path) -> None:
    """From samples to pages, decisions and recoveries, through holds, kills and silences."""
    assert [assertion for assertion in played(journey) if not assertion.passed] == []


def test_every_row_of_the_matrix_has_a_journey() -> None:
    """Each row that a machine can see is decided upon in one, and every verdict that there is occurs."""
    told = " ".join(each.got for journey in JOURNEYS for each in played(journey) if each.kind == "decided")
    rows = {row.condition for row in load_runbook(PAGE).matrix if not row.manual}
    assert {row for row in rows if f"row {row}" in told} == rows
    verdicts = {str(verdict) for verdict in Verdict if verdict is not Verdict.NOTHING}
    assert {verdict for verdict in verdicts if f"verdict {verdict}" in told} == verdicts


def test_every_alert_has_a_journey_that_reaches_people_and_tells_them_the_end() -> None:
    """Each rule, at its severity, calls whom the page names for it, and exactly those are told when it is over."""
    page = load_runbook(PAGE)
    unheard = set()
    for rule in load_rules(FILES).alerts:
        labels = {name: template.text for name, template in rule.labels.items()}
        threshold = page.threshold(labels.get("metric", ""))
        # What has no row of its own goes to the two channels for which the page has an address.
        wanted = set(threshold.channels) if threshold else {ChannelKind.PAGERDUTY, ChannelKind.SLACK}
        stories = [
            (story.channels("trigger", rule.name, labels["severity"]), story.channels("resolve", rule.name))
            for story in told()
        ]
        if (wanted, wanted) not in stories:
            unheard.add(f"{rule.name} ({labels['severity']})")
    assert unheard == {"Watchdog (none)"}, "the watchdog alone calls nobody"


def test_the_watchdog_has_a_journey_with_its_heartbeat() -> None:
    """It goes with the rules' evaluation, and comes back with it."""
    beats = [each.expected for journey in JOURNEYS for each in played(journey) if each.kind == "heartbeat"]
    assert beats == ["on", "off", "on"]


def test_only_alerts_of_the_matrix_are_decided_upon() -> None:
    """Every other alert has a journey without one of them, and there nothing is decided and nothing recovered."""
    alerts = load_rules(FILES).alerts
    matrix = {rule.name for rule in alerts if "matrix" in rule.labels}
    elsewhere = [story for story in told() if story.file.name != "decision-matrix.journey.yaml"]
    quiet = [story for story in elsewhere if not story.rules & matrix]
    assert frozenset[str]().union(*(story.rules for story in quiet)) == {rule.name for rule in alerts} - matrix - {
        "Watchdog"
    }
    for story in quiet:
        said = {(each.kind, each.expected) for each in played(story.file) if each.test == story.name}
        assert {each for each in said if each[0] in ("decided", "recovery")} == {
            ("decided", "nothing"),
            ("recovery", "none"),
        }, story.name


@dataclass(frozen=True, kw_only=True)
class Told:
    """One notice that a journey expects, and that came."""

    channel: ChannelKind
    kind: str
    severity: str
    rules: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Story:
    """What people are told in one journey."""

    file: Path
    name: str
    notices: tuple[Told, ...]

    @property
    def rules(self) -> frozenset[str]:
        return frozenset[str]().union(*(notice.rules for notice in self.notices))

    def channels(self, kind: str, rule: str, severity: str = "") -> set[ChannelKind]:
        """Those that got a notice of this kind about ``rule``."""
        return {
            notice.channel
            for notice in self.notices
            if notice.kind == kind and rule in notice.rules and severity in ("", notice.severity)
        }


@cache
def told() -> tuple[Story, ...]:
    """The journeys, each with the notices that it names by channel, kind, severity and rules."""
    stories: dict[tuple[Path, str], list[Told]] = {}
    for journey in JOURNEYS:
        for each in played(journey):
            notices = stories.setdefault((journey, each.test), [])
            if each.kind == "notified" and each.passed:
                notices.extend(_notices(each.expected))
    return tuple(Story(file=file, name=name, notices=tuple(found)) for (file, name), found in stories.items())


def _notices(expected: str) -> Iterator[Told]:
    for entry in expected.split("; "):
        rules = re.search(r"\brules (\w+(?:, [A-Z]\w*)*)", entry)
        named = {key: re.search(rf"\b{key} (\w+)", entry) for key in ("channel", "kind", "severity")}
        channel, kind, severity = named["channel"], named["kind"], named["severity"]
        if rules and channel and kind:
            yield Told(
                channel=ChannelKind(channel[1]),
                kind=kind[1],
                severity=severity[1] if severity else "",
                rules=frozenset(rules[1].split(", ")),
            )


def test_every_recording_has_a_script() -> None:
    """What a rule records is asked for in a script, or an alert that reads it is seen to fire."""
    rules = load_rules(FILES)
    asked = {each.subject for script in SCRIPTS for each in outcome(script) if each.kind == "expression"}
    read = {metric for rule in rules.alerts for metric in rule.expression.metrics}
    assert {rule.name for rule in rules.recordings if rule.name not in read | asked} == set()


def test_every_alert_has_a_script() -> None:
    """No rule ships that no script has seen fire and seen keep silent."""
    alerts = {rule.name for rule in load_rules(FILES).alerts}
    fires: set[str] = set()
    silent: set[str] = set()
    for script in SCRIPTS:
        for assertion in outcome(script):
            if assertion.kind == "alert":
                (silent if assertion.expected == "nothing" else fires).add(assertion.subject)
    assert fires == alerts
    assert silent == alerts - {"Watchdog"}, "the watchdog alone never keeps silent"


def test_every_metric_is_in_the_catalogue() -> None:
    """A rule reads what the product emits or what another rule records, nothing else."""
    rules = load_rules(FILES)
    recorded = {rule.name for rule in rules.recordings}
    unknown = {
        f"{rule.name}: {metric}"
        for rule in rules.rules
        for metric in rule.expression.metrics
        if by_prometheus_name(metric) is None and metric not in recorded
    }
    assert unknown == set()


def test_every_threshold_and_row_has_its_rule() -> None:
    """Each key metric at both levels, each visible row of the matrix, under the labels that routing reads."""
    alerts = load_rules(FILES).alerts
    labels = [{name: template.text for name, template in rule.labels.items()} for rule in alerts]
    assert {(each["metric"], each["severity"]) for each in labels if "metric" in each} == {
        (metric, level) for metric in THRESHOLD_METRICS for level in ("warning", "critical")
    }
    assert {each["matrix"] for each in labels if "matrix" in each} == MATRIX_ROWS
    assert all("condition" in each and "severity" in each for each in labels)
    assert all(len({"metric", "matrix", "scope"} & each.keys()) == 1 for each in labels)


def test_thresholds_are_read_from_the_page() -> None:
    """A rule about the page compares with the page's series, under its own slug, and never with a figure."""
    for rule in load_rules(FILES).alerts:
        labels = {name: template.text for name, template in rule.labels.items()}
        if "scope" in labels:
            continue
        thresholds = [node for node in walk(rule.expression.root) if _is_threshold(node)]
        assert len(thresholds) == 1, rule.place
        wanted = _wanted(labels)
        assert wanted in rule.expression.text, rule.place
        for node in walk(rule.expression.root):
            if isinstance(node, Binary) and node.comparison is not None:
                assert not isinstance(node.right, Number), rule.place


def _is_threshold(node: Node) -> bool:
    return isinstance(node, Call) and node.function == "scalar"


def _wanted(labels: dict[str, str]) -> str:
    if "metric" in labels:
        return f'scalar(runbook_threshold{{metric="{labels["metric"]}",level="{labels["severity"]}"}})'
    return f'scalar(runbook_decision_threshold{{condition="{labels["matrix"]}"}})'


def test_every_alert_links_to_a_section_of_the_page() -> None:
    """The link in a page lands somewhere."""
    anchors = {_anchor(line) for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("#")}
    for rule in load_rules(FILES).alerts:
        assert set(rule.annotations) - ANNOTATIONS.keys() == {"summary", "description", "runbook_url"}, rule.place
        file, _, anchor = rule.annotations["runbook_url"].text.partition("#")
        assert ROOT / file == PAGE
        assert anchor in anchors, rule.place


def _anchor(heading: str) -> str:
    """The anchor that a Markdown renderer gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


def test_rules_of_one_name_differ_in_severity_alone() -> None:
    """A warning and its critical twin say the same thing of the same condition."""
    by_name: dict[str, list[AlertRule]] = {}
    for rule in load_rules(FILES).alerts:
        by_name.setdefault(rule.name, []).append(rule)
    for rules in by_name.values():
        assert len({rule.labels["condition"].text for rule in rules}) == 1
        assert len({rule.labels["severity"].text for rule in rules}) == len(rules)
