"""Validation after a run, collection by collection, reading only.

* every document against the definition's ``validate``;
* every document that the run wrote, and nobody since, against what the transform had made of it (or a share of them);
* the sums of the definition's ``invariants`` over those documents, before and after;
* references: none may lead nowhere because of the run;
* how many documents there are, beside how many there should be.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.firestore import RawDocument
from agent.migration.changes import to_document
from agent.migration.database import Database
from agent.migration.definition import Definition, raised_at
from agent.migration.document import Document
from agent.migration.journal import Action, Intent, ScanRange, State
from agent.migration.readback import Written, judge
from agent.migration.reading import scan
from agent.migration.references import Targets, references_in
from agent.migration.replay import IntentFrame, Replay, read_intents
from agent.migration.run import RunSettings
from agent.telemetry import Progress, ProgressSink

_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class ValidatedCollection:
    """What was found in one collection.

    Args:
        documents: how many there are.
        expected: how many there would be if nobody but the run had created or deleted any; ``None`` without a run.
        invalid: documents that the definition's ``validate`` finds wrong.
        compared: writes of the run whose documents nobody has written since.
        mismatched: those of them that are not as they were written.
        dangling: references that lead nowhere because of the run.
        broken: invariants whose sums are not what they were, as ``name: before, after``.
        examples: the first problems, as ``path: what``.
    """

    collection: str
    documents: int
    expected: int | None
    invalid: int
    compared: int
    mismatched: int
    dangling: int
    broken: tuple[str, ...]
    examples: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not (self.invalid or self.mismatched or self.dangling or self.broken)


@dataclass(kw_only=True)
class _Tally:
    documents: int = 0
    delta: int = 0
    invalid: int = 0
    compared: int = 0
    mismatched: int = 0
    dangling: int = 0
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def example(self, path: str, what: str) -> None:
        if len(self.examples) < _LISTED:
            self.examples.append(f"{path}: {what}")

    @property
    def broken(self) -> tuple[str, ...]:
        names = sorted({*self.before, *self.after})
        sums = [(name, self.before.get(name, 0), self.after.get(name, 0)) for name in names]
        return tuple(
            f"{name}: {before:g} before, {after:g} after" for name, before, after in sums if not _same(before, after)
        )


def validate(
    definition: Definition,
    collections: Sequence[str],
    told: Replay | None,
    *,
    only: frozenset[str] = frozenset(),
    counts: Mapping[str, int] | None = None,
    share: float = 1.0,
    database: Database,
    settings: RunSettings,
    clock: Clock,
    progress: ProgressSink,
    cancelled: Callable[[], bool],
) -> tuple[ValidatedCollection, ...]:
    """Read everything once.

    Args:
        collections: the definition's, in order.
        told: the journal of a run to compare with; ``None``: there is none.
        only: leave other collections out; empty: all of them, and what the run wrote elsewhere.
        counts: documents by collection when the run began.
        share: of the run's writes that are compared, drawn batch by batch, the same ones each time.

    Raises:
        Permanent: CANCELLED.
    """
    work = _Validation(definition, database, settings, clock, progress, cancelled)
    tallies = {collection: _Tally() for collection in collections if not only or collection in only}
    for index, (collection, tally) in enumerate(tallies.items()):
        work.scan(ScanRange(index=index, collection=collection), tally)
    if told is not None:
        work.compare(told, only, tallies, share)
    return tuple(
        ValidatedCollection(
            collection=collection,
            documents=tally.documents,
            expected=counts[collection] + tally.delta if counts and collection in counts else None,
            invalid=tally.invalid,
            compared=tally.compared,
            mismatched=tally.mismatched,
            dangling=tally.dangling,
            broken=tally.broken,
            examples=tuple(tally.examples),
        )
        for collection, tally in tallies.items()
    )


class _Validation:
    def __init__(
        self,
        definition: Definition,
        database: Database,
        settings: RunSettings,
        clock: Clock,
        progress: ProgressSink,
        cancelled: Callable[[], bool],
    ) -> None:
        self._definition = definition
        self._database = database
        self._settings = settings
        self._clock = clock
        self._progress = progress
        self._cancelled = cancelled
        self._targets = Targets(database)
        self._lost: dict[str, frozenset[str]] = {}  # documents with references that lead nowhere, and those

    # --- as the documents are ---------------------------------------------------------------------------------

    def scan(self, place: ScanRange, tally: _Tally) -> None:
        """Every document of a collection by itself."""
        pages = scan(self._database, place, after="", repin_after=self._settings.repin_after, clock=self._clock)
        for page in pages:
            self._go_on()
            for raw in page:
                document = to_document(raw, self._database.address)
                if problem := self._problem(document):
                    tally.invalid += 1
                    tally.example(document.name, problem)
            self._look_up(page)
            tally.documents += len(page)
            self._progress(Progress(operation="verify", stage=place.collection, done=tally.documents))

    def _problem(self, document: Document) -> str | None:
        if self._definition.validate is None:
            return None
        try:
            return self._definition.validate(document)
        except Exception as error:  # noqa: BLE001 - a validation that breaks down has not found the document right
            return raised_at(self._definition, error)

    def _look_up(self, page: Sequence[RawDocument]) -> None:
        found = {raw.name: names for raw in page if (names := references_in(raw, self._database))}
        missing = self._targets.missing(frozenset().union(*found.values())) if found else frozenset()
        for name, names in found.items() if missing else ():
            if lost := names & missing:
                self._lost[name] = lost

    # --- as the run left them ---------------------------------------------------------------------------------

    def compare(self, told: Replay, only: frozenset[str], tallies: dict[str, _Tally], share: float) -> None:
        """What the run wrote against what is there."""
        done = 0
        removed: set[str] = set()
        fresh: dict[str, frozenset[str]] = {}
        for place in told.frames:
            self._go_on()
            intents = [
                (sequence, intent)
                for sequence, intent in zip(place.sequences, read_intents(place), strict=True)
                if told.states[sequence] == State.APPLIED and (not only or _collection(intent.name) in only)
            ]
            for _, intent in intents:
                tally = tallies.setdefault(_collection(intent.name), _Tally())
                tally.delta += (intent.action is Action.CREATE) - (intent.action is Action.DELETE)
                if intent.action is Action.DELETE:
                    removed.add(intent.name)
                elif intent.name in self._lost:
                    fresh[intent.name] = self._lost[intent.name] - self._referred(intent)
            self._compare_frame(place, told, _drawn(intents, share, place), tallies)
            done += place.count
            self._progress(Progress(operation="verify", stage="compare", done=done, total=told.next_sequence))
        self._report_lost(removed, fresh, tallies)

    def _compare_frame(
        self, place: IntentFrame, told: Replay, intents: Sequence[tuple[int, Intent]], tallies: dict[str, _Tally]
    ) -> None:
        written = [
            Written(intent, _collection(intent.name), told.update_times[sequence]) for sequence, intent in intents
        ]
        found = self._database.get([item.name for item in written])
        judged, wrong = judge(found, written)
        for item in judged:
            tallies[item.collection].compared += 1
        for item in wrong:
            tallies[item.collection].mismatched += 1
            path = self._database.address.relative(item.name)
            tallies[item.collection].example(path, "is not as it was written")
        if self._definition.invariants is None:
            return
        source = told.ranges[place.scan_range].collection if place.scan_range in told.ranges else ""
        tally = tallies.setdefault(source, _Tally()) if source else _Tally()
        unchanged = {item.name for item in judged}
        for _, intent in intents:
            if intent.name in unchanged:
                before = RawDocument(intent.before) if intent.before else None
                self._sum(before, found[intent.name], tally)

    def _sum(self, before: RawDocument | None, after: RawDocument | None, tally: _Tally) -> None:
        """Both or neither: where the invariants of one can't be told, the sums would differ for that alone."""
        assert self._definition.invariants is not None
        sides = ((before, tally.before), (after, tally.after))
        figures: list[tuple[Mapping[str, float], dict[str, float]]] = []
        for raw, sums in sides:
            if raw is None:
                continue
            document = to_document(raw, self._database.address)
            try:
                figures.append((self._definition.invariants(document), sums))
            except Exception as error:  # noqa: BLE001 - whatever it raises, its author has to see it
                tally.invalid += 1
                tally.example(document.name, raised_at(self._definition, error))
                return
        for values, sums in figures:
            for name, value in values.items():
                sums[name] = sums.get(name, 0) + value

    def _referred(self, intent: Intent) -> frozenset[str]:
        return references_in(RawDocument(intent.before), self._database) if intent.before else frozenset()

    def _report_lost(
        self, removed: set[str], fresh: Mapping[str, frozenset[str]], tallies: Mapping[str, _Tally]
    ) -> None:
        """References that lead nowhere because of the run: it set them, or it took their targets away."""
        for name, lost in self._lost.items():
            guilty = (lost & removed) | fresh.get(name, frozenset())
            tally = tallies.get(_collection(name))
            if tally is None:
                continue
            tally.dangling += len(guilty)
            for target in sorted(guilty):
                path = self._database.address.relative(name)
                tally.example(path, f"refers to {self._database.address.relative(target)}, which is not there")

    def _go_on(self) -> None:
        if self._cancelled():
            raise Permanent(PermanentReason.CANCELLED, "the validation was stopped")


def _collection(name: str) -> str:
    return name.split("/")[-2]


def _drawn(intents: Sequence[tuple[int, Intent]], share: float, place: IntentFrame) -> Sequence[tuple[int, Intent]]:
    if share >= 1 or not intents:
        return intents
    draw = random.Random(place.first_sequence)
    return draw.sample(intents, max(1, round(len(intents) * share)))


def _same(before: float, after: float) -> bool:
    """Whole numbers exactly; sums of others up to what adding them in another order may change."""
    return before == after or abs(before - after) <= 1e-9 * max(abs(before), abs(after))
