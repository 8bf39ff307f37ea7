"""Following the daemon: what it reports becomes lines of the timeline, and facts that the verdict checks."""

from __future__ import annotations

import threading
from collections.abc import Callable

from agent.alerting import Alert, AlertState, TickResult
from agent.daemon.observer import Observer
from agent.decisions import Decision, Verdict
from agent.demo.timeline import Timeline
from agent.notifications import DeliveryState, Kind, Notifier
from agent.recovery import Recovery, RecoveryState, StepRecord, StepState
from agent.runbook import ChannelKind, Policy
from agent.telemetry import Progress

_DELIVERED = {Kind.TRIGGER: "Paged:", Kind.RESOLVE: "Resolved:"}
_CHANNELS = {ChannelKind.PAGERDUTY: "PagerDuty", ChannelKind.SLACK: "Slack", ChannelKind.EMAIL: "e-mail to"}
_FIRED = (AlertState.FIRING, AlertState.RECOVERING)


class Narrator(Observer):
    """Turns the daemon's reports into lines; its waits are how the story knows where it is.

    Args:
        on_progress: told of every worker's progress, after the bar has moved.
    """

    def __init__(self, timeline: Timeline, policy: Policy, on_progress: Callable[[Progress], None]) -> None:
        self._timeline = timeline
        self._policy = policy
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._told: dict[str, AlertState] = {}
        self._changed = threading.Condition(self._lock)
        self.fault_at: float | None = None
        self.fired: list[tuple[float, Alert]] = []
        self.firing: dict[str, Alert] = {}
        self.decisions: list[tuple[float, Decision]] = []
        self.recovery: Recovery | None = None
        self._notifier: Notifier | None = None
        self._delivered: set[tuple[int, str, str, str]] = set()
        self._paged: set[tuple[str, ChannelKind]] = set()
        self._resolved: set[tuple[str, ChannelKind]] = set()

    def watch(self, notifier: Notifier) -> None:
        """Also tell what reaches people."""
        self._notifier = notifier

    # --- reports ----------------------------------------------------------------------------------------------

    def progressed(self, progress: Progress) -> None:
        self._timeline.progress(progress)
        self._on_progress(progress)

    def ticked(self, result: TickResult) -> None:
        active = {alert.fingerprint: alert for alert in result.active if alert.state in _FIRED}
        with self._changed:
            for fingerprint, alert in active.items():
                if fingerprint not in self.firing:
                    self.fired.append((self._timeline.clock, alert))
                    self._tell_fired(alert)
            for fingerprint, alert in self.firing.items():
                if fingerprint not in active:
                    self._timeline.add(f"{_name(alert)} is over", mark="good", level=1)
            self.firing = active
            self._tell_deliveries()
            self._changed.notify_all()

    def decided(self, decision: Decision) -> None:
        with self._changed:
            self.decisions.append((self._timeline.clock, decision))
            self._tell_decision(decision)
            self._changed.notify_all()

    def recovering(self, recovery: Recovery, step: StepRecord | None) -> None:
        with self._changed:
            self.recovery = recovery
            if step is not None and step.state in (StepState.DONE, StepState.FAILED):
                self._tell_step(step)
            if step is None and recovery.state is not RecoveryState.RUNNING:
                self._tell_recovery(recovery)
            self._changed.notify_all()

    # --- waiting ----------------------------------------------------------------------------------------------

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``condition`` holds; it is asked again after every report and every half second."""
        deadline = self._timeline.now() + timeout
        with self._changed:
            while not condition():
                left = deadline - self._timeline.now()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.5))
            return True

    @property
    def recovered(self) -> bool:
        """The recovery has ended, well or not."""
        return self.recovery is not None and self.recovery.state is not RecoveryState.RUNNING

    @property
    def quiet(self) -> bool:
        """No alert fires."""
        return not self.firing

    def settled(self, incident: str) -> bool:
        """Everybody who was paged about ``incident`` has heard that it is over."""
        paged = {pair for pair in self._paged if pair[0] == incident}
        return bool(paged) and paged <= self._resolved

    # --- lines ------------------------------------------------------------------------------------------------

    def _tell_fired(self, alert: Alert) -> None:
        since = f", {self._timeline.clock - self.fault_at:.1f} s after the fault" if self.fault_at is not None else ""
        summary = alert.annotations.get("summary", "")
        main = alert.labels.get("matrix")
        self._timeline.add(
            f"{_name(alert)} fires{since}", summary, mark="bad" if main else "news", level=0 if main else 1
        )

    def _tell_deliveries(self) -> None:
        for delivery in self._notifier.deliveries() if self._notifier is not None else ():
            key = (delivery.incident, delivery.condition, str(delivery.channel), f"{delivery.kind} {delivery.sequence}")
            words = _DELIVERED.get(delivery.kind)
            if words is None or delivery.state is not DeliveryState.DELIVERED or key in self._delivered:
                continue
            self._delivered.add(key)
            (self._resolved if delivery.kind is Kind.RESOLVE else self._paged).add(
                (delivery.condition, delivery.channel)
            )
            latency = delivery.latency
            self._timeline.add(
                f"{words} {_CHANNELS[delivery.channel]} {delivery.target}",
                delivery.title,
                seconds=latency.total_seconds() if latency is not None else None,
                level=1,
            )

    def _tell_decision(self, decision: Decision) -> None:
        row = self._policy.row(decision.condition)
        title = row.title if row is not None else decision.condition
        if decision.verdict is Verdict.ROLLBACK:
            pace = f"{decision.pace} rollback".capitalize() if decision.pace else "Rollback"
            self._timeline.add(
                f"Decision: {pace}", f"matrix row {title!r}: " + "; ".join(decision.reasons[:2]), mark="news"
            )
        else:
            self._timeline.add(
                f"Decision: {decision.verdict}", decision.reasons[0] if decision.reasons else "", level=1
            )

    def _tell_step(self, step: StepRecord) -> None:
        self._timeline.add(
            step.title,
            step.detail,
            seconds=step.seconds,
            budget=step.budget,
            level=1,
            mark="bad" if step.state is StepState.FAILED or step.over_budget else "",
        )
        if step.name == "restore_data":
            self._timeline.clear("undo")

    def _tell_recovery(self, recovery: Recovery) -> None:
        good = recovery.state is RecoveryState.DONE
        kept = recovery.counts.get("kept", 0)
        detail = f"{recovery.counts.get('documents', 0):,} documents undone, {kept:,} kept because users changed them"
        self._timeline.add(
            "Rollback done" if good else "Rollback is stuck",
            detail if good else recovery.problem,
            seconds=recovery.seconds,
            budget=recovery.budget,
            mark="good" if good else "bad",
        )


def _name(alert: Alert) -> str:
    """An alert's name, with what tells it from its siblings."""
    severity = "" if alert.labels.get("matrix") else f" ({alert.labels.get('severity', '')})"
    query = alert.labels.get("query")
    return f"{alert.rule}{severity}{f' ({query})' if query else ''}"
