"""Telemetry: what is recorded is what is exposed, workers included."""

from __future__ import annotations

import json
import logging
from io import StringIO

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.core import Metric

from agent.faults import Transient, TransientReason
from agent.telemetry import Telemetry, continued_trace, quiet_telemetry, start_logging, trace_headers, trace_id
from agent.telemetry.catalogue import (
    CATALOGUE,
    DB_OPERATION_DURATION,
    DOCUMENTS_WRITTEN,
    MAINTENANCE_MODE,
    WORKERS_STUCK,
    by_prometheus_name,
)
from agent.telemetry.exposition import text_of


def _values(families: list[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_names_in_the_catalogue_are_unique_and_prometheus_clean() -> None:
    """No two metrics share a series name, and units end the names as Prometheus asks."""
    names = [name for spec in CATALOGUE for name in spec.series_names]
    assert len(names) == len(set(names))
    assert DB_OPERATION_DURATION.prometheus_name == "db_client_operation_duration_seconds"
    assert DOCUMENTS_WRITTEN.prometheus_name == "firestore_documents_written_total"
    assert by_prometheus_name("db_client_operation_duration_seconds_bucket") is DB_OPERATION_DURATION
    assert by_prometheus_name("made_up") is None


def test_counters_gauges_and_histograms_reach_the_exposition() -> None:
    """Each kind of instrument appears under its Prometheus name with its labels."""
    telemetry = quiet_telemetry()
    telemetry.add(DOCUMENTS_WRITTEN, 500, {"origin": "migration"})
    telemetry.set(MAINTENANCE_MODE, 1)
    telemetry.record(DB_OPERATION_DURATION, 0.03, {"db.operation.name": "Commit"})
    values = _values(telemetry.families())
    assert values["firestore_documents_written_total", (("origin", "migration"),)] == 500
    assert values["runbookd_maintenance_mode", ()] == 1
    label = ("db_operation_name", "Commit")
    assert values["db_client_operation_duration_seconds_bucket", (label, ("le", "0.05"))] == 1
    assert values["db_client_operation_duration_seconds_bucket", (label, ("le", "0.025"))] == 0
    assert values["db_client_operation_duration_seconds_count", (label,)] == 1


def test_an_attribute_outside_the_catalogue_is_a_programming_error() -> None:
    """Labels can't creep in: cardinality is decided in one place."""
    with pytest.raises(ValueError, match="has no attribute 'user'"):
        quiet_telemetry().add(DOCUMENTS_WRITTEN, 1, {"user": "42"})


def test_an_observed_gauge_vanishes_when_it_is_no_longer_returned() -> None:
    """A stuck worker that ended leaves no stale series behind."""
    telemetry = quiet_telemetry()
    stuck = [(1.0, {"operation": "backup"})]
    telemetry.observe(WORKERS_STUCK, lambda: list(stuck))
    key = ("runbookd_workers_stuck", (("operation", "backup"),))
    assert _values(telemetry.families())[key] == 1
    stuck.clear()
    assert key not in _values(telemetry.families())


def test_exemplars_carry_the_trace_and_stay_for_later_readers() -> None:
    """A bucket keeps its last trace id, also for a second reader of the same figures."""
    telemetry = quiet_telemetry()
    with telemetry.span("read"):
        expected = trace_id()
        telemetry.record(DB_OPERATION_DURATION, 0.2)
    for _ in range(2):
        text, kind = text_of(telemetry.families(), accept="application/openmetrics-text")
        assert f'trace_id="{expected}"'.encode() in text
        assert kind.startswith("application/openmetrics-text")
    plain, _ = text_of(telemetry.families())
    assert b"trace_id" not in plain


def test_worker_counters_add_up_and_outlive_the_worker() -> None:
    """Two workers and the daemon are one total; after a worker ended its counts stay and its gauges go."""
    daemon = quiet_telemetry()
    daemon.add(DOCUMENTS_WRITTEN, 1, {"origin": "migration"})
    for name in ("one", "two"):
        worker = quiet_telemetry()
        worker.add(DOCUMENTS_WRITTEN, 10, {"origin": "migration"})
        worker.set(MAINTENANCE_MODE, 1)
        worker.record(DB_OPERATION_DURATION, 0.2)
        daemon.absorb(name, json.loads(json.dumps(worker.relayed())))
        daemon.absorb(name, json.loads(json.dumps(worker.relayed())))
    key = ("firestore_documents_written_total", (("origin", "migration"),))
    assert _values(daemon.families())[key] == 21
    daemon.retire("one")
    daemon.retire("two")
    values = _values(daemon.families())
    assert values[key] == 21
    assert values["db_client_operation_duration_seconds_count", ()] == 2
    assert ("runbookd_maintenance_mode", ()) not in values


def test_a_failed_span_says_why_and_a_child_process_continues_the_trace() -> None:
    """Errors carry the closed reason; W3C headers link a worker's span to the one that asked for it."""
    spans = InMemorySpanExporter()
    telemetry = Telemetry(span_processors=[SimpleSpanProcessor(spans)])
    with telemetry.span("parent"):
        headers = trace_headers()
    with (
        pytest.raises(Transient),
        continued_trace(headers),
        telemetry.span("child"),
    ):
        raise Transient(TransientReason.UNAVAILABLE, "nobody answers")
    parent, child = spans.get_finished_spans()
    assert child.parent is not None
    assert child.parent.span_id == parent.context.span_id
    assert child.attributes is not None
    assert child.attributes["error.type"] == "unavailable"
    telemetry.shutdown()


def test_logs_are_json_with_the_trace_id() -> None:
    """A log line can be joined with the trace it was written in."""
    stream = StringIO()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        start_logging("INFO", stream)
        with quiet_telemetry().span("work"):
            expected = trace_id()
            logging.getLogger("agent.test").info("done", extra={"documents": 5})
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    entry = json.loads(stream.getvalue())
    assert entry["trace_id"] == expected
    assert entry["documents"] == 5
    assert entry["level"] == "INFO"
    assert entry["time"].endswith("Z")
