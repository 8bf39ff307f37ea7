"""Gathering what a decision rests on, after each pass over the rules; nothing here waits for the network.

Probes run in their own threads and their last results are read here; backups are looked up when a run comes under
watch and then remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from agent.alerting import Alert
from agent.daemon.assembly import NewestBackup
from agent.daemon.change import ChangeWatch
from agent.daemon.probes import DATABASE
from agent.decisions import ChangeUnderWatch, Evidence, Probe, RestoreCertificate
from agent.migration import RunRecord, Runs
from agent.promql import Engine, Vector, compile_expression
from agent.runbook import Operation, Policy
from agent.signals import ProbeRunner

# The application's operations; the agent's own only where no application is seen at all.
_TRAFFIC = compile_expression(
    'sum(increase(db_client_operation_duration_seconds_count{db_query_summary!=""}[1m])) '
    "or sum(increase(db_client_operation_duration_seconds_count[1m]))"
)


def operations_seen(engine: Engine, now: datetime) -> float | None:
    """How many operations the last minute had, as a ratio's basis; ``None`` if there are no samples of any."""
    value = engine.instant(_TRAFFIC, now.timestamp())
    if isinstance(value, Vector) and value.elements:
        return value.elements[0].value
    return None


class EvidenceGatherer:
    """Puts :class:`agent.decisions.Evidence` together.

    Args:
        newest_backup: the newest verified backup from before a moment.
        recovery: id of the recovery that is running or stuck, ``""`` if none.
        maintenance: the flag as last read, ``None`` if it could not be.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        engine: Engine,
        probes: ProbeRunner,
        watch: ChangeWatch,
        runs: Runs,
        newest_backup: NewestBackup,
        recovery: Callable[[], str],
        maintenance: Callable[[], bool | None],
    ) -> None:
        self._policy = policy
        self._engine = engine
        self._probes = probes
        self._watch = watch
        self._runs = runs
        self._newest_backup = newest_backup
        self._recovery = recovery
        self._maintenance = maintenance
        self._backups: dict[str, tuple[str, datetime] | None] = {}

    def gather(self, alerts: Sequence[Alert], change: ChangeUnderWatch | None, now: datetime) -> Evidence:
        """Everything known at ``now`` about the alerts that belong to rows of the matrix."""
        concerned = tuple(alert for alert in alerts if alert.labels.get("matrix"))
        if not concerned:
            return Evidence(change=change)
        return Evidence(
            alerts=concerned,
            change=change,
            restore=self._certificate(change),
            operations=operations_seen(self._engine, now),
            baseline=self._watch.has_baseline,
            probe=self._verdict(),
            recovery=self._recovery(),
            maintenance=self._maintenance(),
        )

    def _verdict(self) -> Probe:
        """Our own reads: all is silent, or some fail, or (too few to deny anything) none does."""
        problems = self._probes.problems()
        if DATABASE in problems:
            return Probe.UNREACHABLE
        return Probe.CONFIRMS if problems else Probe.UNKNOWN

    def _certificate(self, change: ChangeUnderWatch | None) -> RestoreCertificate:
        if change is None:
            return RestoreCertificate()
        if change.run_id not in self._backups:
            self._backups[change.run_id] = self._newest_backup(change.started_at)
        backup = self._backups[change.run_id]
        record = self._watch.record
        return RestoreCertificate(
            backup_id=backup[0] if backup else "",
            backup_at=backup[1] if backup else None,
            journal=self._runs.journal(change.run_id).is_dir(),
            undo_estimate=undo_estimate(record) if record else None,
            steps_estimate=steps_estimate(self._policy()),
        )


def undo_estimate(record: RunRecord) -> timedelta | None:
    """How long taking the run back would take at the rate at which it wrote.

    An undo writes the same documents with the same writer and without the run's ceiling, so the run's own rate is the
    cautious figure.
    """
    written = record.counts.written
    if not written or record.seconds <= 0:
        return None
    return timedelta(seconds=record.seconds)


def steps_estimate(policy: Policy) -> timedelta:
    """Time the page gives to the steps around putting documents back."""
    return sum((step.budget for step in policy.emergency if step.operation is not Operation.RESTORE_DATA), timedelta())
