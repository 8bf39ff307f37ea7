"""Reading ahead: order, bounds, errors in their place, and an end when nobody wants any more."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

import pytest

from agent.faults import Permanent, PermanentReason
from agent.firestore import RawDocument
from agent.firestore.document import with_name
from agent.firestore.protobuf import delimited
from agent.migration.reading import AHEAD_BYTES, AT_ONCE, COMING, ReadAhead, Source, in_chunks

_SOON = 10.0


def _documents(collection: str, count: int, size: int = 0) -> list[RawDocument]:
    filler = delimited(b"\x7a", bytes(size)) if size else b""
    return [
        RawDocument(with_name(f"projects/p/databases/d/documents/{collection}/{n:06d}", filler)) for n in range(count)
    ]


def _in_pages(documents: Iterable[RawDocument], length: int = 300) -> Iterator[list[RawDocument]]:
    """As a server's answers are handed on."""
    remaining = iter(documents)
    while page := list(islice(remaining, length)):
        yield page


def _never() -> bool:
    return False


def _wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _SOON
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.002)


def test_documents_come_source_by_source_in_order() -> None:
    """Whatever is read at once, what is taken is as if one had been read after the other."""
    made = [_documents(name, count) for name, count in (("a", 700), ("b", 0), ("c", 1), ("d", 601), ("e", 5))]
    sources = [Source(begin=partial(_in_pages, found), expected=len(found)) for found in made]
    with ReadAhead(sources, is_over=_never) as ahead:
        assert [[raw.name for raw in ahead.documents()] for _ in sources] == [
            [raw.name for raw in found] for found in made
        ]


def test_the_next_sources_are_begun_while_the_first_is_still_taken() -> None:
    """Those that little comes before, and no more than a few; the others when it is their turn to be near."""
    begun: list[int] = []

    def source(number: int, expected: int) -> Source:
        def begin() -> Iterator[list[RawDocument]]:
            begun.append(number)
            return _in_pages(_documents(f"c{number}", 3))

        return Source(begin=begin, expected=expected)

    sources = [source(number, 3) for number in range(AT_ONCE + 2)]
    with ReadAhead(sources, is_over=_never) as ahead:
        first = ahead.documents()
        next(first)
        _wait_for(lambda: sorted(begun) == list(range(AT_ONCE)))
        assert len(list(first)) == 2
        assert len(list(ahead.documents())) == 3
        assert sorted(begun)[: AT_ONCE + 1] == list(range(AT_ONCE + 1))
    begun.clear()
    with ReadAhead([source(0, COMING + 1), source(1, 3)], is_over=_never) as ahead:
        documents = ahead.documents()
        time.sleep(0.05)
        assert begun == []
        next(documents)  # three have been taken of what was expected to be one too many
        _wait_for(lambda: begun == [0, 1])


def test_no_more_is_held_than_may_be() -> None:
    """A source that nobody takes from is read up to the bound and then waits; all of it comes in the end."""
    size = 100_000
    count = AHEAD_BYTES // size * 2
    handed_over = 0

    def begin() -> Iterator[list[RawDocument]]:
        nonlocal handed_over
        for page in _in_pages(_documents("a", count, size), 10):
            handed_over += len(page)
            yield page

    with ReadAhead([Source(begin=begin, expected=count)], is_over=_never) as ahead:
        documents = ahead.documents()
        next(documents)
        _wait_for(lambda: handed_over * size >= AHEAD_BYTES)
        time.sleep(0.05)
        assert handed_over * size < AHEAD_BYTES + 3_000_000  # and the pages in both hands
        assert len(list(documents)) == count - 1


def test_a_run_without_a_rate_reads_far_ahead_packed() -> None:
    """A server holds its result until all of it is taken. What was packed comes out byte for byte, in order."""
    made = _documents("a", 1_000, AHEAD_BYTES // 250)  # four times what is held otherwise
    read_to_its_end = threading.Event()

    def begin() -> Iterator[list[RawDocument]]:
        yield from _in_pages(made, 30)
        read_to_its_end.set()

    source = Source(begin=begin, expected=len(made))
    with ReadAhead([source], is_over=_never, is_free=lambda: True) as ahead:
        documents = ahead.documents()
        first = next(documents)
        assert read_to_its_end.wait(_SOON)
        found = [first, *documents]
    assert [(raw.name, raw.raw, raw.update_time) for raw in found] == [
        (raw.name, raw.raw, raw.update_time) for raw in made
    ]


def test_only_the_source_whose_turn_it_is_is_read_far_ahead() -> None:
    """Also of documents that can't be packed: the next source waits at the lower bound for its turn."""
    size = 100_000
    begun = [0, 0]
    made = [_unpackable(_documents(name, AHEAD_BYTES // size * 3, size)) for name in ("a", "b")]

    def source(number: int) -> Source:
        def begin() -> Iterator[list[RawDocument]]:
            for page in _in_pages(made[number], 5):
                begun[number] += len(page) * size
                yield page

        return Source(begin=begin, expected=len(made[number]))

    with ReadAhead([source(0), source(1)], is_over=_never, is_free=lambda: True) as ahead:
        first = ahead.documents()
        found = [next(first)]
        _wait_for(lambda: begun[0] == len(made[0]) * size and begun[1] >= AHEAD_BYTES)
        time.sleep(0.05)
        assert begun[1] < AHEAD_BYTES + 2_000_000
        found += first
        second = ahead.documents()
        found.append(next(second))
        _wait_for(lambda: begun[1] == len(made[1]) * size)
        found += second
    assert [raw.raw for raw in found] == [raw.raw for raws in made for raw in raws]


def _unpackable(documents: list[RawDocument]) -> list[RawDocument]:
    chance = random.Random(7)
    return [
        RawDocument.known(raw.raw[:-50_000] + chance.randbytes(50_000), name=raw.name, update_time=raw.update_time)
        for raw in documents
    ]


def test_an_error_comes_after_what_came_before_it() -> None:
    """And when its source is taken, not when it happens to be read."""

    def broken() -> Iterator[list[RawDocument]]:
        yield _documents("b", 2)
        raise Permanent(PermanentReason.INTERNAL, "the disk fell over")

    good = Source(begin=lambda: _in_pages(_documents("a", 900)), expected=900)
    with ReadAhead([good, Source(begin=broken, expected=2)], is_over=_never) as ahead:
        assert len(list(ahead.documents())) == 900
        taken = []
        with pytest.raises(Permanent, match="fell over"):
            for raw in ahead.documents():
                taken.append(raw)
        assert len(taken) == 2


def test_whoever_waits_for_a_silent_server_is_told_that_it_is_over() -> None:
    """A stopped run does not wait for the documents that don't come."""
    silent, over = threading.Event(), threading.Event()

    def begin() -> Iterator[list[RawDocument]]:
        silent.wait(_SOON)
        yield _documents("a", 1)

    began = time.monotonic()
    with ReadAhead([Source(begin=begin, expected=1)], is_over=over.is_set) as ahead:
        threading.Timer(0.05, over.set).start()
        assert list(ahead.documents()) == []
    assert time.monotonic() - began < _SOON / 2
    silent.set()


def test_sources_that_are_left_are_closed() -> None:
    """Their calls end, so that the server doesn't go on for nobody."""
    closed = threading.Event()

    def begin() -> Iterator[list[RawDocument]]:
        try:
            yield from _in_pages(_documents("a", 100_000))
        finally:
            closed.set()

    with ReadAhead([Source(begin=begin, expected=100_000)], is_over=_never) as ahead:
        next(ahead.documents())
    assert closed.wait(_SOON)


def test_chunks_heed_their_number_and_their_bytes() -> None:
    """The size is asked anew for each."""
    sizes = iter([2, 3, 100, 100, 100])
    documents = [*_documents("a", 5), *_documents("b", 4, 1000)]
    chunks = list(in_chunks(iter(documents), lambda: next(sizes), most_bytes=2_000))
    assert [len(chunk) for chunk in chunks] == [2, 3, 2, 2]
    assert [raw.name for chunk in chunks for raw in chunk] == [raw.name for raw in documents]
