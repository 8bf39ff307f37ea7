"""The database file: every moment of the last hour, one writer, nothing lost."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent.clock import ManualClock
from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore.protobuf import delimited, varint
from agent.sandbox import frames
from agent.sandbox.catalogue import Run
from agent.sandbox.keys import AFTER_DESCENDANTS, segment_key
from agent.sandbox.status import StatusError
from agent.sandbox.store import Store

ROOT = "projects/p/databases/d"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Iterator[Store]:
    store = Store(None, clock=clock, readers=4)
    yield store
    store.close()


def put(store: Store, document_id: str, content: bytes | None) -> int:
    """Write (or, without content, delete) one document of collection ``c``; the commit time."""
    collection = store.collection(ROOT, "c")
    with store.commit() as commit:
        stored = commit.find(collection, segment_key(document_id))
        if content is not None:
            commit.put(collection, segment_key(document_id), frames.named(document_id) + content, stored)
        elif stored is not None:
            commit.remove(collection, stored)
        return commit.time


def read(store: Store, moment: int | None = None) -> dict[str, bytes]:
    """Id and fields of every document of collection ``c`` at ``moment``, by scan and checked by get and count."""
    collection = store.collection(ROOT, "c")
    run = Run(collection=collection, low=b"", high=AFTER_DESCENDANTS)
    with store.view(moment) as view:
        rows = list(view.rows(run))
        assert [view.get(collection, row[0]) for row in rows] == rows
        assert view.count(run) == len(rows)
        assert list(view.rows(run, descending=True)) == rows[::-1]
    found = {}
    for _, created, updated, framed in rows:
        name = frames.parse(framed).name
        found[name] = frames.body(framed, created, updated).removeprefix(frames.named(name))
    return found


def field(number: int) -> bytes:
    """A document's only field, with a value that depends on ``number``."""
    return delimited(b"\x12", delimited(b"\x0a", b"n") + delimited(b"\x12", b"\x10" + varint(number)))


def test_every_past_state_is_readable(store: Store, clock: ManualClock) -> None:
    """Random writes and deletes: reading at each commit time gives exactly the state after that commit."""
    pick = random.Random(7)
    state: dict[str, bytes] = {}
    history = []
    for number in range(150):
        clock.advance(pick.random())
        document_id = pick.choice("abcdef")
        content = None if pick.random() < 0.3 else field(number)
        moment = put(store, document_id, content)
        state = {k: v for k, v in state.items() if k != document_id}
        if content is not None:
            state[document_id] = content
        history.append((moment, dict(state)))
    for moment, expected in history:
        assert read(store, moment) == expected
    assert read(store) == state


def test_commit_times_increase_while_the_clock_does_not(store: Store, clock: ManualClock) -> None:
    """A clock that stands still or steps back never gives two commits one time."""
    times = [put(store, "a", field(1)), put(store, "a", field(2))]
    clock.jump(-60)
    times.append(put(store, "a", field(3)))
    assert times == sorted(set(times))


def test_a_read_time_is_settled_once_read(store: Store) -> None:
    """Nothing is ever committed at or before a time that somebody has read at."""
    with store.view() as view:
        moment = view.time
    assert put(store, "a", field(1)) > moment
    assert read(store, moment) == {}


def test_the_window_is_enforced(store: Store, clock: ManualClock) -> None:
    """Reading more than an hour back or in the future is refused with production's status."""
    moment = put(store, "a", field(1))
    clock.advance(3_599)
    assert read(store, moment)
    clock.advance(2)
    with pytest.raises(StatusError, match="too old") as refusal:
        read(store, moment)
    assert refusal.value.code.name == "FAILED_PRECONDITION"
    with pytest.raises(StatusError, match="future") as refusal:
        read(store, moment + 7_200_000_000)
    assert refusal.value.code.name == "INVALID_ARGUMENT"


def test_what_nobody_can_read_is_forgotten(clock: ManualClock, tmp_path: Path) -> None:
    """Versions older than the window leave the file, those within it stay readable."""
    store = Store(tmp_path, clock=clock, readers=1, window=timedelta(minutes=5))
    for number in range(20):
        put(store, "a", field(number))
    clock.advance(301)
    put(store, "a", field(100))
    moment = put(store, "a", field(101))
    put(store, "a", field(102))
    assert read(store, moment) == {"a": field(101)}
    store.close()
    assert _versions(tmp_path) == 3


def _versions(folder: Path) -> int:
    connection = sqlite3.connect(folder / "firestore.sqlite3")
    (count,) = connection.execute("SELECT count(*) FROM versions").fetchone()
    connection.close()
    return int(count)


def test_writing_the_same_again_changes_nothing(store: Store) -> None:
    """A write that leaves a document as it is keeps its update time and makes no version."""
    first = put(store, "a", field(1))
    put(store, "a", field(1))
    collection = store.collection(ROOT, "c")
    with store.view() as view:
        row = view.get(collection, segment_key("a"))
    assert row is not None
    assert (row[1], row[2]) == (first, first)


def test_a_failed_commit_leaves_no_trace(store: Store) -> None:
    """An error in the middle of a commit undoes all of it, and the next commit works."""
    put(store, "a", field(1))
    collection = store.collection(ROOT, "c")

    def change_then_fail() -> None:
        with store.commit() as commit:
            commit.put(collection, segment_key("b"), frames.named("b"), None)
            raise KeyError

    with pytest.raises(KeyError):
        change_then_fail()
    assert read(store) == {"a": field(1)}
    put(store, "b", field(2))
    assert sorted(read(store)) == ["a", "b"]


def test_readers_see_whole_commits(store: Store) -> None:
    """While a writer changes two documents together, no reader ever sees one of them alone."""
    collection = store.collection(ROOT, "c")
    torn = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if len(set(read(store).values())) > 1:
                torn.append(1)

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    for number in range(100):
        with store.commit() as commit:
            for name in "ab":
                stored = commit.find(collection, segment_key(name))
                commit.put(collection, segment_key(name), frames.named(name) + field(number), stored)
    done.set()
    for watcher in watchers:
        watcher.join()
    assert not torn


def test_data_outlives_the_store(tmp_path: Path) -> None:
    """A folder opened again has its documents, and its past."""
    store = Store(tmp_path, readers=1)
    moment = put(store, "a", field(1))
    put(store, "a", field(2))
    store.close()
    again = Store(tmp_path, readers=1)
    assert read(again) == {"a": field(2)}
    assert read(again, moment) == {"a": field(1)}
    again.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error says which folder and what to do."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(Misconfigured, match="file/data") as refusal:
        Store(blocked / "data")
    assert refusal.value.reason is MisconfiguredReason.NOT_WRITABLE
