"""Threads in step with a manual clock: one at a time, in the order of their moments, and killed without a word."""

from __future__ import annotations

from collections.abc import Callable

from agent.clock import ManualClock
from agent.rehearsal.company import Company


def test_players_act_when_their_time_has_come() -> None:
    """Two that sleep take turns as the clock is moved, and nobody acts before."""
    clock = ManualClock()
    company = Company(clock)
    said: list[str] = []

    def player(name: str, pause: float) -> Callable[[], None]:
        def work() -> None:
            said.append(f"{name} begins")
            company.sleep(pause)
            said.append(f"{name} at {clock.monotonic():g}")

        return work

    company.beside(player("one", 3.0), "one")
    company.beside(player("two", 1.0), "two")
    assert said == []
    company.act()
    assert said == ["one begins", "two begins"]
    for _ in range(4):
        clock.advance(1.0)
        company.act()
    assert said[2:] == ["two at 1", "one at 3"]


def test_a_killed_player_writes_nothing_more() -> None:
    """It ends where it waits: neither what comes after nor what catches exceptions runs."""
    clock = ManualClock()
    company = Company(clock)
    said: list[str] = []

    def work() -> None:
        try:
            company.sleep(1.0)
            said.append("went on")
        except Exception:  # noqa: BLE001 - as broad as any handler of the work that is played
            said.append("was caught")

    thread = company.beside(work, "worker")
    company.act()
    company.kill()
    thread.join(5.0)
    assert not thread.is_alive()
    clock.advance(5.0)
    company.act()
    assert said == []
