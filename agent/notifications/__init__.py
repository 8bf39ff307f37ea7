"""notifications: telling people, for certain and once.

Belongs here: incidents (which alerts are one thing to a person), what a message says, which channels the runbook
sends it to, the outbox on disk with its receipts, and one page for each vendor. Does not belong here: whether an alert
fires (alerting), what is done about it (decisions, recovery), and who is on duty (the vendors know).
"""

from agent.notifications.channel import Channel, Kind, Message, Notification, Receipt, Urgency
from agent.notifications.delivery import Delivery
from agent.notifications.email import EmailChannel
from agent.notifications.heartbeat import Heartbeat
from agent.notifications.incidents import Action, Incident, needs_update
from agent.notifications.message import Composer, headline
from agent.notifications.notifier import RECOVERY, Notifier
from agent.notifications.outbox import DeliveryState, Outbox, OutboxEntry, RetryPlan
from agent.notifications.pagerduty import PagerDutyChannel
from agent.notifications.routing import Route, problems, route
from agent.notifications.slack import SlackChannel

__all__ = [
    "RECOVERY",
    "Action",
    "Channel",
    "Composer",
    "Delivery",
    "DeliveryState",
    "EmailChannel",
    "Heartbeat",
    "Incident",
    "Kind",
    "Message",
    "Notification",
    "Notifier",
    "Outbox",
    "OutboxEntry",
    "PagerDutyChannel",
    "Receipt",
    "RetryPlan",
    "Route",
    "SlackChannel",
    "Urgency",
    "headline",
    "needs_update",
    "problems",
    "route",
]
