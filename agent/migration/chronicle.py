"""The chronicle of a run: what happened to it and what people asked of it, line by line, beside its record.

``chronicle.jsonl`` is only ever appended to, by any process: the worker notes that it started or slowed down, the
command line and the API note that somebody wants it paused. What is asked for is read back by the worker within a
second, and by whoever resumes the run after a kill: a pause outlives the process that it stopped. Reports show it as
the run's timeline.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent.clock import rfc3339
from agent.faults import Permanent, PermanentReason, RunbookdError

_log = logging.getLogger(__name__)


class Event(StrEnum):
    """What an entry is about; the first four are orders."""

    PAUSE = "pause"
    GO_ON = "go_on"
    BATCH_SIZE = "batch_size"
    RATE = "rate"
    STARTED = "started"
    RESUMED = "resumed"
    COLLECTION = "collection"
    THROTTLE = "throttle"
    STUCK = "stuck"
    ENDED = "ended"
    UNDO = "undo"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line.

    Args:
        detail: in words, for the timeline.
        owner, reason: who asked for it, and why; empty for what the run did by itself.
        value: of BATCH_SIZE (documents) and RATE (documents/s; ``None`` lifts an earlier one).
        until: a PAUSE ends by itself then; ``None``: when somebody says so.
    """

    at: datetime
    event: Event
    detail: str = ""
    owner: str = ""
    reason: str = ""
    value: float | None = None
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What people want of a run now: the last word on each matter.

    Args:
        pause: the entry that keeps it paused, if one does.
        batch_size, rate: instead of the settings'.
    """

    pause: Entry | None = None
    batch_size: int | None = None
    rate: float | None = None


def wishes(entries: Iterable[Entry], now: datetime) -> Wishes:
    """The orders among ``entries`` (oldest first), added up."""
    pause: Entry | None = None
    batch_size: int | None = None
    rate: float | None = None
    for entry in entries:
        match entry.event:
            case Event.PAUSE:
                pause = entry
            case Event.GO_ON:
                pause = None
            case Event.BATCH_SIZE:
                batch_size = int(entry.value) if entry.value else None
            case Event.RATE:
                rate = entry.value
            case _:
                continue
    if pause is not None and pause.until is not None and now >= pause.until:
        pause = None
    return Wishes(pause=pause, batch_size=batch_size, rate=rate)


class Chronicle:
    """One run's file; several processes may append to it at once.

    Args:
        path: made with the first entry.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, entry: Entry) -> None:
        """:meth:`append` for what a run tells of itself: a full disk must not stop it for the sake of its diary."""
        try:
            self.append(entry)
        except RunbookdError as error:
            _log.warning("the run's chronicle lacks an entry", extra={"entry": entry.detail, "why": str(error)})

    def append(self, entry: Entry) -> None:
        """Add one line; it is on disk when this returns.

        Raises:
            Permanent: DISK_FULL, INTERNAL.
        """
        values = {key: value for key, value in asdict(entry).items() if value not in ("", None)}
        line = json.dumps(values, default=_plain, ensure_ascii=False)
        # One write to a file opened for appending is not torn by another process's. A line that a kill cut short has
        # no end, so the next one begins with one.
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(descriptor, f"\n{line}\n".encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise Permanent(
                PermanentReason.DISK_FULL if full else PermanentReason.INTERNAL,
                f"{self._path} can't be written ({error.strerror})",
                hint="free some space" if full else "",
            ) from error

    def read(self) -> tuple[Entry, ...]:
        """Every entry, oldest first. What can't be read as one (cut short, of a later version) is left out."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ()
        return tuple(entry for line in lines if line and (entry := _entry(line)) is not None)


def _plain(value: Any) -> Any:
    return rfc3339(value) if isinstance(value, datetime) else str(value)


def _entry(line: str) -> Entry | None:
    try:
        values: dict[str, Any] = json.loads(line)
        for key in ("at", "until"):
            if key in values:
                values[key] = datetime.fromisoformat(values[key])
        return Entry(**{**values, "event": Event(values["event"])})
    except (ValueError, KeyError, TypeError):
        return None
