"""Rule files and templates: what is read, and how what is wrong is said."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from agent.alerting import load_rules, parse_duration
from agent.alerting.scripts import parse_series, parse_values, run_script
from agent.alerting.templates import Facts, compile_template
from agent.faults import Misconfigured, MisconfiguredReason
from agent.samples import describe

RULES = """
groups:
  - name: one
    interval: 15s
    limit: 10
    labels: {team: db}
    rules:
      - record: job:up:sum
        expr: sum by (job) (up)
      - alert: Down
        expr: job:up:sum == 0
        for: 1m30s
        keep_firing_for: 5m
        labels: {severity: critical}
        annotations: {summary: "{{ $labels.job }} is down"}
  - name: two
    rules: []
"""


def write(folder: Path, text: str, name: str = "rules.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(Misconfigured) as caught:
        load_rules([path])
    assert caught.value.reason is MisconfiguredReason.RULES
    return caught.value.message.replace(str(path), "rules.yaml").splitlines()


def test_a_rule_file_is_read_in_full(tmp_path: Path) -> None:
    """Intervals, limits, durations, group labels, both kinds of rule."""
    rules = load_rules([write(tmp_path, RULES)])
    one, two = rules.groups
    assert (one.interval, one.limit) == (timedelta(seconds=15), 10)
    assert two.interval == timedelta(minutes=1)
    (alert,) = rules.alerts
    assert alert.pending_for == timedelta(seconds=90)
    assert alert.keep_firing_for == timedelta(minutes=5)
    assert {name: each.text for name, each in alert.labels.items()} == {"severity": "critical", "team": "db"}
    (recording,) = rules.recordings
    assert recording.labels == {"team": "db"}


def test_a_folder_stands_for_its_rule_files(tmp_path: Path) -> None:
    """In the order of their names; what lies deeper is not read."""
    write(tmp_path, RULES)
    (tmp_path / "tests").mkdir()
    write(tmp_path / "tests", "nonsense", "script.yaml")
    assert len(load_rules([tmp_path]).groups) == 2


def test_every_problem_is_said_at_once_with_its_place(tmp_path: Path) -> None:
    """File, line, group, rule, and what to do."""
    found = problems(
        tmp_path,
        """groups:
  - name: one
    intervall: 1s
    rules:
      - alert: A
        expr: rate(x)
      - alert: B
        expr: up == 0
        for: 5 minutes
      - record: "not-a-metric"
        expr: up
      - alert: C
        record: D
        expr: up
      - alert: E
        expr: up[5m]
      - alert: F
        expr: mad_over_time(up[5m]) > 1
      - alert: G
        expr: up == 0
        annotations: {summary: "{{ $value | humanise }}"}
""",
    )
    assert len(found) == 8
    assert found[0].startswith("rules.yaml:3: unknown key 'intervall' in a group")
    assert found[1].startswith("rules.yaml:6: group 'one', rule 'A': expr 1:1: expected type matrix")
    assert "rules.yaml:9: group 'one', rule 'B': `for`: not a valid duration: '5 minutes'" in found[2]
    assert "not-a-metric" in found[3]
    assert found[4].startswith("rules.yaml:12: group 'one': a rule has either `alert` or `record`")
    assert "an instant vector or a scalar, not a matrix" in found[5]
    assert "mad_over_time() is not supported" in found[6]
    assert "unknown function 'humanise'" in found[7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("groups: [", "not readable as YAML"),
        ("- a", "a rule file must be a mapping"),
        ("groups: {}", "groups must be a list"),
        ("groups: [{name: a}, {name: a}]", "group 'a' is there twice"),
        ("groups: [{rules: []}]", "a group needs a name"),
        ("groups: [{name: a, interval: 0s}]", "longer than 0"),
        ("groups: [{name: a, limit: few}]", "a whole number"),
        ("groups: [{name: a, rules: [{alert: A}]}]", "needs an `expr`"),
        ("groups: [{name: a, rules: [{alert: A, expr: up}, {alert: A, expr: ' up'}]}]", "repeats the one at"),
        ("groups: [{name: a, rules: [{alert: A, expr: up, labels: {__name__: x}}]}]", "no name for a label"),
        ("groups: [{name: a, rules: [{record: r, expr: up, for: 1m}]}]", "a recording rule has no `for`"),
        ("groups: [{name: a, rules: [{alert: A, expr: up, alert: B}]}]", "'alert' is given twice"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Nothing is guessed and nothing passed over."""
    assert message in "\n".join(problems(tmp_path, text))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """A path that leads nowhere is a problem, not an empty set of rules."""
    with pytest.raises(Misconfigured, match="there is no such rule file"):
        load_rules([tmp_path / "nothing.yaml"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("15s", 15), ("1m", 60), ("1h30m", 5400), ("1d", 86400), ("2w", 1_209_600), ("500ms", 0.5)],
)
def test_durations_are_prometheus_s(text: str, seconds: float) -> None:
    """Units in falling order, no spaces."""
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "1.5s", "5 m", "1s1m", "-1s", "s"])
def test_other_durations_are_refused(text: str) -> None:
    """What Prometheus would not read, we do not."""
    with pytest.raises(ValueError, match="not a valid duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("template", "value", "text"),
    [
        ("plain", 1.0, "plain"),
        ("{{ $value }}", 0.05, "0.05"),
        ("{{ $value }}", 1234567.0, "1.234567e+06"),
        ("{{ $value }}", 123456.0, "123456"),
        ("{{ $value }}", 0.00001, "1e-05"),
        ("{{ .Value }} {{ .Labels.job }}", 2.0, "2 api"),
        ("{{$labels.job}}/{{ $labels.nothing }}.", 2.0, "api/."),
        ("{{ $value | humanize }}", 12_345.0, "12.35k"),
        ("{{ $value | humanize }}", 0.0021, "2.1m"),
        ("{{ humanize1024 $value }}", 1_048_576.0, "1Mi"),
        ("{{ $value | humanizePercentage }}", 0.0812, "8.12%"),
        ("{{ $value | humanizeDuration }}", 0.2475, "247.5ms"),
        ("{{ $value | humanizeDuration }}", 3_725.0, "1h 2m 5s"),
        ("{{ $value | humanizeDuration }}", 90_000.0, "1d 1h 0m 0s"),
        ("{{ $value | humanizeDuration }}", 12.3456, "12.35s"),
        ("{{ $value | humanizeTimestamp }}", 0.0, "1970-01-01 00:00:00 +0000 UTC"),
        ('{{ printf "%.2f%% of %s" $value $labels.job }}', 12.345, "12.35% of api"),
        ('{{ $value | printf "%.0f" }}', 12.345, "12"),
        ("{{ $labels.job | toUpper }}", 1.0, "API"),
        ('{{ reReplaceAll "a(.*)" "o$1" $labels.job }}', 1.0, "opi"),
        ('{{ humanize (printf "%.1f" $value) }}', 1.25, "1.2"),
        ('a {{- " b " -}} c', 1.0, "a b c"),
        ("{{ $value | humanizePercentage }}", float("nan"), "NaN%"),
        ("{{ $value }}", float("inf"), "+Inf"),
    ],
)
def test_templates_render_as_in_prometheus(template: str, value: float, text: str) -> None:
    """Variables, pipelines and the functions that rule files use."""
    assert compile_template(template).render(Facts(labels={"job": "api"}, value=value)) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ $valu }}", "character 4: unknown variable '$valu'"),
        ("{{ $value | nope }}", "character 13: unknown function 'nope'"),
        ("{{ if $value }}x", "'if' is never ended"),
        ("{{ $value", "never closed"),
        ("{{ }}", "an empty action"),
        ("{{ humanize }}", "humanize takes 1 arguments, not 0"),
        ("{{ $value | $labels.job }}", "'$labels.job' is no function"),
        ("{{ humanize ($value }}", "'(' is never closed"),
    ],
)
def test_a_template_that_could_not_render_is_refused_at_load(template: str, message: str) -> None:
    """No alert goes out with an error for a text."""
    with pytest.raises(Misconfigured) as caught:
        compile_template(template)
    assert message in str(caught.value)


def test_series_and_values_are_read_in_promtool_s_notation() -> None:
    """``a+bxn``, holes, ends, repetitions."""
    assert parse_values("1+2x3 5x2 _ _x2 stale -1 1e3-1x1") == [
        1.0, 3.0, 5.0, 7.0, 5.0, 5.0, 5.0, None, None, None, "stale", -1.0, 1000.0, 999.0,
    ]  # fmt: skip
    assert describe(parse_series('x{b="1", a="q\\"u"}')) == 'x{a="q\\"u", b="1"}'
    assert describe(parse_series("{}")) == "{}"
    with pytest.raises(ValueError, match="not a value"):
        parse_values("1+2")
    with pytest.raises(ValueError, match="not a series"):
        parse_series("x{a=1}")


def test_a_script_says_what_it_expected_and_got(tmp_path: Path) -> None:
    """One record for each expectation, passed or not."""
    write(tmp_path, RULES.replace("for: 1m30s", "for: 0s"))
    script = write(
        tmp_path,
        """
rule_files: [rules.yaml]
evaluation_interval: 15s
tests:
  - name: down
    interval: 15s
    input_series:
      - {series: 'up{job="api"}', values: '1x3 0x10'}
    alert_rule_test:
      - {eval_time: 30s, alertname: Down, exp_alerts: []}
      - {eval_time: 2m, alertname: Down, exp_alerts: []}
    promql_expr_test:
      - {expr: 'up + 1', eval_time: 30s, exp_samples: [{labels: '{job="api"}', value: 2}]}
""",
        "script.yaml",
    )
    results = run_script(script)
    assert [(each.kind, each.at, each.passed) for each in results] == [
        ("alert", 30.0, True),
        ("expression", 30.0, True),
        ("alert", 120.0, False),
    ]
    assert "api is down" in results[2].got
    assert results[2].expected == "nothing"


def test_a_script_with_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    """A test that tests nothing is worse than none."""
    with pytest.raises(Misconfigured, match="unknown key 'alert_rule_tests'"):
        run_script(write(tmp_path, "tests: [{alert_rule_tests: []}]", "script.yaml"))
