"""What :class:`agent.migration.facade.Migrations` answers: values for the command line, the daemon and reports."""

from __future__ import annotations

from dataclasses import dataclass

from agent.migration.dryrun import DryRunFindings
from agent.migration.facts import QueryCheck
from agent.migration.plan import Plan
from agent.migration.run import RunFindings
from agent.migration.runs import RunRecord
from agent.migration.undo import UndoFindings
from agent.migration.validation import ValidatedCollection


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A migration and where it stands in this database."""

    name: str
    revision: str
    title: str
    state: str
    run: str


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """A run as it is now.

    Args:
        alive: a process of this machine works on it.
        interrupted: it was being worked on when its process died; resume or undo it.
    """

    record: RunRecord
    alive: bool
    interrupted: bool


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """The end of a run or of a resumed one."""

    record: RunRecord
    findings: RunFindings
    documents_per_second: float

    @property
    def conflicts(self) -> int:
        """Documents for a person to look at: set aside, or not as they were written."""
        return len(self.findings.set_aside) + len(self.findings.mismatched)


@dataclass(frozen=True, kw_only=True)
class DryRunReport:
    """What a run would do."""

    plan: Plan
    findings: DryRunFindings


@dataclass(frozen=True, kw_only=True)
class UndoReport:
    """The end of an undo; with ``findings.kept`` there is something to look at (exit code 4)."""

    record: RunRecord
    findings: UndoFindings
    seconds: float
    documents_per_second: float


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """What a validation found; ``run`` is empty where nothing was compared with a run."""

    name: str
    run: str
    collections: tuple[ValidatedCollection, ...]
    queries: tuple[QueryCheck, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong anywhere."""
        return all(part.passed for part in self.collections) and not any(check.failed for check in self.queries)
