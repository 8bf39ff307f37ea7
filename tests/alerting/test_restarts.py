"""The rule loop under any course of data, kills and reloads: what is true of one timer is true of the whole."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.alerting.states import GAP_INTERVALS
from tests.alerting.conftest import World

RULES = """
groups:
  - name: heat
    interval: 1s
    rules:
      - alert: Hot
        expr: temperature > 30
        for: 3s
        keep_firing_for: 2s
      - alert: Hottest
        expr: temperature > 30
        labels: {severity: critical}
"""
FOR, KEEP = 3, 2
# A kill costs what was not written down: the timers are, every 5 s, and the gap itself counts for no more than a look.
TOLERANCE = 5 + 2

HOT, COOL, GONE, SILENT = "hot", "cool", "gone", "silent"
readings = st.sampled_from([HOT, HOT, HOT, COOL, COOL, GONE, SILENT])
courses = st.lists(readings, min_size=1, max_size=25)
VALUES: dict[str, dict[str, float] | None] = {
    HOT: {"temperature": 40},
    COOL: {"temperature": 20},
    GONE: {"humidity": 1},
    SILENT: None,
}
Change = tuple[float, str, str]


def play(course: Sequence[str], *, kills: Sequence[int] = (), down: float = 0.0) -> list[Change]:
    """The changes of every second of a course, those that are told once more after a kill left out.

    Args:
        kills: before which seconds the process is killed.
        down: seconds for which nobody looks after a kill; the course waits meanwhile.
    """
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), RULES)
        try:
            found: list[Change] = []
            state: dict[str, str] = {}
            for second, reading in enumerate(course):
                if second in kills:
                    world.kill()
                    world.wait(down)
                for _, name, changed in world.run(1, lambda _, reading=reading: VALUES[reading]):  # type: ignore[misc]
                    if state.get(name) != changed:
                        found.append((float(second), name, changed))
                    state[name] = changed
            return found
        finally:
            world.close()


@settings(max_examples=25, deadline=None)
@given(courses)
def test_nothing_fires_before_its_time_or_resolves_for_want_of_data(course: list[str]) -> None:
    """Firing has `for` of heat in sight behind it; what ends, or begins to, has a cool look in that second."""
    before: dict[str, str] = {}
    for second, name, state in play(course):
        at = int(second)
        if state == "firing":
            assert course[at] == HOT
            assert name == "Hottest" or before[name] == "recovering" or _in_sight(course[: at + 1]) >= FOR
        if state in ("resolved", "recovering", "inactive"):
            assert course[at] == COOL
        before[name] = state


def _in_sight(course: list[str]) -> int:
    """Seconds of heat up to the end of ``course``; a gap longer than three looks counts for one."""
    watched, last = 0, None
    for second, reading in enumerate(course):
        if reading == COOL:
            watched, last = 0, None
        elif reading == HOT:
            step = 0 if last is None else second - last
            watched, last = watched + (step if step <= GAP_INTERVALS else 1), second
    return watched


@settings(max_examples=25, deadline=None)
@given(courses, st.sets(st.integers(1, 24), max_size=3), st.sampled_from([0.0, 2.0, 3600.0]))
def test_a_kill_anywhere_changes_nothing_but_time(course: list[str], kills: set[int], down: float) -> None:
    """However often and for however long: with data long enough to the end, every alert ends up where it would have."""
    settled = [*course, *([course[-1]] if course[-1] in (HOT, COOL) else [COOL]) * (FOR + KEEP + TOLERANCE)]
    undisturbed, disturbed = play(settled), play(settled, kills=sorted(kills), down=down)
    for name in ("Hot", "Hottest"):
        assert _last(disturbed, name) == _last(undisturbed, name)
    # A rule without patience owes nothing to time: the same changes in the same looks.
    assert [each for each in disturbed if each[1] == "Hottest"] == [
        each for each in undisturbed if each[1] == "Hottest"
    ]


def _last(changes: list[Change], name: str) -> str:
    """Where an alert is in the end; nothing is the same as over."""
    found = [state for _, each, state in changes if each == name]
    return found[-1] if found and found[-1] not in ("resolved", "inactive") else "over"
