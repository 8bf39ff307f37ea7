"""sandbox: a Firestore to try things on.

Belongs here: the embedded Firestore server (gRPC ``google.firestore.v1`` on SQLite, a process of its own), the first
user's database as a generated dataset, a proxy that injects faults in front of any Firestore, an application that
makes traffic, and receivers that check what pages and mails look like. Used by the demo, drills, deep verification
and tests. Does not belong here: anything that production needs; the product reaches all of it through the same
addresses and protocols as the real services, and nothing outside may tell the difference by importing from here.
"""

from agent.sandbox.companions import (
    APPLICATION_CALLER,
    ApplicationProcess,
    ApplicationStats,
    ProxyProcess,
    start_application,
    start_proxy,
)
from agent.sandbox.injection import Direction, Fault, FaultKind, ProxyStats
from agent.sandbox.mail import Mail, MailReceiver
from agent.sandbox.process import SandboxProcess, start_sandbox
from agent.sandbox.receivers import Fate, PagerDutyEvent, PagerDutyReceiver, SlackPost, SlackReceiver
from agent.sandbox.seeding import SeedReport, seed
from agent.sandbox.server import SandboxServer

__all__ = [
    "APPLICATION_CALLER",
    "ApplicationProcess",
    "ApplicationStats",
    "Direction",
    "Fate",
    "Fault",
    "FaultKind",
    "Mail",
    "MailReceiver",
    "PagerDutyEvent",
    "PagerDutyReceiver",
    "ProxyProcess",
    "ProxyStats",
    "SandboxProcess",
    "SandboxServer",
    "SeedReport",
    "SlackPost",
    "SlackReceiver",
    "seed",
    "start_application",
    "start_proxy",
    "start_sandbox",
]
