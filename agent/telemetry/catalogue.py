"""Every metric the product emits, defined once.

A metric that is not here can't be recorded: instruments are made from these values alone, and a test holds rules,
dashboards and docs to the Prometheus names derived from them. Names follow OpenTelemetry's semantic conventions
where one exists (https://opentelemetry.io/docs/specs/semconv/database/database-metrics/) and Prometheus's naming
otherwise (base units; ``_total`` for counters).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The OpenTelemetry instrument behind a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


_UNIT_SUFFIX = {"s": "_seconds", "By": "_bytes", "1": "_ratio"}

# Boundaries in seconds. Denser between 25 ms and 600 ms, where the query targets and latency thresholds of a
# runbook lie: the error of histogram_quantile is the width of a bucket.
LATENCY_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
OPERATION_BUCKETS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3300.0)


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """One metric.

    Args:
        name: OpenTelemetry name, dotted.
        unit: UCUM unit: ``s``, ``By``, ``1`` (a ratio), or an annotation such as ``{document}``.
        attributes: the attribute keys it may carry; others are a programming error.
        buckets: histogram boundaries, in ``unit``.
        prometheus: exact Prometheus name, only where the derived one would be wrong.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] | None = None
    prometheus: str | None = None

    @property
    def prometheus_name(self) -> str:
        """The family's name in the Prometheus exposition (counters with ``_total``)."""
        if self.prometheus:
            return self.prometheus
        name = re.sub(r"[^a-zA-Z0-9_:]", "_", self.name)
        suffix = _UNIT_SUFFIX.get(self.unit, "")
        if suffix and not name.endswith(suffix):
            name += suffix
        return name + "_total" if self.kind is Kind.COUNTER else name

    @property
    def series_names(self) -> tuple[str, ...]:
        """Names under which samples of this metric appear."""
        base = self.prometheus_name
        if self.kind is Kind.HISTOGRAM:
            return (f"{base}_bucket", f"{base}_count", f"{base}_sum")
        return (base,)


# --- the database, as its clients see it -----------------------------------------------------------------------

DB_OPERATION_DURATION = MetricSpec(
    name="db.client.operation.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    description="Duration of database client operations, retries excluded",
    attributes=("db.system.name", "db.operation.name", "db.query.summary", "error.type"),
    buckets=LATENCY_BUCKETS,
)
DOCUMENTS_WRITTEN = MetricSpec(
    name="firestore.documents.written",
    kind=Kind.COUNTER,
    unit="{document}",
    description="Documents written, by what wrote them: application, migration, undo, restore or control",
    attributes=("origin",),
)
DOCUMENTS_READ = MetricSpec(
    name="firestore.documents.read",
    kind=Kind.COUNTER,
    unit="{document}",
    description="Documents read, by what read them",
    attributes=("origin",),
)
WRITE_RETRIES = MetricSpec(
    name="firestore.write.retries",
    kind=Kind.COUNTER,
    unit="{attempt}",
    description="Write batches sent again, by the reason of the failed attempt",
    attributes=("origin", "error.type"),
)

# --- the database, as Google's servers count it: minutes late, so never under the names above ----------------------

CLOUD_REQUESTS = MetricSpec(
    name="cloud.firestore.api.requests",
    kind=Kind.COUNTER,
    unit="{request}",
    description="Firestore API calls as Cloud Monitoring counts them, minutes late",
    attributes=("api_method", "response_code"),
)
CLOUD_REQUEST_DURATION = MetricSpec(
    name="cloud.firestore.api.request.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    description="Duration of Firestore API calls that don't stream, as Cloud Monitoring measures it, minutes late",
    attributes=("api_method",),
)
CLOUD_DOCUMENTS_WRITTEN = MetricSpec(
    name="cloud.firestore.documents.written",
    kind=Kind.COUNTER,
    unit="{document}",
    description="Documents written by anybody, as Cloud Monitoring counts them, minutes late",
)
CLOUD_DOCUMENTS_READ = MetricSpec(
    name="cloud.firestore.documents.read",
    kind=Kind.COUNTER,
    unit="{document}",
    description="Documents read by anybody, as Cloud Monitoring counts them, minutes late",
)
CLOUD_DOCUMENTS_DELETED = MetricSpec(
    name="cloud.firestore.documents.deleted",
    kind=Kind.COUNTER,
    unit="{document}",
    description="Documents deleted by anybody, as Cloud Monitoring counts them, minutes late",
)

# --- what the page says, as series (set once a load of the page) --------------------------------------------------

RUNBOOK_THRESHOLD = MetricSpec(
    name="runbook.threshold",
    kind=Kind.GAUGE,
    unit="",
    description="Threshold of the runbook's key-metrics table, in base units; level is warning or critical",
    attributes=("metric", "level"),
)
RUNBOOK_DECISION_THRESHOLD = MetricSpec(
    name="runbook.decision.threshold",
    kind=Kind.GAUGE,
    unit="",
    description="Threshold of a row of the runbook's decision matrix, in base units",
    attributes=("condition",),
)
RUNBOOK_QUERY_TARGET = MetricSpec(
    name="runbook.query.target",
    kind=Kind.GAUGE,
    unit="s",
    description="Latency target of a query, from the runbook's query table",
    attributes=("query",),
)
RUNBOOK_TIME_BUDGET = MetricSpec(
    name="runbook.time.budget",
    kind=Kind.GAUGE,
    unit="s",
    description="Time the decision matrix allows from decision to recovery",
    attributes=("condition",),
)

# --- operations and their workers ---------------------------------------------------------------------------------

OPERATION_DURATION = MetricSpec(
    name="runbookd.operation.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    description="Duration of backups, migrations, undos, restores and verifications",
    attributes=("operation", "outcome"),
    buckets=OPERATION_BUCKETS,
)
OPERATIONS_ACTIVE = MetricSpec(
    name="runbookd.operations.active",
    kind=Kind.GAUGE,
    unit="{operation}",
    description="Operations running in worker processes now",
    attributes=("operation",),
)
OPERATION_DOCUMENTS = MetricSpec(
    name="runbookd.operation.documents",
    kind=Kind.GAUGE,
    unit="{document}",
    description="Documents that a running operation has done (state=done) and has to do (state=total)",
    attributes=("operation", "state"),
)
WORKER_LAST_PROGRESS = MetricSpec(
    name="runbookd.worker.last.progress.timestamp",
    kind=Kind.GAUGE,
    unit="s",
    description="Unix time at which a running worker last made progress",
    attributes=("operation",),
)
WORKERS_STUCK = MetricSpec(
    name="runbookd.workers.stuck",
    kind=Kind.GAUGE,
    unit="{worker}",
    description="Running workers without progress for longer than the runbook allows",
    attributes=("operation",),
)

# --- backup -------------------------------------------------------------------------------------------------------

BACKUP_CONSECUTIVE_FAILURES = MetricSpec(
    name="runbookd.backup.consecutive.failures",
    kind=Kind.GAUGE,
    unit="{backup}",
    description="Scheduled backups failed or missed in a row, by type; 0 after a success",
    attributes=("type",),
)
BACKUP_LAST_SUCCESS = MetricSpec(
    name="runbookd.backup.last.success.timestamp",
    kind=Kind.GAUGE,
    unit="s",
    description="Unix time of the read_time of the newest verified backup, by type",
    attributes=("type",),
)
BACKUP_LAST_PROVEN = MetricSpec(
    name="runbookd.backup.last.proven.timestamp",
    kind=Kind.GAUGE,
    unit="s",
    description="Unix time of the newest verification that covered a restore that was tried and compared",
)
RESTORES_INTERRUPTED = MetricSpec(
    name="runbookd.restores.interrupted",
    kind=Kind.GAUGE,
    unit="{restore}",
    description="Restores that wrote to a database and did not finish: it is neither as before nor as in the backup",
)
BACKUP_SIZE = MetricSpec(
    name="runbookd.backup.size",
    kind=Kind.GAUGE,
    unit="By",
    description="Stored size of the newest backup, by type",
    attributes=("type",),
)
STORAGE_USAGE = MetricSpec(
    name="runbookd.storage.usage",
    kind=Kind.GAUGE,
    unit="1",
    description="Used share of the capacity of a backup storage",
    attributes=("storage",),
)

# --- migration ----------------------------------------------------------------------------------------------------

MIGRATION_ACTIVE = MetricSpec(
    name="runbookd.migration.active",
    kind=Kind.GAUGE,
    unit="{run}",
    description="1 while a migration run is running or under watch after its end",
    attributes=(),
)
MIGRATION_MISMATCHES = MetricSpec(
    name="runbookd.migration.mismatched.documents",
    kind=Kind.GAUGE,
    unit="{document}",
    description="Documents of the current run whose stored bytes differ from what the migration wrote",
    attributes=("collection",),
)
MIGRATION_CHECKED = MetricSpec(
    name="runbookd.migration.checked.documents",
    kind=Kind.GAUGE,
    unit="{document}",
    description="Documents of the current run read back and compared with what the migration wrote",
    attributes=("collection",),
)
BASELINE_LATENCY = MetricSpec(
    name="runbookd.baseline.query.latency",
    kind=Kind.GAUGE,
    unit="s",
    description="p95 latency of a query in the window before the current migration run started",
    attributes=("query",),
)
MAINTENANCE_MODE = MetricSpec(
    name="runbookd.maintenance.mode",
    kind=Kind.GAUGE,
    unit="{mode}",
    description="1 while _config/maintenance says enabled",
)

# --- the agent's own health ---------------------------------------------------------------------------------------

RULE_TICK_DURATION = MetricSpec(
    name="runbookd.rule.tick.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    description="Time one pass over all rule groups that are due takes",
    buckets=LATENCY_BUCKETS,
)
RULE_TICK_LAG = MetricSpec(
    name="runbookd.rule.tick.lag",
    kind=Kind.HISTOGRAM,
    unit="s",
    description="How much later than planned a pass over the rules started",
    buckets=LATENCY_BUCKETS,
)
RULE_TICKS_MISSED = MetricSpec(
    name="runbookd.rule.ticks.missed",
    kind=Kind.COUNTER,
    unit="{tick}",
    description="Passes over the rules that were skipped because the one before took too long",
)
RULE_LAST_TICK = MetricSpec(
    name="runbookd.rule.last.tick.timestamp",
    kind=Kind.GAUGE,
    unit="s",
    description="When the last pass over the rules ended, in unix seconds",
)
RULES_UNSEEN = MetricSpec(
    name="runbookd.rules.unseen",
    kind=Kind.GAUGE,
    unit="{rule}",
    description="Alert rules that could not be judged at their last evaluation, by sight: no_data, blind or error",
    attributes=("sight",),
)
CLOCK_JUMPS = MetricSpec(
    name="runbookd.clock.jumps",
    kind=Kind.COUNTER,
    unit="{jump}",
    description="Times the wall clock was put forward (a suspended machine, too) or back by more than two seconds",
    attributes=("direction",),
)
RULE_FAILURES = MetricSpec(
    name="runbookd.rule.evaluation.failures",
    kind=Kind.COUNTER,
    unit="{evaluation}",
    description="Rule evaluations that ended in an error",
    attributes=("rule",),
)
SIGNAL_AGE = MetricSpec(
    name="runbookd.signal.age",
    kind=Kind.GAUGE,
    unit="s",
    description="Seconds since a source last delivered samples",
    attributes=("source",),
)
SCRAPE_UP = MetricSpec(
    name="up",
    kind=Kind.GAUGE,
    unit="",
    description="1 if the target's last scrape succeeded",
    attributes=("job", "instance"),
)
PROBE_SUCCESS = MetricSpec(
    name="runbookd.probe.success",
    kind=Kind.GAUGE,
    unit="",
    description="1 if the probe's last run succeeded",
    attributes=("probe",),
)
NOTIFICATIONS = MetricSpec(
    name="runbookd.notifications",
    kind=Kind.COUNTER,
    unit="{notification}",
    description="Deliveries attempted, by channel and outcome (delivered, retried, failed)",
    attributes=("channel", "outcome"),
)
OUTBOX_PENDING = MetricSpec(
    name="runbookd.outbox.pending",
    kind=Kind.GAUGE,
    unit="{notification}",
    description="Notifications written down and not yet delivered",
    attributes=("channel",),
)
DECISIONS = MetricSpec(
    name="runbookd.decisions",
    kind=Kind.COUNTER,
    unit="{decision}",
    description="Decisions taken, by matrix row and verdict",
    attributes=("condition", "verdict"),
)
RECOVERY_STEP_DURATION = MetricSpec(
    name="runbookd.recovery.step.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    description="Duration of the steps of a recovery",
    attributes=("step", "outcome"),
    buckets=OPERATION_BUCKETS,
)
RECOVERY_ACTIVE = MetricSpec(
    name="runbookd.recovery.active",
    kind=Kind.GAUGE,
    unit="{recovery}",
    description="1 while a recovery is running, 2 while one is stuck and waits for a person",
)
BUILD_INFO = MetricSpec(
    name="runbookd.build.info",
    kind=Kind.GAUGE,
    unit="",
    description="Always 1; the version is a label",
    attributes=("version",),
)

CATALOGUE: tuple[MetricSpec, ...] = tuple(value for value in list(globals().values()) if isinstance(value, MetricSpec))


def by_prometheus_name(name: str) -> MetricSpec | None:
    """The metric whose samples carry ``name`` (``_bucket``, ``_sum`` and ``_count`` included), if there is one."""
    return _BY_SERIES.get(name)


_BY_SERIES = {series: spec for spec in CATALOGUE for series in spec.series_names}
