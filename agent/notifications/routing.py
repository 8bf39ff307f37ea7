"""Which channels an incident goes to: pure, by the page's channel column.

Alerts of a threshold go where its row says. Alerts of the decision matrix and runbookd's own go to PagerDuty and to
the war room, and by e-mail only where the page asks for e-mail under the same condition. A channel that the page asks
for and nobody configured is reported by ``runbookd check`` (:func:`problems`) and, while running, replaced by those
that there are: a page never falls on the floor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from agent.alerting import Alert
from agent.notifications.incidents import condition_of
from agent.runbook import ChannelKind, Policy


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where to send.

    Args:
        channels: configured channels, in the order of :class:`ChannelKind`.
        missing: channels that the page asks for and that are not configured.
    """

    channels: tuple[ChannelKind, ...]
    missing: tuple[ChannelKind, ...] = ()


def route(alerts: Iterable[Alert], policy: Policy, configured: Collection[ChannelKind]) -> Route:
    """The union over ``alerts``; if none of it is configured, everything that is."""
    wanted: set[ChannelKind] = set()
    for alert in alerts:
        wanted |= wanted_by(alert, policy)
    return among(wanted or standing_channels(policy), configured)


def among(wanted: Collection[ChannelKind], configured: Collection[ChannelKind]) -> Route:
    """``wanted`` as far as it is configured, else all that is."""
    channels = [kind for kind in ChannelKind if kind in wanted and kind in configured]
    missing = tuple(kind for kind in ChannelKind if kind in wanted and kind not in configured)
    return Route(channels=tuple(channels or (kind for kind in ChannelKind if kind in configured)), missing=missing)


def wanted_by(alert: Alert, policy: Policy) -> set[ChannelKind]:
    """The channels that the page wants ``alert`` to go to."""
    threshold = policy.threshold(alert.labels.get("metric", ""))
    if threshold is not None:
        return set(threshold.channels)
    same = policy.threshold(condition_of(alert))
    by_mail = {ChannelKind.EMAIL} if same is not None and ChannelKind.EMAIL in same.channels else set()
    return standing_channels(policy) | by_mail


def problems(policy: Policy, configured: Collection[ChannelKind]) -> tuple[str, ...]:
    """What ``runbookd check`` says about channels: each one that the page relies on and that can't be reached."""
    users: dict[ChannelKind, list[str]] = {}
    for threshold in policy.thresholds:
        for kind in threshold.channels:
            users.setdefault(kind, []).append(threshold.title)
    for kind in standing_channels(policy):
        users.setdefault(kind, []).append("the decision matrix")
    found = [
        f"the page sends {', '.join(names)} to {_NAMES[kind]}, but it is not configured: set {_SETTING[kind]}"
        for kind, names in users.items()
        if kind not in configured
    ]
    if not configured:
        found.append("no channel is configured: nobody would be told of anything")
    return tuple(found)


def standing_channels(policy: Policy) -> set[ChannelKind]:
    """Channels for what has no row of its own: those for which the page gives an address."""
    named = {ChannelKind.PAGERDUTY} if policy.channels.pagerduty else set()
    if policy.channels.slack:
        named.add(ChannelKind.SLACK)
    return named


_NAMES = {ChannelKind.SLACK: "Slack", ChannelKind.PAGERDUTY: "PagerDuty", ChannelKind.EMAIL: "e-mail"}
_SETTING = {
    ChannelKind.SLACK: "notifications.slack.webhook_url",
    ChannelKind.PAGERDUTY: "notifications.pagerduty.routing_key",
    ChannelKind.EMAIL: "notifications.email.host and .to",
}
