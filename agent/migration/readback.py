"""Validation while the run is going: a sample of every batch is read back and compared with what was meant.

Reading happens in a thread of its own, so that a database that answers slowly (perhaps because of what the migration
does to it) does not hold the writes up; what it finds goes to two gauges by collection. Whether a mismatch stops the
run is for rules and decisions to say, not for the run.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from agent.faults import RunbookdError
from agent.firestore import RawDocument
from agent.migration.changes import is_as_meant
from agent.migration.database import Database
from agent.migration.journal import Action, Intent
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import MIGRATION_CHECKED, MIGRATION_MISMATCHES

_BACKLOG = 64
_NAMES_KEPT = 100

Item = TypeVar("Item")


class Written(NamedTuple):
    """A write that was applied.

    Args:
        intent: what was meant.
        update_time: of the write in ns.
    """

    intent: Intent
    collection: str
    update_time: int

    @property
    def name(self) -> str:
        """Full name."""
        return self.intent.name


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What reading back has found in one collection."""

    checked: int = 0
    mismatched: int = 0


def sample(written: Sequence[Item], share: float, draw: random.Random) -> list[Item]:
    """About ``share`` of ``written``, at least one (none of nothing)."""
    if not written:
        return []
    return draw.sample(written, min(len(written), max(1, round(len(written) * share))))


def compare(database: Database, written: Sequence[Written]) -> tuple[list[Written], list[Written]]:
    """Read documents back.

    Returns:
        Those that could be judged, and those of them that are not as they were written. A document that somebody has
        written since belongs to neither.
    """
    return judge(database.get([item.name for item in written]), written)


def judge(found: Mapping[str, RawDocument | None], written: Sequence[Written]) -> tuple[list[Written], list[Written]]:
    """:func:`compare` with documents that have been read."""
    judged: list[Written] = []
    wrong: list[Written] = []
    for item in written:
        current = found[item.name]
        expected = 0 if item.intent.action is Action.DELETE else item.update_time
        if (current.update_time if current else 0) != expected:
            continue
        judged.append(item)
        if not is_as_meant(item.intent, current):
            wrong.append(item)
    return judged, wrong


class ReadBack:
    """The thread that reads samples back; a context manager.

    Args:
        collections: ids for which the gauges stand at 0 from the start, or with what an earlier session had found.
    """

    def __init__(self, *, database: Database, telemetry: Telemetry, collections: Mapping[str, Checked]) -> None:
        self._database = database
        self._telemetry = telemetry
        self._found = dict(collections)
        self._lock = threading.Lock()
        self._queue: queue.Queue[list[Written] | None] = queue.Queue(maxsize=_BACKLOG)
        self._thread = threading.Thread(target=self._work, name="read-back", daemon=True)
        self.mismatched: list[str] = []
        self.skipped = 0
        for collection in self._found:
            self._publish(collection)

    def offer(self, written: list[Written]) -> None:
        """Have these checked; skipped (and counted) if the database is too far behind."""
        try:
            if written:
                self._queue.put_nowait(written)
        except queue.Full:
            self.skipped += len(written)

    def found(self, collection: str) -> Checked:
        """What has been found so far in ``collection``."""
        with self._lock:
            return self._found.get(collection, Checked())

    def __enter__(self) -> ReadBack:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (written := self._queue.get()) is not None:
            try:
                judged, wrong = compare(self._database, written)
            except RunbookdError:
                # Not being able to read is the business of the error-rate rules; here it proves nothing.
                self.skipped += len(written)
                continue
            with self._lock:
                for item in judged:
                    before = self._found.get(item.collection, Checked())
                    self._found[item.collection] = Checked(
                        checked=before.checked + 1, mismatched=before.mismatched + (item in wrong)
                    )
                self.mismatched.extend(item.name for item in wrong[: _NAMES_KEPT - len(self.mismatched)])
            for collection in {item.collection for item in judged}:
                self._publish(collection)

    def _publish(self, collection: str) -> None:
        found = self.found(collection)
        self._telemetry.set(MIGRATION_CHECKED, found.checked, {"collection": collection})
        self._telemetry.set(MIGRATION_MISMATCHES, found.mismatched, {"collection": collection})
