"""The embedded Firestore server as a process that belongs to this one.

A server in the caller's process would share its interpreter lock: loading is then slower by half
(measured), and a stuck caller would stop its own database. Called by the demo, the command line, drills and tests.
"""

from __future__ import annotations

from pathlib import Path

from agent.faults import Misconfigured, MisconfiguredReason
from agent.sandbox.child import Child, ChildHandle


class SandboxProcess(ChildHandle):
    """A running sandbox; a context manager that stops it.

    Attributes:
        host: ``127.0.0.1:port``, what FIRESTORE_EMULATOR_HOST takes.
    """

    def __init__(self, child: Child) -> None:
        super().__init__(child)
        self.host = str(child.ready["host"])

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._child.pid

    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._child.alive()


def start_sandbox(data: Path | None = None, port: int = 0, *, indexes: Path | None = None) -> SandboxProcess:
    """Start a sandbox and wait until it answers.

    Args:
        data: folder that keeps the documents; ``None`` for a database that is gone with the process.
        port: on 127.0.0.1; 0 for any free one.
        indexes: a ``firestore.indexes.json``; with it, queries that production would refuse for want of a
            composite index are refused.

    Raises:
        Misconfigured: PORT_IN_USE, NOT_WRITABLE, or DEFINITION for an index file that can't be read.
        Transient: WORKER_DIED if it doesn't come up.
    """
    arguments = ["--until-eof", "--port", str(port)]
    if data is not None:
        arguments += ["--data", str(data)]
    if indexes is not None:
        arguments += ["--indexes", str(indexes)]
    child = Child("agent.sandbox", arguments, name="sandbox")
    if "error" in child.ready:
        child.stop()
        reason = MisconfiguredReason(child.ready["reason"])
        raise Misconfigured(reason, child.ready["error"], hint=child.ready["hint"])
    return SandboxProcess(child)
