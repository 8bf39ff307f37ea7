"""An iterable read by a thread of its own: nothing is lost, doubled, or held without a bound."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.ahead import Ahead

_SOON = 10.0


@settings(deadline=None, max_examples=50)
@given(weights=st.lists(st.integers(1, 9), max_size=60), most=st.integers(1, 12))
def test_all_items_come_once_in_order_and_little_waits(weights: list[int], most: int) -> None:
    """At no moment more than ``most`` is waiting, unless it is one item alone."""
    taken = 0
    made = 0
    worst = 0

    def begin() -> Iterator[int]:
        nonlocal made, worst
        for weight in weights:
            # What was made before, less what was taken, has been let in; both sides may have one in their hands.
            worst = max(worst, sum(weights[taken:made]))
            made += 1
            yield weight

    found = []
    with Ahead(begin, most=most, weigh=lambda item: item) as ahead:
        for item in ahead:
            found.append(item)
            taken = len(found)
    assert found == weights
    assert worst <= most + 2 * 9


def test_an_item_heavier_than_the_bound_passes() -> None:
    """A bound that nothing could pass would hang."""
    with Ahead(lambda: ["a", "b"], most=1, weigh=lambda _: 5) as ahead:
        assert list(ahead) == ["a", "b"]


def test_what_comes_while_much_waits_is_made_lighter() -> None:
    """The first ones are not: they are about to be taken. All fit, so the source is read to its end."""
    read = threading.Event()

    def begin() -> Iterator[int]:
        yield from [4] * 6
        read.set()

    with Ahead(begin, most=18, weigh=lambda item: item, shrink=lambda item: item // 2, loose=8) as ahead:
        assert read.wait(_SOON)
        assert list(ahead) == [4, 4, 4, 2, 2, 2]


def test_the_source_is_read_before_anybody_asks() -> None:
    """That is what it is for."""
    read = threading.Event()

    def begin() -> Iterator[int]:
        yield 1
        read.set()

    with Ahead(begin, most=10) as ahead:
        assert read.wait(_SOON)
        assert list(ahead) == [1]


def test_an_error_comes_in_its_place() -> None:
    """After the items before it, each time that somebody asks again."""

    def begin() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with Ahead(begin, most=10) as ahead:
        assert ahead.take() == 1
        for _ in range(2):
            with pytest.raises(OSError, match="gone"):
                ahead.take()


def test_leaving_closes_the_source_and_ends_the_thread() -> None:
    """A source that waits for room is let go, in its own thread."""
    closed: list[str] = []

    def begin() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.append(threading.current_thread().name)

    with Ahead(begin, most=3) as ahead:
        assert ahead.take() == 0
    until = time.monotonic() + _SOON
    while not closed:
        assert time.monotonic() < until
        time.sleep(0.002)
    assert closed == ["read-ahead"]


def test_leaving_does_not_wait_for_a_source_that_hangs() -> None:
    """A server that doesn't answer holds up nobody's end."""
    release = threading.Event()

    def begin() -> Iterator[int]:
        release.wait(_SOON)
        yield 1

    began = time.monotonic()
    with Ahead(begin, most=3):
        pass
    assert time.monotonic() - began < _SOON / 2
    release.set()
