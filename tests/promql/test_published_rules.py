"""The conditions that operators of Prometheus, node_exporter, Redis and Alertmanager alert on, as they are published
with those projects' mixins and in awesome-prometheus-alerts: they load here, and hold where they hold in Prometheus.

The expressions are facts about those exporters; names and texts are ours.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from agent.alerting import load_rules
from agent.samples import Sample, SeriesStore, labels_of
from tests.promql.test_against_promtool import INTERVAL, Input, Values, notation, ours, same, theirs

pytestmark = pytest.mark.prometheus

RULES = {
    # Prometheus itself
    "ReloadFailed": 'max_over_time(prometheus_config_last_reload_successful{job="prometheus"}[5m3ms]) == 0',
    "QueueFillsUp": (
        'predict_linear(prometheus_notifications_queue_length{job="prometheus"}[5m3ms], 60 * 30)'
        ' > min_over_time(prometheus_notifications_queue_capacity{job="prometheus"}[5m3ms])'
    ),
    "AlertsNotSent": (
        'rate(prometheus_notifications_errors_total{job="prometheus"}[5m3ms])'
        ' / rate(prometheus_notifications_sent_total{job="prometheus"}[5m3ms]) * 100 > 1'
    ),
    "NoAlertmanager": 'max_over_time(prometheus_notifications_alertmanagers_discovered{job="prometheus"}[5m3ms]) < 1',
    "BlockReloadsFail": 'increase(prometheus_tsdb_reloads_failures_total{job="prometheus"}[3h3ms]) > 0',
    "CompactionsFail": 'increase(prometheus_tsdb_compactions_failed_total{job="prometheus"}[3h3ms]) > 0',
    "NothingIngested": (
        'sum without (type) (rate(prometheus_tsdb_head_samples_appended_total{job="prometheus"}[5m3ms])) <= 0 and ('
        ' sum without (scrape_job) (prometheus_target_metadata_cache_entries{job="prometheus"}) > 0'
        ' or sum without (rule_group) (prometheus_rule_group_rules{job="prometheus"}) > 0)'
    ),
    "DuplicateTimestamps": (
        'rate(prometheus_target_scrapes_sample_duplicate_timestamp_total{job="prometheus"}[5m3ms]) > 0'
    ),
    "RulesFail": 'increase(prometheus_rule_evaluation_failures_total{job="prometheus"}[5m3ms]) > 0',
    "RulesMissed": 'increase(prometheus_rule_group_iterations_missed_total{job="prometheus"}[5m3ms]) > 0',
    "RemoteWriteBehind": (
        '(max_over_time(prometheus_remote_storage_highest_timestamp_in_seconds{job="prometheus"}[5m3ms])'
        " - ignoring (remote_name, url) group_right"
        ' max_over_time(prometheus_remote_storage_queue_highest_sent_timestamp_seconds{job="prometheus"}[5m3ms])) > 120'
    ),
    "TargetGone": "up == 0",
    "JobGone": 'absent(up{job="prometheus-2"})',
    "TooManyRestarts": 'changes(process_start_time_seconds{job=~"prometheus|alertmanager"}[15m3ms]) > 2',
    # node_exporter
    "DiskFillsUp": (
        '(node_filesystem_avail_bytes{job="node",fstype!=""} / node_filesystem_size_bytes{job="node",fstype!=""} * 100'
        ' < 40 and predict_linear(node_filesystem_avail_bytes{job="node",fstype!=""}[6h3ms], 24 * 60 * 60) < 0'
        ' and node_filesystem_readonly{job="node",fstype!=""} == 0)'
    ),
    "InodesGone": 'node_filesystem_files_free{job="node"} / node_filesystem_files{job="node"} * 100 < 5',
    "ReceiveErrors": (
        "rate(node_network_receive_errs_total[2m3ms]) / rate(node_network_receive_packets_total[2m3ms]) > 0.01"
    ),
    "ConntrackFull": "(node_nf_conntrack_entries / node_nf_conntrack_entries_limit) > 0.75",
    "ClockSkew": (
        "(node_timex_offset_seconds > 0.05 and deriv(node_timex_offset_seconds[5m3ms]) >= 0) or"
        " (node_timex_offset_seconds < -0.05 and deriv(node_timex_offset_seconds[5m3ms]) <= 0)"
    ),
    "ClockNotSynced": "min_over_time(node_timex_sync_status[5m3ms]) == 0 and node_timex_maxerror_seconds >= 16",
    "CpuBusy": 'sum without (mode) (avg without (cpu) (rate(node_cpu_seconds_total{mode!="idle"}[2m3ms]))) * 100 > 90',
    "MemoryShort": "100 - (node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes * 100) > 90",
    "LoadHigh": 'node_load1 / count without (cpu, mode) (node_cpu_seconds_total{mode="idle"}) > 2',
    # Redis
    "RedisDown": "redis_up == 0",
    "RedisNoMaster": '(count(redis_instance_info{role="master"}) or vector(0)) < 1',
    "RedisTwoMasters": 'count(redis_instance_info{role="master"}) > 1',
    "RedisMemory": "redis_memory_used_bytes / redis_memory_max_bytes * 100 > 90 and redis_memory_max_bytes > 0",
    "RedisRejects": "increase(redis_rejected_connections_total[1m3ms]) > 0",
    "RedisBackupOld": "time() - redis_rdb_last_save_timestamp_seconds > 60 * 5",
    # Alertmanager
    "MembersDiffer": (
        'max_over_time(alertmanager_cluster_members{job="alertmanager"}[5m3ms]) < on (job) group_left'
        ' count by (job) (max_over_time(alertmanager_cluster_members{job="alertmanager"}[5m3ms]))'
    ),
    "SendsFail": (
        'rate(alertmanager_notifications_failed_total{job="alertmanager"}[5m3ms]) / ignoring (reason) group_left'
        ' rate(alertmanager_notifications_total{job="alertmanager"}[5m3ms]) > 0.01'
    ),
    "AllSendsFail": (
        "min by (job, integration) ("
        'rate(alertmanager_notifications_failed_total{job="alertmanager", integration=~`.*`}[15m3ms])'
        ' / ignoring (reason) group_left rate(alertmanager_notifications_total{job="alertmanager"}[15m3ms])) > 0.01'
    ),
    "ConfigsDiffer": 'count by (job) (count_values by (job) ("config_hash", alertmanager_config_hash)) != 1',
    "CrashLoops": 'count by (job) (changes(process_start_time_seconds{job="alertmanager"}[10m3ms]) > 4) >= 0.5',
    "SilentMost": 'avg_over_time((1 - avg by (job) (up{job="alertmanager"}))[5m3ms:30s]) > 0.4',
}

STEPS = 61
TIMES = (103.0, 597.0)


def steady(value: float) -> Values:
    return [value] * STEPS


def ramp(start: float, step: float) -> Values:
    return [start + number * step for number in range(STEPS)]


def then(first: float, second: float) -> Values:
    """Well for five minutes, then not."""
    return [first if number < 30 else second for number in range(STEPS)]


def make_world() -> list[Input]:
    """Two hosts, two of everything else; half of it goes wrong after five minutes."""
    p, n = {"job": "prometheus", "instance": "p:9090"}, {"job": "node", "instance": "n:9100"}
    found = [
        Input("prometheus_config_last_reload_successful", p, steady(0)),
        Input("prometheus_notifications_queue_length", p, ramp(0, 60)),
        Input("prometheus_notifications_queue_capacity", p, steady(10_000)),
        Input("prometheus_notifications_errors_total", {**p, "alertmanager": "a"}, ramp(1e6, 1)),
        Input("prometheus_notifications_sent_total", {**p, "alertmanager": "a"}, ramp(1e6, 50)),
        Input("prometheus_notifications_alertmanagers_discovered", p, steady(0)),
        Input("prometheus_tsdb_reloads_failures_total", p, then(1e6, 1e6 + 3)),
        Input("prometheus_tsdb_compactions_failed_total", p, steady(4)),
        Input("prometheus_tsdb_head_samples_appended_total", {**p, "type": "float"}, then(1e6, 1e6)),
        Input("prometheus_target_metadata_cache_entries", {**p, "scrape_job": "x"}, steady(5)),
        Input("prometheus_rule_group_rules", {**p, "rule_group": "g"}, steady(2)),
        Input("prometheus_target_scrapes_sample_duplicate_timestamp_total", p, then(1e6, 1e6 + 1)),
        Input("prometheus_rule_evaluation_failures_total", {**p, "rule_group": "g"}, ramp(1e6, 1)),
        Input("prometheus_rule_group_iterations_missed_total", {**p, "rule_group": "g"}, steady(3)),
        Input("prometheus_remote_storage_highest_timestamp_in_seconds", p, ramp(1e6, 10)),
        Input(
            "prometheus_remote_storage_queue_highest_sent_timestamp_seconds",
            {**p, "remote_name": "r", "url": "u"},
            ramp(1e6, 5),
        ),
        Input("up", p, steady(1)),
        Input("process_start_time_seconds", p, ramp(0, 10)),
        Input("node_nf_conntrack_entries", n, ramp(1, 20)),
        Input("node_nf_conntrack_entries_limit", n, steady(1000)),
        Input("node_timex_offset_seconds", n, ramp(0.02, 0.001)),
        Input("node_timex_sync_status", n, steady(0)),
        Input("node_timex_maxerror_seconds", n, then(1, 17)),
        Input("node_memory_MemAvailable_bytes", n, then(8e9, 5e8)),
        Input("node_memory_MemTotal_bytes", n, steady(16e9)),
        Input("node_load1", n, then(1, 9)),
        Input("node_network_receive_errs_total", {**n, "device": "eth0"}, ramp(1e6, 2)),
        Input("node_network_receive_packets_total", {**n, "device": "eth0"}, ramp(1e6, 100)),
    ]
    for device, size in (("a", 1e9), ("b", 1e12)):
        labels = {**n, "device": device, "fstype": "ext4"}
        found += [
            Input("node_filesystem_avail_bytes", labels, ramp(4e8, -1e6)),
            Input("node_filesystem_size_bytes", labels, steady(size)),
            Input("node_filesystem_readonly", labels, steady(0)),
            Input("node_filesystem_files_free", labels, then(50, 4)),
            Input("node_filesystem_files", labels, steady(100)),
        ]
    for cpu in ("0", "1"):
        found.append(Input("node_cpu_seconds_total", {**n, "cpu": cpu, "mode": "idle"}, ramp(1e6, 0.1)))
        found.append(Input("node_cpu_seconds_total", {**n, "cpu": cpu, "mode": "user"}, ramp(1e6, 9.9)))
    for host in ("r1", "r2"):
        labels = {"job": "redis", "instance": host}
        found += [
            Input("redis_up", labels, then(1, 0)),
            Input("redis_instance_info", {**labels, "role": "master" if host == "r1" else "slave"}, steady(1)),
            Input("redis_memory_used_bytes", labels, ramp(8e8, 5e6)),
            Input("redis_memory_max_bytes", labels, steady(1e9 if host == "r1" else 0)),
            Input("redis_rejected_connections_total", labels, ramp(1e6, 1)),
            Input("redis_rdb_last_save_timestamp_seconds", labels, steady(0)),
        ]
    for number, host in enumerate(("a1", "a2")):
        labels = {"job": "alertmanager", "instance": host}
        failed = {**labels, "integration": "slack", "reason": "other"}
        found += [
            Input("up", labels, then(1, float(number))),
            Input("alertmanager_cluster_members", labels, steady(1 + number)),
            Input("alertmanager_notifications_failed_total", failed, ramp(1e6, 1)),
            Input("alertmanager_notifications_total", {**labels, "integration": "slack"}, ramp(1e6, 9)),
            Input("alertmanager_config_hash", labels, steady(111.0 + number)),
            Input("process_start_time_seconds", labels, ramp(0, 10.0 * number)),
        ]
    return found


def test_published_rules_load(tmp_path: Path) -> None:
    """As a file of alerting rules, each with what such rules usually have."""
    rules = [
        {"alert": name, "expr": expression, "for": "15m", "labels": {"severity": "warning"}}
        for name, expression in RULES.items()
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "published", "rules": rules}]}))
    assert len(load_rules([path]).alerts) == len(RULES) >= 30


def test_published_rules_hold_as_in_prometheus(promtool: str, tmp_path: Path) -> None:
    """The same elements with the same values, before and after things go wrong; nearly all of them fire."""
    inputs = make_world()
    store = SeriesStore()
    for each in inputs:
        identity = labels_of(each.name, each.labels)
        for number, value in enumerate(each.values):
            assert isinstance(value, float | int)
            store.ingest(notation(each), number * INTERVAL, [Sample(identity, value)])
    cases = [(expression, at) for expression in RULES.values() for at in TIMES]
    expected = theirs(promtool, tmp_path, inputs, cases)
    differences = [
        f"{expression} at {at}: ours {result}, Prometheus's {expected[(expression, at)]}"
        for expression, at in cases
        if not same(result := ours(store, expression, at), expected[(expression, at)])
    ]
    assert differences == []
    fired = {name for name, expression in RULES.items() if any(expected[(expression, at)] for at in TIMES)}
    assert not any(isinstance(outcome, str) for outcome in expected.values())
    assert len(fired) >= 25, sorted(set(RULES) - fired)
