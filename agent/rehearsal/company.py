"""What would be threads, one at a time and in step with a manual clock.

A recovery runs beside the rules and sleeps, retries and waits for a health check. Here its thread only runs when it is
handed the turn, and hands it back whenever it waits; so a rehearsal of five minutes takes no time and always takes the
same course.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from agent.clock import ManualClock


class Company:
    """Players that act when their time has come. It is the :class:`agent.clock.Clock` of the work that it plays.

    Args:
        clock: moved by whoever calls :meth:`act`.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._players: list[_Player] = []
        self._turn = threading.Semaphore(0)

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait until the clock has been moved by ``seconds``; to be called by a player."""
        player = next(each for each in self._players if each.thread is threading.current_thread())
        player.due = self._clock.monotonic() + max(seconds, 0.0)
        self._turn.release()
        player.wait()

    def beside(self, work: Callable[[], object], name: str) -> threading.Thread:
        """Let ``work`` go on beside the caller's, from the next :meth:`act` on."""
        player = _Player(self._clock.monotonic())

        def play() -> None:
            try:
                player.wait()
                work()
            except _Killed:
                return
            finally:
                player.due = None
                self._turn.release()

        player.thread = threading.Thread(target=play, daemon=True, name=name)
        self._players.append(player)
        player.thread.start()
        return player.thread

    def act(self) -> None:
        """Let everybody act whose time has come, until all wait for a later one."""
        while (player := self._next()) is not None:
            player.go()
            self._turn.acquire()
        self._players = [player for player in self._players if player.due is not None]

    def kill(self) -> None:
        """End everybody where they are, as ``kill -9`` does: nothing more is written."""
        for player in self._players:
            if player.due is not None:
                player.killed = True
                player.go()
                self._turn.acquire()
        self._players = []

    def _next(self) -> _Player | None:
        ready = [player for player in self._players if player.due is not None and player.due <= self._clock.monotonic()]
        return min(ready, key=lambda player: player.due or 0.0, default=None)


class _Killed(BaseException):
    """The process of the work has ended; no Exception, because the work may catch those."""


class _Player:
    """One thread of work; ``due`` is ``None`` once it has ended."""

    def __init__(self, due: float) -> None:
        self.thread: threading.Thread | None = None
        self.due: float | None = due
        self.killed = False
        self._turn = threading.Semaphore(0)

    def go(self) -> None:
        self._turn.release()

    def wait(self) -> None:
        self._turn.acquire()
        if self.killed:
            raise _Killed
