"""How many changed documents an incremental backup fetches at once."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from agent.backup.manifest import Tally
from agent.backup.portions import Portions
from agent.firestore import RawDocument
from agent.firestore.document import with_name
from agent.firestore.protobuf import delimited

_ROOT = "projects/p/databases/(default)/documents"
_MEGABYTE = 1_000_000


def names(collection: str, count: int) -> list[str]:
    return [f"{_ROOT}/{collection}/d{number:05d}" for number in range(count)]


def sized(name: str, size: int) -> RawDocument:
    """A document of somewhat more than ``size`` bytes."""
    return RawDocument(with_name(name, delimited(b"\x7a", bytes(size))))


def lengths(of: list[str], tallies: Mapping[str, Tally], sizes: Mapping[str, int]) -> list[int]:
    """Of the portions, each of which comes before the next is asked for."""
    portions = Portions(of, tallies)
    found: list[str] = []
    counts: list[int] = []
    for portion in portions:
        portions.came([sized(name, sizes[name.split("/")[-2]]) for name in portion])
        found += portion
        counts.append(len(portion))
    assert found == of
    return counts


def test_small_documents_come_two_hundred_at_once() -> None:
    """As many as one request is good for."""
    tallies = {"users": Tally(documents=1000, bytes=900_000)}
    assert lengths(names("users", 450), tallies, {"users": 900}) == [200, 200, 50]


def test_the_parent_tells_how_large_they_are() -> None:
    """From the first portion on, in collections below others too; it is a collection's own mean that counts."""
    tallies = {"notes": Tally(documents=10, bytes=10), "films": Tally(documents=10, bytes=9 * _MEGABYTE)}
    of = names("users/u1/films", 5) + names("users/u1/notes", 3)
    assert lengths(of, tallies, {"films": 900_000, "notes": 1}) == [2, 2, 2, 2]


def test_what_the_parent_does_not_know_is_learnt() -> None:
    """Documents of a new collection, or far larger than before: one portion, and the next is cut to size."""
    assert lengths(names("new", 130), {}, {"new": 400_000})[:3] == [100, 4, 4]
    shrunk = {"grown": Tally(documents=100, bytes=100), "small": Tally(documents=0, bytes=0)}
    assert lengths(names("grown", 210), shrunk, {"grown": 1_000_000})[:3] == [200, 1, 1]


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=40), st.dictionaries(st.sampled_from("abc"), st.integers(0)))
def test_every_name_comes_once_in_order(collections: list[str], known: dict[str, int]) -> None:
    """Whatever a manifest claims."""
    of = [f"{_ROOT}/{collection}/{number}" for number, collection in enumerate(collections)]
    tallies = {name: Tally(documents=size % 3, bytes=size) for name, size in known.items()}
    assert list(chain.from_iterable(Portions(of, tallies))) == of
