"""One pass: the rules are judged, people are told, decisions are taken, and rollbacks begun.

The daemon calls it after it has looked at the world; rehearsals (rule journeys, backtests) call the same with a world
that a script or a recording dictates.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from agent.alerting import Alert, RuleEvaluator, SilenceBook, TickResult
from agent.daemon.observer import Observer
from agent.daemon.recoveries import Recoveries
from agent.decisions import ChangeState, ChangeUnderWatch, Decisions, Evidence, Verdict
from agent.notifications import Heartbeat, Notifier


class Gatherer(Protocol):
    """Where evidence comes from."""

    def gather(self, alerts: Sequence[Alert], change: ChangeUnderWatch | None, now: datetime) -> Evidence:
        """Everything known at ``now`` about the alerts that belong to rows of the matrix."""


class Judgement:
    """From samples to what is done about them.

    Args:
        heartbeat: told of each pass; ``None`` where no dead-man's switch is configured.
    """

    def __init__(
        self,
        *,
        rules: RuleEvaluator,
        silences: SilenceBook,
        notifier: Notifier,
        evidence: Gatherer,
        decisions: Decisions,
        recoveries: Recoveries,
        observer: Observer,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self._rules = rules
        self._silences = silences
        self._notifier = notifier
        self._evidence = evidence
        self._decisions = decisions
        self._recoveries = recoveries
        self._observer = observer
        self._heartbeat = heartbeat
        self._announced: tuple[str, str] | None = None

    def pass_over(self, change: ChangeUnderWatch | None, now: datetime) -> TickResult:
        """Judge, tell, decide; ``change`` is the migration run under watch."""
        self._announce(change)
        everything = self._rules.tick(now)
        if self._heartbeat is not None:
            self._heartbeat.ticked(everything.watched)
        result = everything.calling()
        self._end_silences(now)
        self._notifier.alerts_changed(result.changes, result.active, now)
        self._observer.ticked(result)
        self._decide(result, change, now)
        return everything

    def _end_silences(self, now: datetime) -> None:
        for silence in self._silences.ended(now):
            how = f"was ended by {silence.ended_by}" if silence.ended_by else "has run out"
            self._notifier.change(
                f"silence-{silence.id}", f"The silence of {silence.owner} on {silence.wording} {how}; alerts call again"
            )
            self._silences.said(silence)

    def _decide(self, result: TickResult, change: ChangeUnderWatch | None, now: datetime) -> None:
        for hold in self._decisions.expired_holds():
            self._notifier.change(
                f"hold-{hold.id}", f"The hold of {hold.owner} has run out; the automation may act again"
            )
        decisions = self._decisions.consider(self._evidence.gather(result.active, change, now))
        # The rollback first: words to people are written to disk and must not cost it a moment.
        for decision in sorted(decisions, key=lambda decision: decision.verdict is not Verdict.ROLLBACK):
            self._recoveries.handle(decision)

    def _announce(self, change: ChangeUnderWatch | None) -> None:
        """Tell the channels that a migration started or ended, so that an incident can be seen beside it."""
        if change is None:
            return
        seen = (change.run_id, str(change.state))
        if seen == self._announced:
            return
        first = self._announced is None
        self._announced = seen
        if first and change.state is not ChangeState.RUNNING:
            return  # known from before this process started
        self._notifier.change(
            change.run_id,
            f"Migration {change.revision}: {change.state}",
            {"run": change.run_id, "collections": ", ".join(change.collections)},
        )
