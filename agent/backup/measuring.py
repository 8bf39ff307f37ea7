"""The gauges about what is stored, and a span and a duration around each operation on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from agent.backup.catalogue import Catalogue
from agent.backup.manifest import BackupType
from agent.backup.summaries import summary_of
from agent.clock import Clock
from agent.faults import RunbookdError
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import (
    BACKUP_LAST_PROVEN,
    BACKUP_LAST_SUCCESS,
    BACKUP_SIZE,
    OPERATION_DURATION,
    STORAGE_USAGE,
)

_log = logging.getLogger(__name__)


def observe_storages(telemetry: Telemetry, catalogue: Catalogue) -> None:
    """How full each storage is; one that does not answer is left out, and logged."""
    for storage in catalogue.storages.values():
        try:
            usage = storage.usage()
        except RunbookdError as error:
            _log.warning("a backup storage can't be measured", extra={"storage": storage.name, "why": str(error)})
            continue
        if usage.ratio is not None:
            telemetry.set(STORAGE_USAGE, usage.ratio, {"storage": storage.name})


def observe_backups(telemetry: Telemetry, catalogue: Catalogue) -> None:
    """The newest of each type: its size, its last success; and when a restore was last proven."""
    entries = {entry.id: entry for entry in catalogue.entries()}
    proven = [entry.proven_at for entry in entries.values() if entry.proven_at is not None]
    if proven:
        telemetry.set(BACKUP_LAST_PROVEN, max(proven).timestamp())
    sizes: dict[BackupType, int] = {}
    newest: dict[BackupType, datetime] = {}
    for entry in entries.values():
        summary = summary_of(entry, entries)
        sizes.setdefault(summary.type, summary.stored_bytes)
        if summary.verified and summary.read_time is not None:
            newest.setdefault(summary.type, summary.read_time)
    for kind, size in sizes.items():
        telemetry.set(BACKUP_SIZE, size, {"type": kind})
    for kind, moment in newest.items():
        telemetry.set(BACKUP_LAST_SUCCESS, moment.timestamp(), {"type": kind})


@contextmanager
def measured(
    telemetry: Telemetry, clock: Clock, operation: str, attributes: dict[str, str | int | float | bool]
) -> Iterator[dict[str, str | int | float | bool]]:
    """A span and a duration around an operation; what is put into the yielded dict ends up on the span."""
    began = clock.monotonic()
    outcome = "failed"
    try:
        with telemetry.span(f"backup.{operation}", attributes) as span:
            found: dict[str, str | int | float | bool] = {}
            yield found
            for name, value in found.items():
                span.set_attribute(name, value)
        outcome = "ok"
    finally:
        telemetry.record(OPERATION_DURATION, clock.monotonic() - began, {"operation": operation, "outcome": outcome})
