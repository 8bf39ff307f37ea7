"""A migration run that broke something ten minutes after its start, and all that makes rolling it back right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agent.alerting import Alert, AlertState
from agent.decisions import ChangeState, ChangeUnderWatch, Evidence, Probe, RestoreCertificate

START = datetime(2026, 3, 5, 8, 0, tzinfo=UTC)
ONSET = START + timedelta(minutes=10)
NOW = ONSET + timedelta(seconds=20)

CHANGE = ChangeUnderWatch(
    run_id="r1",
    revision="0001_schema_v2",
    state=ChangeState.RUNNING,
    started_at=START,
    collections=("users", "lessons"),
)
RESTORE = RestoreCertificate(
    backup_id="backup-full-20260305-070000",
    backup_at=START - timedelta(hours=1),
    journal=True,
    undo_estimate=timedelta(seconds=40),
    restore_estimate=timedelta(minutes=10),
    steps_estimate=timedelta(seconds=20),
)


def matrix_alert(
    row: str = "error_rate",
    *,
    value: float = 0.08,
    since: datetime = ONSET,
    state: AlertState = AlertState.FIRING,
    blind: str = "",
    **labels: str,
) -> Alert:
    """An alert of the decision matrix."""
    return Alert(
        fingerprint=f"{row}-{sorted(labels.items())}",
        rule=f"Matrix_{row}",
        labels={"severity": "critical", "matrix": row, "condition": row, **labels},
        annotations={},
        state=state,
        value=value,
        active_since=since,
        fired_at=since,
        resolved_at=None,
        trace_id="0af7651916cd43dd8448eb211c80319c",
        blind=blind,
    )


# Evidence on which every guard agrees with a rollback.
CLEAR = Evidence(
    alerts=(matrix_alert(),),
    change=CHANGE,
    restore=RESTORE,
    operations=5000,
    baseline=True,
    probe=Probe.CONFIRMS,
    maintenance=False,
)
