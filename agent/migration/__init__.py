"""migration: changing every document, and taking it back.

Belongs here: what the database holds before one (census), what a migration file is (definition), what it would do and
whether it may (plan, dry run), doing it (run, checkpoints, validation), the undo journal, undoing, run records,
reports. Does not belong here: how bytes travel (firestore), backups (storage, backup), when a rollback is right
(decisions) and what surrounds it (recovery).

What a migration file imports: :class:`Document`, :data:`DELETE`.
"""

from agent.migration.census import Census, Expected, GroupCensus, take_census
from agent.migration.chronicle import Entry, Event
from agent.migration.definition import Definition, find_definition, load_definition, load_definitions
from agent.migration.document import DELETE, Change, Deletion, Document, Transformed
from agent.migration.dryrun import DryRunFindings
from agent.migration.facade import Migrations
from agent.migration.facts import Preconditions, QueryCheck, RestorePoint, RunbookPolicy
from agent.migration.gates import Gate
from agent.migration.journal import Counts, SetAside
from agent.migration.outcomes import DryRunReport, Listed, RunReport, RunStatus, UndoReport, ValidationReport
from agent.migration.plan import Plan
from agent.migration.putback import BackupSource, Restored
from agent.migration.rescue import in_reach
from agent.migration.run import RunFindings, RunSettings
from agent.migration.runs import CollectionProgress, RunRecord, Runs, RunState, to_json
from agent.migration.throttle import Band, Load, LoadLimits
from agent.migration.undo import UndoFindings, UndoSettings
from agent.migration.validation import ValidatedCollection
from agent.migration.vitals import LoadFile

__all__ = [
    "DELETE",
    "BackupSource",
    "Band",
    "Census",
    "Change",
    "CollectionProgress",
    "Counts",
    "Definition",
    "Deletion",
    "Document",
    "DryRunFindings",
    "DryRunReport",
    "Entry",
    "Event",
    "Expected",
    "Gate",
    "GroupCensus",
    "Listed",
    "Load",
    "LoadFile",
    "LoadLimits",
    "Migrations",
    "Plan",
    "Preconditions",
    "QueryCheck",
    "RestorePoint",
    "Restored",
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
    "ValidatedCollection",
    "ValidationReport",
    "find_definition",
    "in_reach",
    "load_definition",
    "load_definitions",
    "take_census",
    "to_json",
]
