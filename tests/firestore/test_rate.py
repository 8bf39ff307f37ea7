"""The ceiling on writes."""

from __future__ import annotations

import pytest

from agent.clock import ManualClock
from agent.firestore.rate import NEW_COLLECTION, RateLimit, TokenBucket


def test_average_holds_while_batches_stay_whole() -> None:
    """Ten batches of 500 at 1,000 a second take the time of nine: the last one's debt nobody waits for."""
    clock = ManualClock()
    bucket = TokenBucket(RateLimit(per_second=1000), clock)
    for _ in range(10):
        bucket.take(500)
    assert clock.monotonic() == pytest.approx(4.5, abs=0.001)


def test_idle_time_is_not_saved_up_beyond_a_second() -> None:
    """After a pause no flood follows."""
    clock = ManualClock()
    bucket = TokenBucket(RateLimit(per_second=100), clock)
    clock.advance(3600)
    for _ in range(11):
        bucket.take(20)
    assert clock.monotonic() - 3600 == pytest.approx(1.0, abs=0.001)


def test_new_collections_ramp_by_half_every_five_minutes() -> None:
    """500/50/5: 500 a second in the first five minutes, 750 in the next."""
    clock = ManualClock()
    bucket = TokenBucket(NEW_COLLECTION, clock)
    written = 0
    while clock.monotonic() < 600:
        bucket.take(50)
        written += 50
    assert written == pytest.approx(500 * 300 + 750 * 300, rel=0.01)
