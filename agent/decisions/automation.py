"""The room's facade: considers evidence, writes decisions down, and takes people's words.

The daemon calls :meth:`Decisions.consider` after each pass over the rules and carries out what it returns; recovery
asks :meth:`Decisions.stop_requested` between its steps and reports with :meth:`Decisions.conclude`; the command line
and the control endpoints use the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from agent.clock import Clock
from agent.decisions.decide import decide_each
from agent.decisions.decision import Decision
from agent.decisions.evidence import Evidence
from agent.decisions.guards import approver
from agent.decisions.journal import DecisionJournal, JournalEntry, Outcome
from agent.decisions.restraint import Abort, Approval, Hold, Limits, Restraint, RestraintBook
from agent.faults import Permanent, PermanentReason
from agent.runbook import Policy
from agent.state import StateFile
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import DECISIONS

_HOLD = timedelta(hours=1)
_APPROVAL = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class AutomationStatus:
    """What ``automation status`` shows.

    Args:
        hold: the hold in force, None if the automation may act.
        waiting: decisions that wait for an approval.
        outstanding: rollbacks decided and not concluded.
        rollbacks_today: rollbacks decided within 24 hours, of ``limits.daily_limit``.
        approver: the role that the runbook names for major decisions.
        recent: the newest journal entries, oldest first.
    """

    hold: Hold | None
    waiting: tuple[Decision, ...]
    outstanding: tuple[Decision, ...]
    rollbacks_today: int
    limits: Limits
    approver: str
    recent: tuple[JournalEntry, ...]


class Decisions:
    """Decides, within restraint, and remembers.

    Args:
        policy: the runbook.
        state: where decisions and restraint are kept; the daemon and the command line share it.
        limits: figures of the guards.
    """

    def __init__(
        self, *, policy: Policy, state: StateFile, clock: Clock, telemetry: Telemetry, limits: Limits | None = None
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._telemetry = telemetry
        self._limits = limits or Limits()
        self._journal = DecisionJournal(state)
        self._book = RestraintBook(state)

    @property
    def journal(self) -> DecisionJournal:
        return self._journal

    def replace_policy(self, policy: Policy) -> None:
        """Decide by another edition of the runbook from now on."""
        self._policy = policy

    def consider(self, evidence: Evidence) -> tuple[Decision, ...]:
        """Decide on ``evidence`` and write down what is new.

        Returns:
            new decisions only, in the matrix's order; each is on disk already. At most one is a ROLLBACK; recovery
            is to start it. The others are for people, see :func:`~agent.decisions.decision.note_of`.
        """
        if not evidence.alerts:
            return ()
        now = self._clock.now()
        decisions = decide_each(self._policy.matrix, evidence, self._policy, self.restraint(), now)
        fresh = tuple(decision for decision in decisions if self._journal.record(decision))
        for decision in fresh:
            self._telemetry.add(DECISIONS, 1, {"condition": decision.condition, "verdict": str(decision.verdict)})
        return fresh

    def restraint(self) -> Restraint:
        """All restraint on disk now."""
        return self._book.snapshot(self._limits, self._journal.rollbacks())

    def outstanding(self) -> tuple[Decision, ...]:
        """Rollbacks decided and not concluded; after a restart, recovery starts or goes on with them."""
        return self._journal.outstanding()

    def conclude(self, decision_id: str, outcome: Outcome) -> None:
        """Recovery's report: the rollback has ended."""
        self._journal.conclude(decision_id, outcome, self._clock.now())

    def stop_requested(self, run_id: str) -> str:
        """Why the rollback of ``run_id`` must not go on: an abort or a hold, in words; ``""`` if it may."""
        restraint, now = self.restraint(), self._clock.now()
        if abort := restraint.abort(run_id):
            return f"aborted by {abort.owner}: {abort.reason}"
        if hold := restraint.hold(now):
            return f"held by {hold.owner}: {hold.reason}"
        return ""

    # --- people's words ---------------------------------------------------------------------------------------------

    def status(self) -> AutomationStatus:
        """Where the automation stands."""
        now, restraint = self._clock.now(), self.restraint()
        recent = self._journal.entries()
        return AutomationStatus(
            hold=restraint.hold(now),
            waiting=self._journal.waiting(),
            outstanding=self._journal.outstanding(),
            rollbacks_today=sum(1 for past in restraint.rollbacks if now - past.decided_at < timedelta(hours=24)),
            limits=self._limits,
            approver=approver(self._policy),
            recent=recent,
        )

    def hold(self, *, owner: str, reason: str, lasting: timedelta = _HOLD) -> Hold:
        """Keep the automation from acting for ``lasting``.

        Raises:
            Refused: owner or reason is empty, or ``lasting`` is not positive.
        """
        return self._book.place(owner=owner, reason=reason, now=self._clock.now(), lasting=lasting)

    def release(self, *, owner: str) -> tuple[Hold, ...]:
        """End every hold; returns those that were in force."""
        return self._book.release(owner=owner, now=self._clock.now())

    def expired_holds(self) -> tuple[Hold, ...]:
        """Holds that ran out since the last call: the daemon says so aloud."""
        return self._book.expire(self._clock.now())

    def approve(self, decision_id: str, *, owner: str, lasting: timedelta = _APPROVAL) -> Approval:
        """Approve the full restore that ``decision_id`` waits with; the next pass over the rules acts on it.

        Raises:
            Permanent: there is no such decision, or it doesn't wait for an approval.
            Refused: ``owner`` is empty.
        """
        newest = self._journal.find(decision_id).decision
        decision = next((item for item in self._journal.waiting() if item.id == decision_id), None)
        if decision is None:
            raise Permanent(
                PermanentReason.CONFLICT,
                f"decision {decision_id} is {newest.verdict}; it doesn't wait for an approval",
                hint="runbookd automation status lists those that wait",
            )
        return self._book.approve(
            decision_id=decision_id, run_id=decision.run_id, owner=owner, now=self._clock.now(), lasting=lasting
        )

    def abort(self, decision_id: str, *, owner: str, reason: str) -> Abort:
        """Take the run of ``decision_id`` out of the automation; a rollback under way stops after its current step.

        Raises:
            Permanent: there is no such decision, or it isn't bound to a run.
            Refused: owner or reason is empty.
        """
        decision = self._journal.find(decision_id).decision
        if not decision.run_id:
            raise Permanent(PermanentReason.INVALID, f"decision {decision_id} is not bound to a migration run")
        return self._book.abort(
            decision_id=decision_id, run_id=decision.run_id, owner=owner, reason=reason, now=self._clock.now()
        )
