"""Who is at work on a backup: small records beside it that keep it from being cleaned away.

A lease names its process so exactly that, on the same machine, a dead one is recognised at once; on another machine
it ends at its expiry. So ``kill -9`` leaves none behind that blocks anything.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.backup.manifest import seal, unseal
from agent.clock import rfc3339
from agent.faults import Permanent, PermanentReason

LEASE_PREFIX = "lease-"
_FOR = timedelta(minutes=70)  # longer than any create; a longer restore renews it


@dataclass(frozen=True, kw_only=True)
class Lease:
    """One process's claim on one backup.

    Args:
        purpose: ``create``, ``verify``, ``restore`` or ``export``.
        target: for a restore, the database it writes to.
        machine: hostname, boot and process namespace of the holder.
        process: pid and start time of the holder.
        token: tells this lease from every other.
        since, expires_at: when it was taken, and when nobody honours it any more.
    """

    purpose: str
    machine: str
    process: str
    token: str
    since: datetime
    expires_at: datetime
    target: str = ""

    @property
    def file(self) -> str:
        """Its name within the backup."""
        return f"{LEASE_PREFIX}{self.purpose}-{self.token}.json"

    def to_bytes(self) -> bytes:
        body = asdict(self)
        body["since"] = rfc3339(self.since)
        body["expires_at"] = rfc3339(self.expires_at)
        return seal(body)


def new_lease(purpose: str, now: datetime, target: str = "") -> Lease:
    """A lease of this process, not yet written anywhere."""
    return Lease(
        purpose=purpose,
        target=target,
        machine=this_machine(),
        process=process_identity(os.getpid()) or f"{os.getpid()}",
        token=secrets.token_hex(8),
        since=now,
        expires_at=now + _FOR,
    )


def read_lease(data: bytes, file: str) -> Lease:
    """The lease in ``data``.

    Raises:
        Permanent: ``CORRUPT``.
    """
    body = unseal(data, file)
    del body["sha256"]
    try:
        for name in ("since", "expires_at"):
            body[name] = datetime.fromisoformat(body[name]).astimezone(UTC)
        return Lease(**body)
    except (KeyError, TypeError, ValueError) as error:
        raise Permanent(PermanentReason.CORRUPT, f"{file} is not a lease ({error})") from error


def is_living(lease: Lease, now: datetime, identity: Callable[[int], str | None] | None = None) -> bool:
    """Whether the holder may still be at work.

    Args:
        lease: the lease.
        now: the present.
        identity: pid to the identity of the process that has it now, ``None`` if there is none.
    """
    if now >= lease.expires_at:
        return False
    if lease.machine != this_machine():
        return True
    pid = int(lease.process.partition("@")[0])
    return (identity or process_identity)(pid) == lease.process


def process_identity(pid: int) -> str | None:
    """``pid@starttime``, which no later process shares; ``None`` if there is no such process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = status.rpartition(")")[2].split()
    if state in {"Z", "X"}:
        return None  # killed, and not yet collected by its parent
    return f"{pid}@{rest[18]}"  # field 22 of proc(5): the start time in clock ticks since boot


def this_machine() -> str:
    """Where a pid means what it means here: host, boot and process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        boot, namespace = "", Path()
    return f"{socket.gethostname()}/{boot}/{namespace}"
