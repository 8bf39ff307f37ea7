"""The whole page: the first user's and ours say the same, and this is what they say."""

from __future__ import annotations

import json
import re
import time as stopwatch
from datetime import time, timedelta
from pathlib import Path

import pytest

from agent.faults import Misconfigured
from agent.runbook import (
    Action,
    BackupType,
    ChannelKind,
    Frequency,
    Operation,
    Policy,
    Priority,
    Severity,
    StorageKind,
    load_runbook,
    read_runbook,
    time_to_traffic,
    to_json,
)

_MINUTE = timedelta(minutes=1)


def test_the_damaged_seed_and_our_page_are_one_policy(seed: Policy, page: Policy) -> None:
    """Other words, other commands, broken encoding: the same figures."""
    assert seed == page
    assert seed.repaired_lines
    assert not page.repaired_lines


def test_thresholds(seed: Policy) -> None:
    """The key-metrics table in base units, with its channels."""
    slack, pagerduty, email = ChannelKind.SLACK, ChannelKind.PAGERDUTY, ChannelKind.EMAIL
    assert [(t.metric, t.warning.value, t.critical.value, t.channels) for t in seed.thresholds] == [
        ("query_latency_p95", 0.2, 0.5, (slack, pagerduty)),
        ("error_rate", 0.005, 0.01, (pagerduty,)),
        ("document_write_rate", 1000, 2000, (slack,)),
        ("backup_failure", 1, 2, (email, slack)),
        ("storage_usage", 0.8, 0.9, (email,)),
    ]
    failure = seed.threshold("backup_failure")
    assert failure is not None
    assert failure.critical.consecutive
    assert not failure.warning.consecutive
    assert seed.threshold("happiness") is None


def test_matrix(seed: Policy) -> None:
    """The decision matrix, with the thresholds that stand in its titles."""
    rows = [(r.condition, r.threshold and r.threshold.value, r.severity, r.action, r.budget) for r in seed.matrix]
    assert rows == [
        ("data_corruption", None, Severity.CRITICAL, Action.IMMEDIATE_ROLLBACK, 5 * _MINUTE),
        ("error_rate", 0.05, Severity.CRITICAL, Action.IMMEDIATE_ROLLBACK, 5 * _MINUTE),
        ("performance_degradation", 0.5, Severity.HIGH, Action.QUICK_ROLLBACK, 10 * _MINUTE),
        ("missing_indexes", None, Severity.MEDIUM, Action.FIX_FORWARD, 15 * _MINUTE),
        ("ui_issues", None, Severity.LOW, Action.FIX_FORWARD, None),
    ]


def test_only_our_page_says_what_people_watch(seed: Policy, page: Policy) -> None:
    """ "manual" marks the row that no rule can see, without changing its slug."""
    assert [row.condition for row in page.matrix if row.manual] == ["ui_issues"]
    assert not any(row.manual for row in seed.matrix)


def test_backups(seed: Policy) -> None:
    """Schedule, retention and storage of each kind."""
    assert [(b.type, b.every, b.retention, b.storage) for b in seed.backups] == [
        (BackupType.SNAPSHOT, Frequency.HOURLY, timedelta(hours=24), (StorageKind.LOCAL,)),
        (BackupType.INCREMENTAL, Frequency.DAILY, timedelta(days=7), (StorageKind.LOCAL, StorageKind.GCS)),
        (BackupType.FULL, Frequency.WEEKLY, timedelta(days=30), (StorageKind.GCS, StorageKind.ARCHIVE)),
    ]
    assert [frequency.period for frequency in Frequency] == [timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)]


def test_the_database_and_its_order(seed: Policy) -> None:
    """Counts add up to the total; the transient collection is no part of a migration."""
    assert [(c.position, c.collection, c.documents, c.priority) for c in seed.migration_order] == [
        (1, "users", 5234, Priority.CRITICAL),
        (2, "lessons", 8901, Priority.REQUIRED),
        (3, "reviews", 45678, Priority.CORE),
        (4, "review_items", 234567, Priority.CORE),
        (5, "progress", 12345, Priority.IMPORTANT),
        (6, "sessions", None, Priority.REGENERABLE),
    ]
    assert sum(plan.documents or 0 for plan in seed.migration_order) == seed.statistics.documents == 306_725
    assert seed.migrated_collections == ("users", "lessons", "reviews", "review_items", "progress")
    assert (seed.statistics.size_bytes, seed.statistics.collections) == (311e6, 8)
    assert (seed.statistics.migration_time_seconds, seed.statistics.rollback_time_seconds) == (660, 300)


def test_queries(seed: Policy) -> None:
    """Latency of each query in seconds, now and as it should be."""
    assert [(q.query, q.current, q.target) for q in seed.query_targets] == [
        ("user_lookup", 0.045, 0.05),
        ("queue_generation", 0.087, 0.1),
        ("batch_updates", 0.156, 0.2),
        ("stats_calculation", 0.234, 0.3),
    ]


def test_people(seed: Policy, page: Policy) -> None:
    """Who is called, how fast they answer, and where people talk."""
    assert [(step.level, step.role, step.response) for step in seed.escalation] == [
        (1, "Database Specialist", timedelta()),
        (2, "DevOps Commander", 5 * _MINUTE),
        (3, "SRE", 5 * _MINUTE),
        (4, "Engineering Manager", 15 * _MINUTE),
    ]
    assert (seed.channels.slack, seed.channels.pagerduty) == ("#deployment-war-room", "database-oncall")
    assert (seed.channels.status_page, seed.channels.hotline) == ("status.moshimoshi.com", "Configured in PagerDuty")
    assert all(not step.agent for step in page.escalation)


def test_deployment_day(seed: Policy) -> None:
    """Stages with their times and what each step does; the checklists with their times."""
    assert [(stage.at, stage.duration) for stage in seed.deployment] == [
        (time(7), 30 * _MINUTE),
        (time(7, 30), 60 * _MINUTE),
        (time(8, 30), 30 * _MINUTE),
        (time(9), None),
    ]
    assert [step.operation for stage in seed.deployment for step in stage.steps] == [
        Operation.CREATE_BACKUP,
        Operation.CHOOSE_BACKUP,
        Operation.MAINTENANCE_ON,
        Operation.MIGRATE,
        Operation.WATCH_MIGRATION,
        Operation.VALIDATE,
        Operation.MEASURE_QUERIES,
        Operation.CHECK_HEALTH,
        Operation.MAINTENANCE_OFF,
        Operation.CLEAR_CACHES,
        Operation.WARM_CACHES,
    ]
    assert [(c.phase, c.name, len(c.items)) for c in seed.checklists] == [
        ("pre_deployment_checklist", "monday", 4),
        ("pre_deployment_checklist", "tuesday", 4),
        ("pre_deployment_checklist", "wednesday", 4),
        ("pre_deployment_checklist", "thursday_deployment_day", 7),
        ("post_migration_checklist", "thursday_evening", 5),
        ("post_migration_checklist", "friday_monitoring", 5),
        ("post_migration_checklist", "week_4_handoff", 4),
    ]
    assert seed.checklists[0].items[0].done
    assert seed.checklists[3].items[-1].at == time(10)


def test_the_emergency_sequence_fits_its_budget(seed: Policy) -> None:
    """Six steps; users are back after exactly five minutes, and the look afterwards takes thirty seconds more."""
    assert [(step.operation, step.budget.total_seconds()) for step in seed.emergency] == [
        (Operation.MAINTENANCE_ON, 30),
        (Operation.CHOOSE_BACKUP, 30),
        (Operation.RESTORE_DATA, 180),
        (Operation.CLEAR_CACHES, 30),
        (Operation.MAINTENANCE_OFF, 30),
        (Operation.CHECK_HEALTH, 30),
    ]
    assert time_to_traffic(seed.emergency) == seed.emergency_budget == 5 * _MINUTE
    assert sum((step.budget for step in seed.emergency), timedelta()) == 5.5 * _MINUTE
    restore = seed.emergency_step(Operation.RESTORE_DATA)
    assert restore is not None
    assert restore.budget == 3 * _MINUTE


def test_recovery_scenarios(seed: Policy) -> None:
    """Both scenarios with their budgets, the first with a time for every step."""
    assert [(s.scenario, s.budget, len(s.steps)) for s in seed.recovery_scenarios] == [
        ("complete_data_loss", 15 * _MINUTE, 5),
        ("partial_data_corruption", 5 * _MINUTE, 3),
    ]
    loss = seed.scenario("complete_data_loss")
    assert loss is not None
    assert [step.budget and step.budget / _MINUTE for step in loss.steps] == [1, 1, 10, 2, 1]


def test_the_rest_of_the_page(seed: Policy) -> None:
    """Indexes, connections, endpoints, addresses, limits: nothing of the page is lost."""
    assert [(i.collection, i.scope, [(f.path, f.order) for f in i.fields]) for i in seed.indexes] == [
        ("reviews", "COLLECTION", [("userId", "ASCENDING"), ("nextReviewAt", "ASCENDING")]),
        (
            "review_items",
            "COLLECTION",
            [("userId", "ASCENDING"), ("status", "ASCENDING"), ("lastReviewedAt", "DESCENDING")],
        ),
    ]
    pool = seed.connection_pool
    assert pool is not None
    assert (pool.max_idle_channels, pool.max_channels) == (10, 100)
    assert (pool.keep_alive_time, pool.keep_alive_timeout) == (timedelta(seconds=30), timedelta(seconds=10))
    assert [(e.name, e.method, e.path) for e in seed.health_endpoints] == [
        ("health", "GET", "/api/database/health"),
        ("migration_status", "GET", "/api/database/migration-status"),
        ("backup_status", "GET", "/api/database/backup-status"),
        ("metrics", "GET", "/api/database/metrics"),
    ]
    assert seed.health_url == "https://api.moshimoshi.com/api/health"
    assert (seed.maintenance.document, seed.maintenance.message) == (
        "_config/maintenance",
        "Database migration in progress",
    )
    assert seed.stuck_after == 5 * _MINUTE
    assert (seed.limits.batch_size, seed.limits.reduced_batch_size) == (500, 100)
    assert (seed.limits.memory_bytes, seed.limits.quiet_period) == (4096 * 2**20, timedelta(hours=2))
    assert seed.limits.restore_within == 15 * _MINUTE
    assert [issue.issue for issue in seed.issues] == [
        "migration_stuck",
        "backup_restoration_fails",
        "high_memory_usage_during_migration",
    ]


def test_the_variables_that_the_product_reads_are_the_same(seed: Policy, page: Policy) -> None:
    """All but the one that only Node.js knows."""
    assert {v.name: v.value for v in seed.environment if v.name != "NODE_ENV"} == {
        v.name: v.value for v in page.environment
    }


def test_every_threshold_and_row_has_its_response(page: Policy) -> None:
    """Whatever wakes a person has a heading to land on, and steps to take there."""
    expected = {threshold.metric for threshold in page.thresholds} | {row.condition for row in page.matrix}
    responses = {response.name: response for response in page.responses}
    assert set(responses) == expected
    for name, response in responses.items():
        assert response.anchor == name.replace("_", "-")
        assert response.steps or name == "ui_issues"


def test_links_within_the_page_lead_somewhere(page: Policy, page_text: str) -> None:
    """No link of the table of contents, or between sections, is dead."""
    links = re.findall(r"\]\(#([^)]+)\)", page_text)
    assert links
    assert [link for link in links if link not in page.anchors] == []


def test_our_page_is_plain(page_text: str) -> None:
    """No damaged characters, nobody's name, none of the old scripts."""
    assert page_text.isascii()
    assert not re.search(r"\bAgent \d|scripts/database|firebase firestore|\bnode\b", page_text)


def test_our_page_has_its_own_words(page_text: str, seed_bytes: bytes) -> None:
    """Beyond figures, headings and names, no line of the seed is repeated."""
    label = re.compile(r"^(#|\||```|[-*0-9]|export |curl |redis-cli |GET |[{}\[\]\"]|\*\*)")
    ours = {line.strip() for line in page_text.split("\n")}
    theirs = {line.strip() for line in seed_bytes.decode().split("\n")}
    assert [line for line in ours & theirs if line and not label.match(line)] == []


def test_the_policy_is_json_in_base_units(page: Policy) -> None:
    """``check --json`` shows the whole page as plain data."""
    data = json.loads(json.dumps(to_json(page)))
    assert data["thresholds"][0]["warning"] == {
        "comparator": ">",
        "value": 0.2,
        "unit": "s",
        "consecutive": False,
        "text": ">200ms",
    }
    assert data["matrix"][0]["budget"] == 300
    assert data["deployment"][1]["at"] == "07:30"
    assert data["backups"][1]["storage"] == ["local", "gcs"]
    assert "error-rate" in data["anchors"]


def test_reading_is_quick(seed_bytes: bytes) -> None:
    """A reload costs less than a tick of the rules: under 100 ms."""
    read_runbook(seed_bytes, source="seed.md")
    took = []
    for _ in range(5):
        start = stopwatch.perf_counter()
        read_runbook(seed_bytes, source="seed.md")
        took.append(stopwatch.perf_counter() - start)
    assert min(took) < 0.1


def test_a_file_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(Misconfigured, match=r"nowhere\.md can't be read \(No such file or directory\)"):
        load_runbook(tmp_path / "nowhere.md")
