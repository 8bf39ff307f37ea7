"""The database's own record of its revisions: ``_migrations/{revision}``.

Written before a run's first write and at its end, so that a machine that has never seen the run knows that the
revision ran here, with which file, and how it ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agent.faults import Permanent, PermanentReason
from agent.firestore import PlannedWrite, Timestamp, WriteState, decode_fields, encode_fields
from agent.migration.database import Database

COLLECTION = "_migrations"


@dataclass(frozen=True, kw_only=True)
class Revision:
    """What the database says about one revision.

    Args:
        state: of the latest run, as in :class:`agent.migration.runs.RunState`.
        run: its id.
        checksum: of the file that ran.
        host: the machine that ran it.
    """

    revision: str
    name: str
    checksum: str
    state: str
    run: str
    host: str
    changed: datetime


def read_revision(database: Database, revision: str) -> Revision | None:
    """The record, or ``None`` if the revision never ran here.

    Raises:
        Permanent: CORRUPT if there is a document that is none of ours.
    """
    name = database.address.name(COLLECTION, revision)
    found = database.get([name])[name]
    if found is None:
        return None
    fields = decode_fields(found.raw)
    try:
        return Revision(
            revision=revision,
            name=str(fields["name"]),
            checksum=str(fields["checksum"]),
            state=str(fields["state"]),
            run=str(fields["run"]),
            host=str(fields["host"]),
            changed=fields["changed"].datetime(),
        )
    except (KeyError, AttributeError) as error:
        raise Permanent(
            PermanentReason.CORRUPT,
            f"{COLLECTION}/{revision} is not a record of runbookd ({error})",
            hint="move that document away, then plan again",
        ) from error


def write_revision(database: Database, revision: Revision) -> None:
    """Replace the record.

    Raises:
        Permanent: INTERNAL if the database does not take it.
    """
    fields = encode_fields(
        {
            "name": revision.name,
            "checksum": revision.checksum,
            "state": revision.state,
            "run": revision.run,
            "host": revision.host,
            "changed": Timestamp.of(revision.changed),
        }
    )
    write = PlannedWrite(name=database.address.name(COLLECTION, revision.revision), fields=fields)
    for outcome in database.write([write], origin="control", parallel=1):
        if outcome.state is not WriteState.APPLIED:
            raise Permanent(
                PermanentReason.INTERNAL, f"{COLLECTION}/{revision.revision} can't be written: {outcome.message}"
            )
