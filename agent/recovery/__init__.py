"""recovery: the rollback, as a saga that survives the death of its process.

Belongs here: the page's emergency sequence as persisted steps with budgets, retries and verification; clearing
caches; asking the application's health address. Does not belong here: whether to roll back (decisions), how documents
are undone or restored (migration, backup: they come in through :class:`Actions`) and whom to tell (notifications).
"""

from agent.recovery.caches import clear_caches
from agent.recovery.health import HealthReport, check_health_url
from agent.recovery.journal import RecoveryJournal
from agent.recovery.runner import Actions, RecoveryListener, RecoveryRunner
from agent.recovery.saga import (
    Recovery,
    RecoveryState,
    RestorePoint,
    StepRecord,
    StepState,
    planned,
)

__all__ = [
    "Actions",
    "HealthReport",
    "Recovery",
    "RecoveryJournal",
    "RecoveryListener",
    "RecoveryRunner",
    "RecoveryState",
    "RestorePoint",
    "StepRecord",
    "StepState",
    "check_health_url",
    "clear_caches",
    "planned",
]
