"""How the database is doing while a run writes to it: what the run notices itself, and what the daemon's rules see.

The run asks for one document by name every second, as any user would, and looks at how its own requests end. If a
daemon runs on the same data folder it publishes what its rules judge by, the application's own operations among it
(:class:`LoadFile`). The worse of the two counts; what is not known counts neither way.
"""

from __future__ import annotations

import json
import math
import threading
from collections import deque
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, Self

from agent.clock import Clock, rfc3339
from agent.faults import RunbookdError
from agent.migration.database import Database
from agent.migration.throttle import Load
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import DB_OPERATION_DURATION

_EVERY_S = 1.0
_WINDOW = 20  # looks at the latency
_COUNTED = 16  # looks at the errors, which a run feels sooner than the page's windows of 30 s
_ENOUGH_READS = 5
_ENOUGH_OPERATIONS = 10
_ENOUGH_ERRORS = 3
_FRESH = timedelta(seconds=10)
# Answers about the request or the data; the page's error-rate rule leaves the same ones out.
_NO_ERRORS = frozenset({"", "not_found", "conflict", "missing_index", "cancelled", "unsupported"})


class Vitals(Protocol):
    """Tells how the database is doing; returns at once."""

    def __call__(self) -> Load: ...


def nothing_known() -> Load:
    """Nothing is known: for runs without limits to mind."""
    return Load()


class LoadFile:
    """A small file in the data folder through which the daemon tells runs what its rules see.

    Args:
        path: replaced as a whole at every look; a torn or stale file says nothing.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def publish(self, load: Load) -> None:
        """Called by the daemon at every pass over the rules while a run is going."""
        values = {"at": rfc3339(self._clock.now()), **asdict(load)}
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(values), encoding="utf-8")
        fresh.replace(self._path)

    def __call__(self) -> Load:
        """What was published in the last ten seconds."""
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            age = self._clock.now() - datetime.fromisoformat(values["at"])
            load = Load(
                latency=_number(values["latency"]), errors=_number(values["errors"]), reversal=_text(values["reversal"])
            )
        except (OSError, ValueError, KeyError, TypeError):
            return Load()
        return load if abs(age) <= _FRESH else Load()


class OwnVitals:
    """A thread that looks once a second; a context manager.

    Args:
        name: full name of a document to ask for; it need not exist.
        published: what the daemon sees.
    """

    def __init__(
        self, *, database: Database, name: str, telemetry: Telemetry, clock: Clock, published: Vitals = nothing_known
    ) -> None:
        self._database = database
        self._name = name
        self._telemetry = telemetry
        self._clock = clock
        self._published = published
        self._latencies: deque[float] = deque(maxlen=_WINDOW)
        self._counts: deque[tuple[float, float]] = deque(maxlen=_COUNTED)  # operations, errors: running totals
        self._asked: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="vitals", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A question that hangs is not waited for: the thread is a daemon's, and its answer is of no use any more.
        self._stop.set()

    def __call__(self) -> Load:
        asked, latencies = self._asked, list(self._latencies)
        if asked is not None:
            latencies.append(self._clock.monotonic() - asked)  # an answer that has not come yet has a latency too
        told = self._published()
        return Load(
            latency=worse(p95(latencies), told.latency),
            errors=worse(error_share(list(self._counts)), told.errors),
            reversal=told.reversal,
        )

    def look(self) -> None:
        """Ask once, and count."""
        self._asked = began = self._clock.monotonic()
        try:
            self._database.get([self._name])
        except RunbookdError:
            return  # the error share tells
        finally:
            self._asked = None
            self._counts.append(_operations(self._telemetry))
        self._latencies.append(self._clock.monotonic() - began)

    def _work(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self.look()


def p95(latencies: list[float]) -> float | None:
    """The 95th percentile by nearest rank; ``None`` of too few to tell."""
    if len(latencies) < _ENOUGH_READS:
        return None
    return sorted(latencies)[math.ceil(len(latencies) * 0.95) - 1]


def error_share(totals: list[tuple[float, float]]) -> float | None:
    """Errors among the operations between the first and the last of ``totals``; ``None`` of too few to tell."""
    if len(totals) < 2:
        return None
    operations = totals[-1][0] - totals[0][0]
    errors = totals[-1][1] - totals[0][1]
    if operations < _ENOUGH_OPERATIONS:
        return None
    return errors / operations if errors >= _ENOUGH_ERRORS else 0.0


def worse(one: float | None, other: float | None) -> float | None:
    """The larger of two figures, of which either may be unknown."""
    return max((value for value in (one, other) if value is not None), default=None)


def _operations(telemetry: Telemetry) -> tuple[float, float]:
    """Database operations of this process so far, and those of them that failed."""
    operations = errors = 0.0
    for family in telemetry.families():
        if family.name != DB_OPERATION_DURATION.prometheus_name:
            continue
        for sample in family.samples:
            if sample.name.endswith("_count"):
                operations += sample.value
                errors += sample.value if sample.labels.get("error_type", "") not in _NO_ERRORS else 0.0
    return operations, errors


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
