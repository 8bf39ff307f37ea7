"""Progress of a long operation, as values that a worker's pipe, a progress bar and a gauge all understand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where an operation is.

    Args:
        operation: e.g. ``backup``, ``migration``, ``undo``, ``restore``, ``verify``.
        stage: what it does now, in a person's words, e.g. a collection's name.
        done: units finished in the whole operation (not the stage).
        total: units in the whole operation, or ``None`` while unknown.
        unit: e.g. ``documents``.
        paused: it waits because a person said so, which is not being stuck.
    """

    operation: str
    stage: str
    done: int
    total: int | None = None
    unit: str = "documents"
    paused: bool = False


ProgressSink = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """A sink for callers that don't watch."""
