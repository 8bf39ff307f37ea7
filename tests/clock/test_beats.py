"""Loops keep step by beating on multiples of their intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import next_beat


@pytest.mark.parametrize(
    ("now", "interval", "ahead", "expected"),
    [
        (10.3, 1.0, 0.0, 11.0),
        (11.0, 1.0, 0.0, 12.0),
        (10.3, 1.0, 0.1, 10.9),
        (10.95, 1.0, 0.1, 11.9),
        (10.9, 5.0, 0.1, 14.9),
    ],
)
def test_the_next_beat(now: float, interval: float, ahead: float, expected: float) -> None:
    """It is a multiple of the interval, less what a loop is ahead, and never now."""
    assert next_beat(now, interval, ahead=ahead) == pytest.approx(expected)


@given(
    now=st.floats(0, 1e7), interval=st.sampled_from([0.02, 0.2, 1.0, 5.0, 60.0]), ahead=st.sampled_from([0.0, 0.1, 0.4])
)
def test_a_beat_is_never_past_and_never_more_than_an_interval_off(now: float, interval: float, ahead: float) -> None:
    """No loop spins and none pauses, whatever the clock says."""
    ahead = min(ahead, interval / 2)
    beat = next_beat(now, interval, ahead=ahead)
    assert now < beat <= now + interval * (1 + 1e-6) + 1e-6
