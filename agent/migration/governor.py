"""Who says how a run goes on: people (pause, batch size, rate), the throttle, and the settings, in one answer.

Asked by :class:`agent.migration.pace.Pace` before each batch is written, about once a second; so a pause bites before
the next batch, and a run that waits hears that it may go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.migration.chronicle import Chronicle, Entry, Event, Wishes, wishes
from agent.migration.throttle import Action, LoadLimits, Throttle, throttle
from agent.migration.vitals import Vitals

_LOOK_EVERY = 1.0
_SMOOTHING = 5.0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How the run goes on.

    Args:
        waits: nothing is written now.
        paused: it waits because a person wants it to.
        rate: documents/s; ``None``: no ceiling.
        batch_size: documents per chunk; ``None``: the settings'.
        words: why it is not at full speed; empty if it is.
    """

    waits: bool = False
    paused: bool = False
    rate: float | None = None
    batch_size: int | None = None
    words: str = ""


class Governor:
    """Asks everybody; not thread-safe, :class:`Pace` holds its lock.

    Args:
        rate: the settings' ceiling.
        tell: called with each standing that differs from the one before.
    """

    def __init__(
        self,
        *,
        chronicle: Chronicle,
        vitals: Vitals,
        limits: LoadLimits,
        rate: float | None,
        clock: Clock,
        tell: Callable[[Standing], None] = lambda _: None,
    ) -> None:
        self._chronicle = chronicle
        self._vitals = vitals
        self._limits = limits
        self._rate = rate
        self._clock = clock
        self._tell = tell
        self._throttle = Throttle()
        self._looked: float | None = None
        self._written = 0
        self._measured = 0.0
        self._standing = Standing(rate=rate)

    def written(self, count: int) -> None:
        """So many documents are about to be written."""
        self._written += count

    def standing(self) -> Standing:
        """The answer, at most a second old.

        Raises:
            Permanent: UNHEALTHY if the load stayed critical; the run can be resumed.
        """
        now = self._clock.monotonic()
        if self._looked is None or now - self._looked >= _LOOK_EVERY:
            self._look(now)
            self._looked = now
        return self._standing

    def _look(self, now: float) -> None:
        self._measure(now)
        wanted = wishes(self._chronicle.read(), self._clock.now())
        before = self._throttle
        if wanted.pause is None:
            self._throttle = throttle(before, self._vitals(), self._limits, rate=self._measured, now=now)
        if self._throttle.action is not before.action:
            self._note(self._throttle)
        if self._throttle.action is Action.GIVE_UP:
            raise Permanent(
                PermanentReason.UNHEALTHY,
                f"the run stopped by itself: {self._throttle.reason}",
                hint="find out why, then resume it, or undo it",
            )
        fresh = self._answer(wanted)
        if fresh != self._standing:
            self._standing = fresh
            self._tell(fresh)

    def _measure(self, now: float) -> None:
        """Documents/s, over the last few looks: batches come in gulps."""
        if self._looked is not None:
            passed = now - self._looked
            share = min(1.0, passed / _SMOOTHING)
            self._measured += share * (self._written / passed - self._measured)
        self._written = 0

    def _answer(self, wanted: Wishes) -> Standing:
        halted = self._throttle.action is Action.HALT
        rates = [rate for rate in (self._rate, wanted.rate, self._throttle.rate) if rate is not None]
        words = ""
        if wanted.pause is not None:
            until = f" until {wanted.pause.until:%H:%M:%SZ}" if wanted.pause.until else ""
            words = f"paused by {wanted.pause.owner}{until}: {wanted.pause.reason}"
        elif halted:
            words = f"waits: {self._throttle.reason}"
        elif self._throttle.action is Action.SLOW:
            words = f"slowed down: {self._throttle.reason}"
        return Standing(
            waits=wanted.pause is not None or halted,
            paused=wanted.pause is not None,
            rate=min(rates, default=None),
            batch_size=wanted.batch_size,
            words=words,
        )

    def _note(self, ruling: Throttle) -> None:
        detail = {
            Action.GO: "at full speed again",
            Action.SLOW: f"slowed down to {ruling.rate or 0:,.0f} documents/s: {ruling.reason}",
            Action.HALT: f"stopped writing for a while: {ruling.reason}",
            Action.GIVE_UP: f"gave up: {ruling.reason}",
        }[ruling.action]
        self._chronicle.note(Entry(at=self._clock.now(), event=Event.THROTTLE, detail=detail))
