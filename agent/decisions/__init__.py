"""decisions: whether to roll back, and why.

Belongs here: the evidence a decision rests on, the pure function from the runbook's matrix and that evidence to a
verdict with its reasons, the restraint that people and limits put on it (holds, approvals, aborts, cooldown, daily
limit), and the journal in which every decision stands before its effect. Does not belong here: gathering evidence
(daemon), doing anything about a decision (recovery) and telling people (notifications; :func:`note_of` says what).
"""

from agent.decisions.automation import AutomationStatus, Decisions
from agent.decisions.decide import decide, decide_each
from agent.decisions.decision import Decision, Guard, Means, Note, Pace, Verdict, note_of
from agent.decisions.evidence import ChangeState, ChangeUnderWatch, Evidence, Probe, RestoreCertificate
from agent.decisions.guards import approver
from agent.decisions.journal import DecisionJournal, JournalEntry, Outcome
from agent.decisions.restraint import Abort, Approval, Hold, Limits, PastRollback, Restraint, RestraintBook
from agent.decisions.wording import blindness, duration, figure, moment

__all__ = [
    "Abort",
    "Approval",
    "AutomationStatus",
    "ChangeState",
    "ChangeUnderWatch",
    "Decision",
    "DecisionJournal",
    "Decisions",
    "Evidence",
    "Guard",
    "Hold",
    "JournalEntry",
    "Limits",
    "Means",
    "Note",
    "Outcome",
    "Pace",
    "PastRollback",
    "Probe",
    "RestoreCertificate",
    "Restraint",
    "RestraintBook",
    "Verdict",
    "approver",
    "blindness",
    "decide",
    "decide_each",
    "duration",
    "figure",
    "moment",
    "note_of",
]
