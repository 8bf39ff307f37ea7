"""One chunk of documents, from transform to settled outcome: the unit of work, of journalling and of checkpoints.

The order is what makes it safe: before-images on disk, then the writes under preconditions, then their outcomes. A
document that somebody else wrote meanwhile is read again and transformed again; a write of unknown outcome is settled
by asking the database before anything else happens to its document.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason, Transient, TransientReason
from agent.firestore import RawDocument, WriteState
from agent.migration.changes import Changes, PlannedChange, changes_of
from agent.migration.database import Database
from agent.migration.definition import Definition
from agent.migration.journal import Action, Counts, Intent, JournalWriter, Result, SetAside, State
from agent.migration.pace import Pace
from agent.migration.readback import ReadBack, Written, sample
from agent.migration.settlement import settle

_CONTENDED = "somebody kept writing it while the migration tried to"
_UNCLEAR = "whether its write was applied can't be found out: its versions of that time are no longer readable"


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How chunks are worked on.

    Args:
        sample_share: of the documents of a batch that are read back, at least one.
        attempts: how often one document is transformed before it counts as contended.
        failures: how often in a row a batch may fail as a whole, after the writer's own retries, before the run does.
    """

    sample_share: float = 0.05
    attempts: int = 10
    failures: int = 4


@dataclass(kw_only=True)
class Batches:
    """What the chunks of one run share; several threads migrate chunks at once.

    Args:
        read_back: checks a sample of what was written; ``None``: nothing is read back.
        pace: keeps all chunks together below the run's rate limit.
        created: full names of documents that this run has created, and the document for which it did (empty where
            an earlier session did): nothing is created twice.
        seed: makes the samples of a run repeatable.
    """

    definition: Definition
    database: Database
    journal: JournalWriter
    read_back: ReadBack | None
    settings: BatchSettings
    pace: Pace
    clock: Clock
    created: dict[str, str] = field(default_factory=dict)
    seed: str = ""

    def migrate(
        self, scan_range: int, collection: str, documents: Sequence[RawDocument]
    ) -> tuple[Counts, list[SetAside]]:
        """Migrate one chunk (not empty, in name order) to its end.

        Raises:
            Transient: the database did not take the writes; what is not settled stays so in the journal.
            Permanent: UNBALANCED, DISK_FULL.
        """
        return _Chunk(self, scan_range, collection, documents).run()


@dataclass(kw_only=True)
class _Wave:
    """What became of some writes, by full name.

    Args:
        applied: with the resulting update_time.
        again: not applied; the document as it is now.
        problems: never to be applied, and why.
        failure: what the database answered to the batch as a whole.
    """

    applied: dict[str, int] = field(default_factory=dict)
    again: dict[str, RawDocument | None] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    failure: Transient | None = None


class _Chunk:
    """One chunk on its way."""

    def __init__(self, run: Batches, scan_range: int, collection: str, documents: Sequence[RawDocument]) -> None:
        self._run = run
        self._range = scan_range
        self._collection = collection
        self._documents = documents
        self._last_name = documents[-1].name
        self._touched: set[str] = set()  # documents with at least one applied change
        self._aside: dict[str, str] = {}
        self._unchanged: set[str] = set()
        self._gone: set[str] = set()
        self._written: list[tuple[Intent, int]] = []  # with the update_times of the writes
        self._created_here: set[str] = set()
        self._created = self._conflicts = self._failures = 0

    def run(self) -> tuple[Counts, list[SetAside]]:
        pending: Sequence[RawDocument] = self._documents
        for _ in range(self._run.settings.attempts):
            pending = self._attempt(pending)
            if not pending:
                break
        self._aside.update((raw.name, _CONTENDED) for raw in pending)
        # A document of which a part was applied counts as written, whatever became of the rest.
        counts = Counts(
            scanned=len(self._documents),
            written=len(self._touched - self._aside.keys()),
            unchanged=len(self._unchanged - self._touched),
            gone=len(self._gone - self._touched),
            set_aside=len(self._aside),
            created=self._created,
            conflicts=self._conflicts,
        )
        if not counts.balanced:
            raise Permanent(PermanentReason.UNBALANCED, f"the documents of a chunk don't add up: {counts}")
        aside = [
            SetAside(name=self._run.database.address.relative(name), collection=self._collection, why=why)
            for name, why in self._aside.items()
        ]
        self._run.journal.set_aside(aside)
        self._offer_sample()
        return counts, aside

    def _attempt(self, pending: Sequence[RawDocument]) -> list[RawDocument]:
        """Transform and write once; returns what has to be done again, as it is now."""
        planned: dict[str, Changes] = {}
        for raw in pending:
            changes = changes_of(self._run.definition, raw, self._run.database.address)
            if changes.problem:
                self._aside[raw.name] = changes.problem
            elif changes.empty:
                self._unchanged.add(raw.name)
            else:
                planned[raw.name] = changes
        again: dict[str, RawDocument | None] = {}
        self._create(planned, again)
        owns = {name: changes.own for name, changes in planned.items() if changes.own and name not in again}
        wave = self._send(list(owns.values()))
        for name, change in owns.items():
            if name in wave.applied:
                self._touched.add(name)
                self._written.append((change.intent, wave.applied[name]))
            elif name in wave.problems:
                self._aside[name] = wave.problems[name]
            else:
                again[name] = wave.again[name]
        self._gone.update(name for name, current in again.items() if current is None)
        seen = {raw.name: raw.update_time for raw in pending}
        left = [current for current in again.values() if current is not None]
        self._conflicts += len(again) - sum(current.update_time == seen[current.name] for current in left)
        return left

    def _create(self, planned: dict[str, Changes], again: dict[str, RawDocument | None]) -> None:
        """Create what documents ask for. One whose creation failed leaves ``planned``, or goes to ``again``."""
        wanted: dict[str, PlannedChange] = {}
        problems: dict[str, str] = {}
        for name, changes in planned.items():
            for change in changes.creates:
                target = change.write.name
                creator = self._run.created.setdefault(target, name)
                if creator not in ("", name):
                    problems[name] = f"{self._relative(creator)} has created {self._relative(target)} already"
                elif creator and target not in self._created_here:
                    wanted[target] = change
        self._run.pace.create(target.split("/")[-2] for target in wanted)
        wave = self._send(list(wanted.values()))
        for target, update_time in wave.applied.items():
            self._created_here.add(target)
            self._created += 1
            self._touched.add(self._run.created[target])
            self._written.append((wanted[target].intent, update_time))
        for target, current in wave.again.items():
            creator = self._run.created.pop(target)
            if current is None:
                again[creator] = planned[creator].source
            else:
                problems[creator] = f"it would create {self._relative(target)}, which is there already"
        for target, why in wave.problems.items():
            problems[self._run.created.pop(target)] = why
        for name, why in problems.items():
            self._aside[name] = why
            again.pop(name, None)
            del planned[name]
        for name, changes in planned.items():
            if name not in again and changes.own is None:
                self._touched.add(name)

    def _send(self, changes: Sequence[PlannedChange]) -> _Wave:
        """Journal, send, settle, and journal the outcomes."""
        wave = _Wave()
        if not changes:
            return wave
        journal = self._run.journal
        self._run.pace.take(len(changes))
        sequences = journal.intents(self._range, self._last_name, [change.intent for change in changes])
        open_ = {change.write.name: (sequence, change) for sequence, change in zip(sequences, changes, strict=True)}
        results: list[Result] = []
        try:
            for outcome in self._run.database.write(
                [change.write for change in changes], origin="migration", parallel=1
            ):
                if outcome.state is WriteState.APPLIED:
                    wave.applied[outcome.name] = outcome.update_time or 0
                    results.append(Result(open_.pop(outcome.name)[0], State.APPLIED, outcome.update_time or 0))
                elif outcome.state is WriteState.REJECTED:
                    wave.problems[outcome.name] = f"the database refused it: {outcome.message}"
                    results.append(Result(open_.pop(outcome.name)[0], State.NOT_APPLIED))
                elif outcome.state is WriteState.FAILED:
                    reason = outcome.reason if isinstance(outcome.reason, TransientReason) else None
                    wave.failure = Transient(reason or TransientReason.UNAVAILABLE, outcome.message)
        except Transient as error:
            wave.failure = error
        finally:
            journal.results(results)
        self._settle(wave, list(open_.values()))
        self._bear(wave.failure)
        return wave

    def _settle(self, wave: _Wave, open_: Sequence[tuple[int, PlannedChange]]) -> None:
        """Ask the database about writes that conflicted or whose outcome did not arrive."""
        found = settle(self._run.database, [change.intent for _, change in open_])
        for (_, change), settlement in zip(open_, found, strict=True):
            name = change.write.name
            if settlement.state is State.APPLIED:
                wave.applied[name] = settlement.update_time
            elif settlement.state is State.UNCLEAR:
                wave.problems[name] = _UNCLEAR
            else:
                wave.again[name] = settlement.current
        self._run.journal.results(
            [
                Result(sequence, settlement.state, settlement.update_time)
                for (sequence, _), settlement in zip(open_, found, strict=True)
            ]
        )

    def _bear(self, failure: Transient | None) -> None:
        """Wait a little after a failure; the last one that may be borne ends the run, which can be resumed."""
        if failure is None:
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= self._run.settings.failures:
            raise failure
        self._run.clock.sleep(0.05 * 2**self._failures)

    def _relative(self, name: str) -> str:
        return self._run.database.address.relative(name)

    def _offer_sample(self) -> None:
        if self._run.read_back is None:
            return
        draw = random.Random(f"{self._run.seed}:{self._last_name}")
        drawn = sample(self._written, self._run.settings.sample_share, draw)
        self._run.read_back.offer([self._as_written(intent, update_time) for intent, update_time in drawn])

    def _as_written(self, intent: Intent, update_time: int) -> Written:
        collection = intent.name.split("/")[-2] if intent.action is Action.CREATE else self._collection
        return Written(intent, collection, update_time)


def created_by_earlier_sessions(names: Iterable[str]) -> dict[str, str]:
    """What :attr:`Batches.created` starts with after a resume."""
    return dict.fromkeys(names, "")
