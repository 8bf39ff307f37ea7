"""What a person reads at three in the morning: pure, from values to words.

The first line says what is wrong and how bad, the second what runbookd does about it or what the reader should do.
Then the figures, and where the runbook speaks of them. No exclamation marks, nothing that has to be decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.alerting import Alert
from agent.decisions import blindness, duration, figure, moment
from agent.notifications.channel import Kind, Message, Notification, Urgency, urgency_of
from agent.notifications.incidents import Incident, audible, severity_of
from agent.runbook import Action, Comparator, Policy, Quantity

# Labels that say how an alert is handled, not what it is about.
_HANDLING = frozenset({"severity", "metric", "matrix", "condition", "alertname", "__name__"})

_COMPARED = {
    Comparator.ABOVE: "above",
    Comparator.AT_LEAST: "at or above",
    Comparator.BELOW: "below",
    Comparator.AT_MOST: "at or below",
}


@dataclass(frozen=True, kw_only=True)
class Composer:
    """Puts incidents into words.

    Args:
        policy: the runbook.
        source: the database, as people call it.
        status_url: runbookd's own status page, ``""`` if it has none that others can reach.
        trace_url: address of a trace with ``{trace_id}`` in it, ``""`` if there is none.
    """

    policy: Policy
    source: str
    status_url: str = ""
    trace_url: str = ""

    def firing(self, alerts: Sequence[Alert], now: datetime) -> Message:
        """A trigger: ``alerts`` are those of one condition that fire now."""
        lead = _lead(alerts)
        return Message(
            title=f"{self._what(lead)} on {self.source}",
            action=self._action(lead),
            severity=severity_of(alerts),
            facts=self._facts(lead, alerts, now),
            links=self._links(lead),
            trace_id=lead.trace_id,
        )

    def still_firing(self, incident: Incident, alerts: Sequence[Alert], reason: str, now: datetime) -> Message:
        """An update: why it is sent comes second, the figures are today's."""
        message = self.firing(alerts, now)
        return Message(
            title=message.title,
            action=f"{_sentence(reason)} {message.action}",
            severity=max(incident.severity, message.severity, key=lambda urgency: urgency.rank),
            facts=(("Going on for", duration(now - incident.opened_at)), *message.facts),
            links=message.links,
            trace_id=message.trace_id or incident.trace_id,
        )

    def note(self, title: str, text: str, severity: Urgency, details: Mapping[str, str], trace_id: str) -> Message:
        """News on an incident: what the automation decided, did or could not do."""
        return Message(
            title=title,
            action=text,
            severity=severity,
            facts=tuple((_label(name), value) for name, value in details.items() if value),
            links=self._own_links(trace_id),
            trace_id=trace_id,
        )

    def resolved(self, incident: Incident, now: datetime) -> Message:
        """How long it lasted and what cured it."""
        lasted = duration(now - incident.opened_at)
        return Message(
            title=f"{incident.title}: over after {lasted}",
            action=incident.cure or "It went away without runbookd changing anything.",
            severity=incident.severity,
            facts=(
                ("Lasted", lasted),
                ("From", moment(incident.opened_at)),
                ("To", moment(now)),
                ("Highest severity", str(incident.severity)),
            ),
            links=self._own_links(incident.trace_id),
            trace_id=incident.trace_id,
        )

    def not_delivered(self, failed: Notification, target: str, error: str, *, final: bool) -> Message:
        """Tells one channel that another one didn't get something."""
        outcome = "could not be told" if final else "has not been reached so far"
        action = (
            "Close the incident there by hand."
            if final and failed.kind is Kind.RESOLVE
            else "Call the person on duty if this matters; runbookd tells this channel instead."
            if final
            else "runbookd keeps trying. Call the person on duty if this matters."
        )
        return Message(
            title=f"{failed.channel} ({target}) {outcome}: {failed.message.title}",
            action=action,
            severity=failed.message.severity,
            facts=(("Why", error), ("What", f"{failed.kind} of incident {failed.incident}"), *failed.message.facts),
            links=failed.message.links,
            trace_id=failed.message.trace_id,
        )

    # --- parts ------------------------------------------------------------------------------------------------------

    def _what(self, alert: Alert) -> str:
        limit = self._limit(alert)
        if limit is None:
            return alert.annotations.get("summary") or self._name(alert)
        value = figure(alert.value, limit.unit)
        compared = _COMPARED.get(limit.comparator)
        if compared is None:
            return f"{self._name(alert)}: {value} (limit {limit.text})"
        return f"{self._name(alert)} {value}, {compared} {_bare(limit)}"

    def _name(self, alert: Alert) -> str:
        threshold = self.policy.threshold(alert.labels.get("metric", ""))
        if threshold is not None:
            return threshold.title
        slug = alert.labels.get("matrix") or alert.labels.get("condition") or alert.rule
        return slug.replace("_", " ").capitalize()

    def _limit(self, alert: Alert) -> Quantity | None:
        threshold = self.policy.threshold(alert.labels.get("metric", ""))
        if threshold is not None:
            critical = urgency_of(alert.labels.get("severity", "")) is Urgency.CRITICAL
            return threshold.critical if critical else threshold.warning
        row = self.policy.row(alert.labels.get("matrix", ""))
        return row.threshold if row is not None else None

    def _action(self, alert: Alert) -> str:
        row = self.policy.row(alert.labels.get("matrix", ""))
        if row is None:
            return "runbookd changes nothing at this level; follow the runbook."
        budget = f" within {duration(row.budget)}" if row.budget else ""
        match row.action:
            case Action.FIX_FORWARD:
                return f"The runbook says: fix forward{budget}. runbookd rolls nothing back for this."
            case _:
                return (
                    f"runbookd rolls the migration under watch back{budget} if the evidence allows it; "
                    "what it decides is said here."
                )

    def _facts(self, lead: Alert, alerts: Sequence[Alert], now: datetime) -> tuple[tuple[str, str], ...]:
        facts: list[tuple[str, str]] = []
        limit = self._limit(lead)
        if limit is not None:
            facts.append(("Measured", figure(lead.value, limit.unit)))
            facts.append(("Runbook's limit", limit.text))
        facts.append(("Since", f"{moment(lead.active_since)} ({duration(now - lead.active_since)} ago)"))
        about = ", ".join(f"{name}={value}" for name, value in sorted(lead.labels.items()) if name not in _HANDLING)
        if about:
            facts.append(("About", about))
        others = sorted({alert.rule for alert in audible(alerts)} - {lead.rule})
        if others:
            facts.append(("Also firing", ", ".join(others)))
        blind = next((alert for alert in alerts if alert.blind), None)
        if blind is not None:
            facts.append(("Blind", f"{blind.rule} has {blindness(blind.blind)}; its last state is kept"))
        if description := lead.annotations.get("description"):
            facts.append(("Description", description))
        row = self.policy.row(lead.labels.get("matrix", ""))
        if row is not None and row.budget:
            facts.append(("Time budget", duration(row.budget)))
        if runbook := lead.annotations.get("runbook_url"):
            facts.append(("Runbook", runbook))
        if escalation := self._escalation():
            facts.append(("Escalation", escalation))
        if lead.trace_id:
            facts.append(("Trace", lead.trace_id))
        return tuple(facts)

    def _escalation(self) -> str:
        steps = sorted(self.policy.escalation, key=lambda step: step.level)
        return ", then ".join(
            f"{step.role} ({'within ' + duration(step.response) if step.response else 'at once'})" for step in steps
        )

    def _links(self, alert: Alert) -> tuple[tuple[str, str], ...]:
        runbook = alert.annotations.get("runbook_url", "")
        links = (("Runbook", runbook),) if runbook.startswith(("http://", "https://")) else ()
        return (*links, *self._own_links(alert.trace_id))

    def _own_links(self, trace_id: str) -> tuple[tuple[str, str], ...]:
        links: list[tuple[str, str]] = []
        if self.trace_url and trace_id:
            links.append(("Trace", self.trace_url.replace("{trace_id}", trace_id)))
        if self.status_url:
            links.append(("runbookd", self.status_url))
        page = self.policy.channels.status_page
        if page:
            links.append(("Status page", page if "://" in page else f"https://{page}"))
        return tuple(links)


def headline(notification: Notification) -> str:
    """The title with what it is in front, for channels that have no field for severity: ``CRITICAL: ...``."""
    match notification.kind:
        case Kind.RESOLVE:
            return f"RESOLVED: {notification.message.title}"
        case Kind.CHANGE:
            return notification.message.title
        case Kind.UPDATE:
            return f"UPDATE ({notification.message.severity}): {notification.message.title}"
        case Kind.TRIGGER:
            return f"{notification.message.severity.upper()}: {notification.message.title}"


def _lead(alerts: Sequence[Alert]) -> Alert:
    """The alert that an incident is told by: of the loudest, one that the matrix decides on, then the oldest."""
    return min(audible(alerts), key=lambda alert: ("matrix" not in alert.labels, alert.active_since, alert.fingerprint))


def _bare(limit: Quantity) -> str:
    """The limit without its comparator, as the page wrote it where it did."""
    return limit.text.lstrip("<>=~ ≥≤≈") or figure(limit.value, limit.unit)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _label(name: str) -> str:
    return f"{name[:1].upper()}{name[1:]}"
