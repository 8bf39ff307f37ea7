"""Trying again, as a wrapper around a call: exponential backoff with full jitter inside a budget of time.

The calls themselves know nothing of it. Full jitter (each pause is drawn evenly between nothing and the current
ceiling) spreads a crowd of workers best: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from agent.clock import Clock
from agent.faults import Transient

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How patient a caller is.

    Args:
        first: ceiling of the first pause, in seconds.
        factor: growth of the ceiling per attempt.
        ceiling: largest ceiling, in seconds.
        budget: seconds after the first failure from which on no further attempt is begun.
    """

    first: float = 0.05
    factor: float = 2.0
    ceiling: float = 5.0
    budget: float = 60.0


NO_RETRY = RetryPolicy(budget=0.0)


class Patience:
    """The state of one series of attempts; streams that make progress renew it."""

    def __init__(self, policy: RetryPolicy, clock: Clock, draw: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._draw = draw
        self._failures = 0
        self._until: float | None = None

    def renew(self) -> None:
        """The call made progress: the next failure is a first one."""
        self._failures = 0
        self._until = None

    def pause(self, error: Transient) -> None:
        """Wait before the next attempt.

        Raises:
            Transient: ``error`` itself, if the budget is spent.
        """
        now = self._clock.monotonic()
        if self._until is None:
            self._until = now + self._policy.budget
        ceiling = min(self._policy.ceiling, self._policy.first * self._policy.factor**self._failures)
        wait = self._draw() * ceiling
        if now + wait >= self._until:
            raise error
        self._failures += 1
        self._clock.sleep(wait)


# A generator of its own: somebody else may seed the module's, and count on what it then gives.
JITTER = random.Random().random


class Retrying:
    """Calls something until it succeeds, fails for good, or the budget is spent.

    Args:
        draw: evenly distributed in [0, 1).
    """

    def __init__(self, policy: RetryPolicy, *, clock: Clock, draw: Callable[[], float] = JITTER) -> None:
        self._policy = policy
        self._clock = clock
        self._draw = draw

    def patience(self) -> Patience:
        """For callers that drive the attempts themselves."""
        return Patience(self._policy, self._clock, self._draw)

    def call(self, attempt: Callable[[], T], *, on_failure: Callable[[Transient], None] = lambda _: None) -> T:
        """What ``attempt`` returns in the end.

        Args:
            on_failure: told of every failed attempt that is followed by another.

        Raises:
            Transient: the last failure, when the budget is spent.
            RunbookdError: any other kind at once.
        """
        patience = self.patience()
        while True:
            try:
                return attempt()
            except Transient as error:
                patience.pause(error)
                on_failure(error)
