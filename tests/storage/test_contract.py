"""The promise of ``Storage``, sentence by sentence, for every kind of place."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from agent.faults import Permanent, PermanentReason, RunbookdError
from agent.storage import Storage


def read(storage: Storage, key: str) -> bytes:
    return b"".join(storage.get(key))


def test_put_then_get_returns_the_bytes(storage: Storage) -> None:
    """What was put is what is got, empty and multi-chunk objects included."""
    large = [bytes([number % 251]) * 300_000 for number in range(60)]  # 18 MB: more than one download request
    storage.put("a/empty", [])
    stored = storage.put("a/large", iter(large))
    assert read(storage, "a/empty") == b""
    assert read(storage, "a/large") == b"".join(large)
    assert stored.size_bytes == 18_000_000
    assert stored.stored_at.tzinfo is not None


def test_list_is_sorted_and_filtered_by_prefix(storage: Storage) -> None:
    """A listing holds the keys with the prefix, in order, with their sizes."""
    for key in ("b-2/x", "b-1/y", "b-1/x", "c"):
        storage.put(key, [key.encode()])
    assert [item.key for item in storage.list()] == ["b-1/x", "b-1/y", "b-2/x", "c"]
    assert [item.key for item in storage.list("b-1/")] == ["b-1/x", "b-1/y"]
    assert [item.key for item in storage.list("b-")] == ["b-1/x", "b-1/y", "b-2/x"]
    assert storage.list("nothing/") == []
    assert storage.list("c")[0].size_bytes == 1


def test_put_never_overwrites(storage: Storage) -> None:
    """A second put of the key with other bytes is a conflict and leaves the first object alone."""
    storage.put("key", [b"first"])
    with pytest.raises(Permanent) as raised:
        storage.put("key", [b"other"])
    assert raised.value.reason is PermanentReason.CONFLICT
    assert read(storage, "key") == b"first"


def test_put_of_the_same_bytes_again_succeeds(storage: Storage) -> None:
    """Sending the same object again, as after a lost answer, is no conflict."""
    storage.put("key", [b"same", b"bytes"])
    assert storage.put("key", [b"samebytes"]).size_bytes == 9


def test_replace_overwrites(storage: Storage) -> None:
    """A record that changes is replaced whole."""
    storage.replace("record", b"longer than the next")
    storage.replace("record", b"short")
    assert read(storage, "record") == b"short"


def test_an_interrupted_put_leaves_nothing(storage: Storage) -> None:
    """If the source of the bytes fails, its error is raised on and no part of the object is there."""

    def broken() -> Iterator[bytes]:
        yield b"x" * 1_000_000
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        storage.put("a/key", broken())
    assert storage.list() == []
    assert not storage.exists("a/key")


def test_an_object_is_invisible_until_it_is_whole(storage: Storage) -> None:
    """While a put is under way, neither list nor exists nor a sweep knows of it."""
    seen: list[object] = []

    def watched() -> Iterator[bytes]:
        yield b"x" * 1_000_000
        seen.extend([storage.list(), storage.exists("key"), storage.sweep()])
        yield b"y"

    storage.put("key", watched())
    assert seen == [[], False, 0]
    assert len(read(storage, "key")) == 1_000_001


def test_get_of_a_missing_key(storage: Storage) -> None:
    """Reading what is not there says so."""
    with pytest.raises(Permanent) as raised:
        read(storage, "no/such/key")
    assert raised.value.reason is PermanentReason.NOT_FOUND


def test_delete_is_idempotent(storage: Storage) -> None:
    """Removing twice, or removing what never was, is no error, and neighbours stay."""
    storage.put("a/one", [b"1"])
    storage.put("a/two", [b"2"])
    storage.delete("a/one")
    storage.delete("a/one")
    storage.delete("z")
    assert [item.key for item in storage.list()] == ["a/two"]
    storage.delete("a/two")
    assert storage.list() == []


def test_usage_counts_published_bytes(storage: Storage) -> None:
    """Usage is the sum of the objects' sizes."""
    storage.put("a", [b"x" * 1000])
    storage.put("b/c", [b"x" * 500])
    assert storage.usage().stored_bytes == 1500


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a/.b", "a b", "ä", "a\n"])
def test_keys_are_plain(storage: Storage, key: str) -> None:
    """A key that another kind of storage could not hold, or that leaves the root, is refused."""
    with pytest.raises(Permanent) as raised:
        storage.put(key, [b"x"])
    assert raised.value.reason is PermanentReason.INVALID


def test_of_two_writers_of_a_key_one_wins(storage: Storage) -> None:
    """Concurrent puts of one key end in one whole object and one conflict."""
    start = threading.Barrier(4)
    conflicts: list[RunbookdError] = []
    written: list[bytes] = []

    def write(data: bytes) -> None:
        start.wait()
        try:
            storage.put("contested", [data])
            written.append(data)
        except Permanent as error:
            conflicts.append(error)

    threads = [threading.Thread(target=write, args=(bytes([65 + n]) * 100_000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1
    assert len(conflicts) == 3
    assert read(storage, "contested") == written[0]
