"""What happened in a run, in order: its record and its chronicle as lines for reports. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from agent.migration.chronicle import Entry, Event
from agent.migration.runs import CollectionProgress, RunRecord


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One line of a timeline."""

    at: datetime
    what: str


def timeline(record: RunRecord, entries: Iterable[Entry]) -> tuple[Moment, ...]:
    """Everything known about when what happened, oldest first."""
    found = [Moment(at=entry.at, what=_words(entry)) for entry in entries]
    for part in record.collections:
        if part.started is not None:
            found.append(Moment(at=part.started, what=f"{part.collection} begun"))
        if part.finished is not None:
            found.append(Moment(at=part.finished, what=f"{part.collection} done{_speed(part)}"))
    return tuple(sorted(found, key=lambda moment: moment.at))


def _words(entry: Entry) -> str:
    by = f", by {entry.owner}" if entry.owner else ""
    why = f": {entry.reason}" if entry.reason else ""
    match entry.event:
        case Event.PAUSE:
            until = f" until {entry.until:%Y-%m-%d %H:%M:%SZ}" if entry.until is not None else ""
            return f"paused by {entry.owner}{until}{why}"
        case Event.GO_ON:
            return f"go on{by}{why}"
        case Event.BATCH_SIZE:
            return f"batch size {entry.value or 0:,.0f}{by}{why}"
        case Event.RATE:
            return f"rate {entry.value:,.0f} documents/s{by}{why}" if entry.value else f"no other rate{by}{why}"
        case _:
            return f"{entry.event}: {entry.detail}"


def _speed(part: CollectionProgress) -> str:
    """Documents and documents/s of a collection that is done; waiting and resumes are in its time."""
    if part.started is None or part.finished is None:
        return ""
    seconds = (part.finished - part.started).total_seconds()
    rate = f", {part.counts.scanned / seconds:,.0f} documents/s" if seconds > 0 else ""
    return f": {part.counts.scanned:,} documents in {seconds:,.1f} s{rate}"
