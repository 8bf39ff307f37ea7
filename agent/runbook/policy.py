"""The policy: what a runbook page says, typed, frozen and in base units.

Every other room reads these values and none reads Markdown. Two pages that say the same in other words are equal:
line numbers, titles and prose take no part in comparison, figures and names do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import time, timedelta
from enum import StrEnum

from agent.runbook.quantities import Quantity


class ChannelKind(StrEnum):
    """Where a notice goes."""

    SLACK = "slack"
    PAGERDUTY = "pagerduty"
    EMAIL = "email"


class Severity(StrEnum):
    """How bad a condition of the decision matrix is."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Action(StrEnum):
    """What the decision matrix says to do."""

    IMMEDIATE_ROLLBACK = "immediate_rollback"
    QUICK_ROLLBACK = "quick_rollback"
    FIX_FORWARD = "fix_forward"


class BackupType(StrEnum):
    """The kinds of backup that the page schedules."""

    SNAPSHOT = "snapshot"
    INCREMENTAL = "incremental"
    FULL = "full"


class Frequency(StrEnum):
    """How often a backup is taken."""

    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"

    @property
    def period(self) -> timedelta:
        """Time from one backup to the next."""
        return _PERIODS[self]


_PERIODS = {
    Frequency.HOURLY: timedelta(hours=1),
    Frequency.DAILY: timedelta(days=1),
    Frequency.WEEKLY: timedelta(weeks=1),
}


class StorageKind(StrEnum):
    """Where a backup is kept."""

    LOCAL = "local"
    GCS = "gcs"
    ARCHIVE = "archive"


class Priority(StrEnum):
    """What a collection means to the business, as the migration order has it."""

    CRITICAL = "critical"
    REQUIRED = "required"
    CORE = "core"
    IMPORTANT = "important"
    REGENERABLE = "regenerable"


class Operation(StrEnum):
    """What a step of a procedure does, read from its command."""

    MAINTENANCE_ON = "maintenance_on"
    MAINTENANCE_OFF = "maintenance_off"
    CREATE_BACKUP = "create_backup"
    CHOOSE_BACKUP = "choose_backup"
    RESTORE_DATA = "restore_data"
    RESTORE_COLLECTION = "restore_collection"
    CLEAN_BACKUPS = "clean_backups"
    MIGRATE = "migrate"
    WATCH_MIGRATION = "watch_migration"
    VALIDATE = "validate"
    MEASURE_QUERIES = "measure_queries"
    CLEAR_CACHES = "clear_caches"
    WARM_CACHES = "warm_caches"
    CHECK_HEALTH = "check_health"


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """The database as the page knows it; times are those measured for a whole migration and its rollback."""

    documents: int
    size_bytes: float
    collections: int
    migration_time_seconds: float
    rollback_time_seconds: float


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A row of the key-metrics table."""

    metric: str
    title: str = field(compare=False)
    warning: Quantity
    critical: Quantity
    channels: tuple[ChannelKind, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class MatrixRow:
    """A row of the decision matrix.

    Args:
        threshold: the quantity in the issue's own words (">5% error rate"), None where it has none.
        budget: time from decision to recovery, None for "N/A".
        manual: the page says that a person watches this; no rule does.
    """

    condition: str
    title: str = field(compare=False)
    threshold: Quantity | None
    severity: Severity
    action: Action
    budget: timedelta | None
    manual: bool = field(default=False, compare=False)
    line: int = field(default=0, compare=False)

    @property
    def rolls_back(self) -> bool:
        """Whether what it says to do is to go back."""
        return self.action is not Action.FIX_FORWARD


@dataclass(frozen=True, kw_only=True)
class BackupPlan:
    """A row of the backup schedule."""

    type: BackupType
    every: Frequency
    retention: timedelta
    storage: tuple[StorageKind, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class CollectionPlan:
    """A collection in the order in which it is migrated; ``documents`` is None where it is transient."""

    position: int
    collection: str
    documents: int | None
    priority: Priority
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class QueryTarget:
    """A query with its latency as last measured and its target, in seconds."""

    query: str
    title: str = field(compare=False)
    current: float
    target: float
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class EscalationStep:
    """Who is called, in order of level; ``response`` is 0 for "Immediate"."""

    level: int
    role: str
    agent: str = field(default="", compare=False)
    note: str = field(default="", compare=False)
    response: timedelta
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Addresses of the channels; an empty text where the page has none."""

    slack: str = ""
    pagerduty: str = ""
    email: str = ""
    status_page: str = ""
    hotline: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A numbered step of a procedure.

    Args:
        operation: what its command does; None where the page's reader need not know (responses, troubleshooting).
        budget: the time the page gives it, None where it gives none.
    """

    title: str = field(compare=False)
    operation: Operation | None
    budget: timedelta | None
    commands: tuple[str, ...] = field(default=(), compare=False)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class EmergencyStep:
    """A step of the emergency sequence; each has an operation and a budget."""

    title: str = field(compare=False)
    operation: Operation
    budget: timedelta
    commands: tuple[str, ...] = field(default=(), compare=False)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class DeploymentStage:
    """A stage of deployment day; ``duration`` is None where the page gives none."""

    at: time
    title: str = field(compare=False)
    duration: timedelta | None
    steps: tuple[Step, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class RecoveryScenario:
    """What to do about lost or damaged data, and how long it may take."""

    scenario: str
    title: str = field(compare=False)
    budget: timedelta
    steps: tuple[Step, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class ChecklistItem:
    """Something to tick off; ``at`` only on deployment day."""

    at: time | None
    text: str = field(compare=False)
    done: bool = field(default=False, compare=False)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class Checklist:
    """A list to tick off: ``phase`` is the slug of its chapter, ``name`` that of its own heading."""

    phase: str
    name: str
    title: str = field(compare=False)
    items: tuple[ChecklistItem, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class HealthEndpoint:
    """An HTTP address that says how things are: ``name`` is the slug of the path's last part."""

    name: str
    method: str
    path: str
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class IndexField:
    """A field of a composite index: ``order`` is ASCENDING or DESCENDING."""

    path: str
    order: str


@dataclass(frozen=True, kw_only=True)
class Index:
    """A composite index that the page's queries need: ``scope`` is COLLECTION or COLLECTION_GROUP."""

    collection: str
    scope: str
    fields: tuple[IndexField, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class ConnectionPool:
    """How the page wants clients to keep their connections."""

    max_idle_channels: int
    max_channels: int
    keep_alive_time: timedelta
    keep_alive_timeout: timedelta


@dataclass(frozen=True, kw_only=True)
class Maintenance:
    """The document that stops traffic, and what users are told meanwhile."""

    document: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Figures that the page's commands and lists carry.

    Args:
        batch_size: documents a batch on deployment day.
        reduced_batch_size: documents a batch when memory is short, with ``memory_bytes`` as the ceiling then.
        quiet_period: time without a critical alert after which the day counts as done.
        restore_within: the recovery time that was promised before the day.
    """

    batch_size: int | None = None
    reduced_batch_size: int | None = None
    memory_bytes: float | None = None
    quiet_period: timedelta | None = None
    restore_within: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class EnvironmentVariable:
    """A variable that the page sets for production."""

    name: str
    value: str
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class Response:
    """What to do when an alert fires: ``anchor`` is where alerts link to."""

    name: str
    title: str
    anchor: str
    steps: tuple[Step, ...]
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Issue:
    """A known problem: how it looks and what helps."""

    issue: str
    title: str = field(compare=False)
    symptoms: str = field(compare=False)
    steps: tuple[Step, ...] = field(default=(), compare=False)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A whole page.

    Args:
        emergency_budget: the time to complete that the emergency sequence states.
        stuck_after: a migration without progress for longer is stuck.
        health_url: the application's own health address, empty where the page names none.
        anchors: every fragment that a link into the page may have.
        repaired_lines: lines whose damaged encoding was mended while reading.
    """

    source: str = field(compare=False)
    title: str = field(compare=False)
    statistics: Statistics
    migration_order: tuple[CollectionPlan, ...]
    deployment: tuple[DeploymentStage, ...]
    checklists: tuple[Checklist, ...]
    backups: tuple[BackupPlan, ...]
    recovery_scenarios: tuple[RecoveryScenario, ...]
    matrix: tuple[MatrixRow, ...]
    emergency: tuple[EmergencyStep, ...]
    emergency_budget: timedelta
    indexes: tuple[Index, ...]
    query_targets: tuple[QueryTarget, ...]
    connection_pool: ConnectionPool | None
    thresholds: tuple[Threshold, ...]
    health_endpoints: tuple[HealthEndpoint, ...]
    health_url: str
    responses: tuple[Response, ...] = field(compare=False)
    issues: tuple[Issue, ...]
    stuck_after: timedelta
    escalation: tuple[EscalationStep, ...]
    channels: Channels
    maintenance: Maintenance
    environment: tuple[EnvironmentVariable, ...] = field(compare=False)
    limits: Limits
    anchors: frozenset[str] = field(compare=False)
    repaired_lines: tuple[int, ...] = field(default=(), compare=False)

    def threshold(self, metric: str) -> Threshold | None:
        """The thresholds of a metric, by slug."""
        return next((row for row in self.thresholds if row.metric == metric), None)

    def row(self, condition: str) -> MatrixRow | None:
        """The row of the decision matrix for a condition, by slug."""
        return next((row for row in self.matrix if row.condition == condition), None)

    def backup(self, kind: BackupType) -> BackupPlan | None:
        """The schedule of a kind of backup."""
        return next((plan for plan in self.backups if plan.type is kind), None)

    def query(self, query: str) -> QueryTarget | None:
        """The target of a query, by slug."""
        return next((target for target in self.query_targets if target.query == query), None)

    def collection(self, name: str) -> CollectionPlan | None:
        """A collection's place in the migration order."""
        return next((plan for plan in self.migration_order if plan.collection == name), None)

    def scenario(self, name: str) -> RecoveryScenario | None:
        """A recovery scenario, by slug."""
        return next((scenario for scenario in self.recovery_scenarios if scenario.scenario == name), None)

    def emergency_step(self, operation: Operation) -> EmergencyStep | None:
        """The emergency sequence's step that does ``operation``."""
        return next((step for step in self.emergency if step.operation is operation), None)

    @property
    def migrated_collections(self) -> tuple[str, ...]:
        """Collections that a migration moves, in order; transient ones are left out."""
        return tuple(plan.collection for plan in self.migration_order if plan.documents is not None)
