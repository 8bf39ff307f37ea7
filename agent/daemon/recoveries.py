"""Carrying decisions out: a rollback in a thread of its own, words about it to people, its end in the journal."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from agent.daemon.observer import Observer
from agent.decisions import Decision, Decisions, Outcome, Verdict, duration, note_of
from agent.faults import RunbookdError
from agent.notifications import Notifier, Urgency
from agent.recovery import Recovery, RecoveryRunner, RecoveryState, StepRecord
from agent.recovery.journal import RecoveryJournal

_log = logging.getLogger(__name__)

Spawn = Callable[[Callable[[], object], str], threading.Thread]
"""Lets work go on beside the caller's, under a name."""


def in_a_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """A daemon thread, started."""
    thread = threading.Thread(target=work, daemon=True, name=name)
    thread.start()
    return thread


class Recoveries:
    """Starts, resumes and reports recoveries.

    The runner is set after construction (:meth:`use`), because the runner reports to this object.
    """

    def __init__(
        self,
        *,
        decisions: Decisions,
        notifier: Notifier,
        journal: RecoveryJournal,
        observer: Observer,
        beside: Spawn = in_a_thread,
    ) -> None:
        self._decisions = decisions
        self._notifier = notifier
        self._journal = journal
        self._observer = observer
        self._beside = beside
        self._runner: RecoveryRunner | None = None
        self._thread: threading.Thread | None = None
        self._incidents: dict[str, str] = {}

    def use(self, runner: RecoveryRunner) -> None:
        self._runner = runner

    def current(self) -> str:
        """Id of the recovery that is running or stuck, ``""`` if none."""
        latest = self._journal.latest()
        return latest.id if latest is not None and latest.state is not RecoveryState.DONE else ""

    def handle(self, decision: Decision) -> None:
        """Do what a new decision asks for; it is in the journal already."""
        self._observer.decided(decision)
        if decision.verdict is Verdict.ROLLBACK:
            self._start(decision)
            return
        note = note_of(decision)
        if note is not None:
            self._notifier.note(note.condition, note.text, _urgency(decision), note.details, trace_id=decision.trace_id)

    def resume(self) -> None:
        """After a start: finish the recovery that was cut off, or begin one that was decided and not begun."""
        runner = self._required()
        left = self._journal.unfinished()
        if left is not None:
            self._spawn(lambda: runner.run(left), f"resume-{left.id}")
            return
        for decision in self._decisions.outstanding():
            known = self._journal.of_decision(decision.id)
            if known is None:
                self._start(decision)
                return
            if known.state is RecoveryState.DONE:
                self._decisions.conclude(decision.id, Outcome.DONE)

    def retry(self, recovery: Recovery) -> None:
        """A person says that a stuck recovery may go on."""
        runner = self._required()
        self._spawn(lambda: runner.retry(recovery), f"retry-{recovery.id}")

    def wait(self, timeout: float) -> bool:
        """Wait for the recovery under way; False if it is still at work."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def heard(self, recovery: Recovery, step: StepRecord | None) -> None:
        """The runner's listener."""
        self._observer.recovering(recovery, step)
        if step is not None:
            return
        condition = self._incidents.get(recovery.id) or self._incident_of(recovery)
        match recovery.state:
            case RecoveryState.RUNNING:
                budget = f"{recovery.budget:g} s" if recovery.budget is not None else "none"
                self._notifier.recovery_started(
                    recovery.id, f"Rolling back run {recovery.run_id}", {"budget": budget}, condition=condition
                )
            case RecoveryState.DONE:
                self._decisions.conclude(recovery.decision_id, Outcome.DONE)
                self._notifier.recovery_ended(
                    recovery.id,
                    f"Rollback of run {recovery.run_id} done: {_summary(recovery)}",
                    {step.title: step.detail for step in recovery.steps},
                    condition=condition,
                )
            case RecoveryState.STUCK:
                self._notifier.recovery_stuck(
                    recovery.id,
                    f"Rollback of run {recovery.run_id} is stuck: {recovery.problem}",
                    {"recovery": recovery.id, "go on with": "runbookd rollback"},
                    condition=condition,
                )

    # --- inside -----------------------------------------------------------------------------------------------

    def _start(self, decision: Decision) -> None:
        runner = self._required()
        try:
            recovery = runner.begin(
                decision_id=decision.id,
                run_id=decision.run_id,
                condition=decision.condition,
                budget=decision.budget,
            )
        except RunbookdError as error:
            _log.error("a rollback could not begin", extra={"decision": decision.id, "why": str(error)})
            self._notifier.note(decision.incident, f"The rollback could not begin: {error}", Urgency.CRITICAL)
            return
        self._incidents[recovery.id] = decision.incident
        if recovery.state is RecoveryState.RUNNING:
            self._spawn(lambda: runner.run(recovery), recovery.id)

    def _spawn(self, work: Callable[[], object], name: str) -> None:
        def run() -> None:
            try:
                work()
            except Exception:  # noqa: BLE001 - the journal has the state; the log gets the bug
                _log.exception("a recovery ended unexpectedly")

        self._thread = self._beside(run, name)

    def _incident_of(self, recovery: Recovery) -> str:
        try:
            return self._decisions.journal.find(recovery.decision_id).decision.incident
        except RunbookdError:
            return recovery.condition

    def _required(self) -> RecoveryRunner:
        if self._runner is None:
            raise RuntimeError("Recoveries.use() comes first")
        return self._runner


def _summary(recovery: Recovery) -> str:
    documents = recovery.counts.get("documents", 0)
    kept = recovery.counts.get("kept", 0)
    took = f" in {duration(recovery.finished_at - recovery.started_at)}" if recovery.finished_at else ""
    text = f"{documents:,} documents put back{took}"
    return f"{text}, {kept:,} kept because others changed them since" if kept else text


def _urgency(decision: Decision) -> Urgency:
    """A decision that waits for a person calls one; one that only says what the page says does not."""
    return Urgency.CRITICAL if decision.verdict in (Verdict.NEEDS_APPROVAL, Verdict.INCONCLUSIVE) else Urgency.WARNING
