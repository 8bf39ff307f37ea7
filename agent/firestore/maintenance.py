"""The maintenance flag, ``_config/maintenance``: the document that tells an application to stop its traffic.

Read by applications and by the API, set by the rollback and by ``runbookd maintenance``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agent.faults import Permanent, PermanentReason
from agent.firestore.client import Firestore
from agent.firestore.values import Timestamp, decode_fields, encode_fields
from agent.firestore.writes import PlannedWrite, WriteState

COLLECTION = "_config"
PATH = f"{COLLECTION}/maintenance"


@dataclass(frozen=True, kw_only=True)
class Maintenance:
    """What the flag says.

    Args:
        message: for the application's users.
        since: when it was last turned on or off; ``None`` if never.
        by: who or what did it, e.g. ``recovery r-17`` or a person's name.
    """

    enabled: bool
    message: str = ""
    since: datetime | None = None
    by: str = ""


def read_maintenance(firestore: Firestore) -> Maintenance:
    """The flag as it is now; off if the document isn't there.

    A document written by another tool (the page's ``firebase firestore:write``) may hold ``enabled`` alone.

    Raises:
        RunbookdError: the database couldn't be asked.
    """
    name = firestore.address.name(PATH)
    document = firestore.get([name])[name]
    if document is None:
        return Maintenance(enabled=False)
    fields = decode_fields(document.fields)
    since = fields.get("since")
    return Maintenance(
        enabled=fields.get("enabled") is True,
        message=str(fields.get("message") or ""),
        since=since.datetime() if isinstance(since, Timestamp) else None,
        by=str(fields.get("by") or ""),
    )


def set_maintenance(
    firestore: Firestore, *, enabled: bool, now: datetime, message: str = "", by: str = ""
) -> Maintenance:
    """Turn the flag on or off.

    Raises:
        RunbookdError: the database didn't take it.
    """
    wanted = Maintenance(enabled=enabled, message=message, since=now, by=by)
    fields = encode_fields({"enabled": enabled, "message": message, "since": now, "by": by})
    run = firestore.write([PlannedWrite(name=firestore.address.name(PATH), fields=fields)], origin="control")
    for outcome in run:
        if outcome.state is not WriteState.APPLIED:
            raise Permanent(
                PermanentReason.INTERNAL,
                f"the maintenance flag {PATH} was not set: {outcome.message}",
                hint="set it by hand and stop the traffic",
            )
    return wanted
