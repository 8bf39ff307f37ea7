"""sandbox: a Firestore to try things on.

Belongs here: the embedded Firestore server (gRPC ``google.firestore.v1`` on SQLite, a process of its own), the first
user's database as a generated dataset, a proxy that injects faults in front of any Firestore, an application that
makes traffic, and receivers that check what pages and mails look like. Used by the demo, drills, deep verification
and tests. Does not belong here: anything that production needs; the product reaches all of it through the same
addresses and protocols as the real services, and nothing outside may tell the difference by importing from here.
"""

from agent.sandbox.process import SandboxProcess, start_sandbox
from agent.sandbox.seeding import SeedReport, seed
from agent.sandbox.server import SandboxServer

__all__ = ["SandboxProcess", "SandboxServer", "SeedReport", "seed", "start_sandbox"]
