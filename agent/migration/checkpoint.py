"""How far a collection is settled, although its chunks are finished in any order; and what a resume starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.firestore.names import sort_key
from agent.migration.database import Database
from agent.migration.journal import Action, Counts, Intent, JournalWriter, Result, State
from agent.migration.replay import Replay, read_intents
from agent.migration.settlement import settle

_SETTLED_AT_ONCE = 300


class Watermark:
    """Advances over the finished chunks of one range, in order. Not thread-safe; the run holds its lock."""

    def __init__(self, scan_range: int, journal: JournalWriter) -> None:
        self._range = scan_range
        self._journal = journal
        self._next = 0
        self._waiting: dict[int, tuple[str, Counts]] = {}

    def finished(self, chunk: int, last_name: str, counts: Counts) -> None:
        """Chunk number ``chunk`` (from 0, in name order) is settled up to ``last_name``."""
        self._waiting[chunk] = (last_name, counts)
        passed = Counts()
        last = ""
        while self._next in self._waiting:
            last, more = self._waiting.pop(self._next)
            passed += more
            self._next += 1
        if last:
            self._journal.done(self._range, last, passed)


@dataclass(frozen=True, kw_only=True)
class Remainder:
    """What earlier sessions of a run have left.

    Args:
        after: by range, the full name behind which documents are still to be done.
        done: full names behind those marks that are done already.
        created: full names of documents that the run has created.
    """

    after: dict[int, str] = field(default_factory=dict)
    done: frozenset[str] = frozenset()
    created: frozenset[str] = frozenset()


def remainder(told: Replay) -> Remainder:
    """What is left to do according to a journal in which every intent is settled."""
    done: set[str] = set()
    created: set[str] = set()
    for place in told.frames:
        applied = [told.states[sequence] == State.APPLIED for sequence in place.sequences]
        mark = told.finished.get(place.scan_range, "")
        behind = not mark or sort_key(place.last_name) > sort_key(mark)
        if not any(applied):
            continue
        # Frames before the mark are unpacked for the sake of created documents alone; few migrations create any.
        for intent, was_applied in zip(read_intents(place), applied, strict=True):
            if was_applied and intent.action is Action.CREATE:
                created.add(intent.name)
            elif was_applied and behind:
                done.add(intent.name)
    return Remainder(after=dict(told.finished), done=frozenset(done), created=frozenset(created))


def settle_unknown(told: Replay, database: Database, journal: JournalWriter) -> int:
    """Find out about every intent whose outcome is not in the journal, and write it there.

    Returns:
        How many there were.
    """
    unknown: list[tuple[int, Intent]] = []
    for place in told.frames:
        open_ = [sequence for sequence in place.sequences if told.states[sequence] == State.UNKNOWN]
        if open_:
            intents = read_intents(place)
            unknown.extend((sequence, intents[sequence - place.first_sequence]) for sequence in open_)
    for start in range(0, len(unknown), _SETTLED_AT_ONCE):
        part = unknown[start : start + _SETTLED_AT_ONCE]
        _note(told, journal, part, database)
    journal.sync()
    return len(unknown)


def _note(told: Replay, journal: JournalWriter, part: Sequence[tuple[int, Intent]], database: Database) -> None:
    found = settle(database, [intent for _, intent in part])
    results = [
        Result(sequence, settlement.state, settlement.update_time)
        for (sequence, _), settlement in zip(part, found, strict=True)
    ]
    journal.results(results)
    for result in results:
        told.note(result)
