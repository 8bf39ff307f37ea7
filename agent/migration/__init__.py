"""migration: changing every document, and taking it back.

Belongs here: what a migration file is (definition), what it would do and whether it may (plan, dry run), doing it
(run, checkpoints, validation), the undo journal, undoing, run records, reports. Does not belong here: how bytes travel
(firestore), backups (storage, backup), when a rollback is right (decisions) and what surrounds it (recovery).

What a migration file imports: :class:`Document`, :data:`DELETE`.
"""

from agent.migration.definition import Definition, find_definition, load_definition, load_definitions
from agent.migration.document import DELETE, Change, Deletion, Document, Transformed
from agent.migration.dryrun import DryRunFindings
from agent.migration.facade import (
    DryRunReport,
    Listed,
    Migrations,
    Preconditions,
    RunbookPolicy,
    RunReport,
    RunStatus,
    UndoReport,
)
from agent.migration.journal import Counts, SetAside
from agent.migration.plan import Gate, Plan, RestorePoint
from agent.migration.run import RunFindings, RunSettings
from agent.migration.runs import CollectionProgress, RunRecord, Runs, RunState, to_json
from agent.migration.undo import UndoFindings, UndoSettings

__all__ = [
    "DELETE",
    "Change",
    "CollectionProgress",
    "Counts",
    "Definition",
    "Deletion",
    "Document",
    "DryRunFindings",
    "DryRunReport",
    "Gate",
    "Listed",
    "Migrations",
    "Plan",
    "Preconditions",
    "RestorePoint",
    "RunFindings",
    "RunRecord",
    "RunReport",
    "RunSettings",
    "RunState",
    "RunStatus",
    "RunbookPolicy",
    "Runs",
    "SetAside",
    "Transformed",
    "UndoFindings",
    "UndoReport",
    "UndoSettings",
    "find_definition",
    "load_definition",
    "load_definitions",
    "to_json",
]
