"""Validation after a run: every document against the definition's ``validate``, every write against what was meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.migration.changes import to_document
from agent.migration.database import Database
from agent.migration.definition import Definition, raised_at
from agent.migration.document import Document
from agent.migration.journal import Action, ScanRange, State
from agent.migration.readback import Written, compare
from agent.migration.replay import Replay, read_intents
from agent.migration.run import RunSettings, scan
from agent.telemetry import Progress, ProgressSink

_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class ValidatedCollection:
    """What was found in one collection.

    Args:
        documents: how many there are.
        invalid: documents that the definition's ``validate`` finds wrong.
        compared: writes of the run whose documents nobody has written since.
        mismatched: those of them that are not as they were written.
        examples: the first problems, as ``path: what``.
    """

    collection: str
    documents: int
    invalid: int
    compared: int
    mismatched: int
    examples: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.invalid == 0 and self.mismatched == 0


@dataclass(kw_only=True)
class _Tally:
    documents: int = 0
    invalid: int = 0
    compared: int = 0
    mismatched: int = 0
    examples: list[str] = field(default_factory=list)

    def example(self, path: str, what: str) -> None:
        if len(self.examples) < _LISTED:
            self.examples.append(f"{path}: {what}")


def validate(
    definition: Definition,
    collections: Sequence[str],
    told: Replay | None,
    *,
    only: frozenset[str] = frozenset(),
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

    Raises:
        Permanent: CANCELLED.
    """
    tallies = {collection: _Tally() for collection in collections if not only or collection in only}
    for index, (collection, tally) in enumerate(tallies.items()):
        place = ScanRange(index=index, collection=collection)
        for raw in scan(database, place, after="", repin_after=settings.repin_after, clock=clock):
            tally.documents += 1
            document = to_document(raw, database.address)
            if problem := _problem(definition, document):
                tally.invalid += 1
                tally.example(document.name, problem)
            if tally.documents % settings.batch_size == 0:
                _go_on(cancelled)
                progress(Progress(operation="verify", stage=collection, done=tally.documents))
    if told is not None:
        _compare(told, only, tallies, database, progress, cancelled)
    return tuple(
        ValidatedCollection(
            collection=collection,
            documents=tally.documents,
            invalid=tally.invalid,
            compared=tally.compared,
            mismatched=tally.mismatched,
            examples=tuple(tally.examples),
        )
        for collection, tally in tallies.items()
    )


def _problem(definition: Definition, document: Document) -> str | None:
    if definition.validate is None:
        return None
    try:
        return definition.validate(document)
    except Exception as error:  # noqa: BLE001 - a validation that breaks down has not found the document right
        return raised_at(definition, error)


def _compare(
    told: Replay,
    only: frozenset[str],
    tallies: dict[str, _Tally],
    database: Database,
    progress: ProgressSink,
    cancelled: Callable[[], bool],
) -> None:
    done = 0
    for place in told.frames:
        _go_on(cancelled)
        written = [
            Written(
                intent.name,
                intent.name.split("/")[-2],
                0 if intent.action is Action.DELETE else told.update_times[sequence],
                intent.digest,
            )
            for sequence, intent in zip(place.sequences, read_intents(place), strict=True)
            if told.states[sequence] == State.APPLIED and (not only or intent.name.split("/")[-2] in only)
        ]
        judged, wrong = compare(database, written)
        for item in judged:
            tallies.setdefault(item.collection, _Tally()).compared += 1
        for item in wrong:
            tallies[item.collection].mismatched += 1
            tallies[item.collection].example(database.address.relative(item.name), "is not as it was written")
        done += place.count
        progress(Progress(operation="verify", stage="compare", done=done, total=told.next_sequence))


def _go_on(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Permanent(PermanentReason.CANCELLED, "the validation was stopped")
