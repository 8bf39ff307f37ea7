"""What the daemon tells whoever watches it: the demo's story, a test, one day a console.

Called from the daemon's own threads; an observer must return quickly and must not raise.
"""

from __future__ import annotations

from agent.alerting import TickResult
from agent.decisions import Decision
from agent.recovery import Recovery, StepRecord
from agent.telemetry import Progress


class Observer:
    """Ignores everything; override what interests you."""

    def ticked(self, result: TickResult) -> None:
        """A pass over the rules has ended."""

    def progressed(self, progress: Progress) -> None:
        """A worker got on."""

    def decided(self, decision: Decision) -> None:
        """A decision was written down."""

    def recovering(self, recovery: Recovery, step: StepRecord | None) -> None:
        """A recovery began, moved on or ended."""
