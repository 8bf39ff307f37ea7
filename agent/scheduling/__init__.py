"""scheduling: when operations run, and the processes they run in.

Belongs here: jobs derived from the runbook's schedule (the sole importer of apscheduler), misfires, worker processes
with their pipe, heartbeats, stuck detection. Does not belong here: what an operation does (backup, migration), which
operations exist (daemon wiring hands them in) and what a failed one means (rules).
"""

from agent.scheduling.jobs import RESTORE_DRILL, JobPlan, drill_plan, job_plans
from agent.scheduling.lock import ChangeLock
from agent.scheduling.scheduler import Scheduler
from agent.scheduling.supervisor import Outcome, Running, Supervisor, worker_environment
from agent.scheduling.worker import Assignment, Operation, OperationContext, serve

__all__ = [
    "RESTORE_DRILL",
    "Assignment",
    "ChangeLock",
    "JobPlan",
    "Operation",
    "OperationContext",
    "Outcome",
    "Running",
    "Scheduler",
    "Supervisor",
    "drill_plan",
    "job_plans",
    "serve",
    "worker_environment",
]
