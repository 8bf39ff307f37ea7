"""The undo journal: what is read back is what was written, and damage is told from a torn tail."""

from __future__ import annotations

import io
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.faults import Permanent, PermanentReason
from agent.migration.journal import (
    FRAME,
    MAGIC,
    RESULT,
    Action,
    Counts,
    Intent,
    JournalWriter,
    Kind,
    Result,
    ScanRange,
    SetAside,
    State,
    frame,
    segments,
)
from agent.migration.replay import Replay, frames_of, read_intents, replay


def intent(number: int, size: int = 200) -> Intent:
    return Intent(
        Action.UPDATE,
        f"projects/p/databases/d/documents/a/{number:05d}",
        bytes([number % 256]) * size,
        number + 1,
        b"d" * 16,
    )


def writer(folder: Path, **options: object) -> JournalWriter:
    return JournalWriter(folder, run="run-1", database="projects/p/databases/d", checksum="c", **options)  # type: ignore[arg-type]


def fill(folder: Path, frames: int = 5, **options: object) -> None:
    with writer(folder, **options) as journal:
        journal.ranges([ScanRange(index=0, collection="a")])
        for frame in range(frames):
            batch = [intent(frame * 10 + i) for i in range(10)]
            sequences = journal.intents(0, batch[-1].name, batch)
            journal.results([Result(s, State.APPLIED, 1000 + s) for s in sequences])
            journal.done(0, batch[-1].name, Counts(scanned=10, written=10))


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond this: the kernel cuts writes short and then fails them, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_a_sound_journal(tmp_path: Path) -> None:
    """The frame that did not fit is not there at all; what was before it, and what still fits after it, can be read."""
    with writer(tmp_path) as journal:
        journal.ranges([ScanRange(index=0, collection="a")])
        kept = journal.intents(0, "x", [intent(1)])
        path = segments(tmp_path)[0][1]
        random = os.urandom(20_000)
        with room_for(path.stat().st_size + 5_000), pytest.raises(Permanent) as full:
            journal.intents(0, "y", [intent(2)._replace(before=random)])
        assert full.value.reason is PermanentReason.DISK_FULL
        assert "free some space" in full.value.hint
        journal.results([Result(kept[0], State.APPLIED, 77)])
    told = replay(tmp_path)
    assert (told.next_sequence, told.torn) == (1, False)
    assert told.result(0) == Result(0, State.APPLIED, 77)


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    """Ranges, intents, results, checkpoints and set-aside documents survive as they were."""
    fill(tmp_path)
    with writer(tmp_path, next_sequence=50) as journal:
        journal.set_aside([SetAside(name="a/x", collection="a", why="odd")])
        journal.results([Result(3, State.UNDONE, 77)])
    told = replay(tmp_path)
    assert told.header is not None
    assert (told.header.run, told.header.segment) == ("run-1", 2)
    assert told.ranges == {0: ScanRange(index=0, collection="a")}
    assert told.finished == {0: intent(49).name}
    assert told.counts == {0: Counts(scanned=50, written=50)}
    assert told.aside == [SetAside(name="a/x", collection="a", why="odd")]
    assert [place.count for place in told.frames] == [10] * 5
    assert read_intents(told.frames[2]) == [intent(20 + i) for i in range(10)]
    assert told.result(4) == Result(4, State.APPLIED, 1004)
    assert (told.states[3], told.update_times[3], told.undo_times[3]) == (State.UNDONE, 1003, 77)
    assert not told.torn


@given(cut=st.integers(min_value=0, max_value=2500))
@settings(max_examples=60, deadline=None)
def test_a_torn_tail_loses_only_what_was_being_written(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Wherever kill -9 cuts the file, everything whole before the cut is read and a new session goes on."""
    folder = tmp_path_factory.mktemp("torn")
    fill(folder)
    whole = replay(folder)
    (_, path) = segments(folder)[0]
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])
    told = replay(folder)
    assert len(told.frames) <= len(whole.frames)
    assert whole.frames[: len(told.frames)] == told.frames
    with writer(folder, next_sequence=told.next_sequence) as journal:
        journal.intents(0, "z", [intent(999)])
    again = replay(folder)
    assert len(again.frames) == len(told.frames) + 1
    assert read_intents(again.frames[-1]) == [intent(999)]


class Counted(io.BytesIO):
    """A segment that notes how much of it is asked for at a time."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.sizes: list[int] = []

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.sizes.append(len(data))
        return data


def test_a_segment_is_read_frame_by_frame(tmp_path: Path) -> None:
    """However long a segment is, no more than one frame of it is in memory, and none that nobody asked for yet."""
    fill(tmp_path, frames=400)
    (_, path) = segments(tmp_path)[0]
    file = Counted(path.read_bytes())
    told = Replay()
    found = frames_of(file, path, told)

    next(found)
    first = sum(file.sizes)
    longest = max(len(payload) for _, _, payload in found)

    assert first < 500
    assert max(file.sizes) == longest < 1000
    assert sum(file.sizes) == path.stat().st_size > 100 * longest
    assert not told.torn


def test_a_torn_end_is_looked_through_in_pieces(tmp_path: Path) -> None:
    """A length that is damaged makes nobody read so much, and what follows the damage is not read at once either."""
    fill(tmp_path, frames=1)
    (_, path) = segments(tmp_path)[0]
    sound = path.read_bytes()
    file = Counted(sound + MAGIC + bytes([Kind.INTENTS]) + b"\xff" * 4 + bytes(1_000_000))
    told = Replay()

    assert sum(FRAME.size + len(payload) for _, _, payload in frames_of(file, path, told)) == len(sound)

    assert told.torn
    assert max(file.sizes) <= 1 << 16


@pytest.mark.parametrize("gap", [0, 1, (1 << 16) - 2, (1 << 16) - 1, 1 << 16, 200_000])
def test_a_sound_frame_is_found_wherever_it_follows_damage(tmp_path: Path, gap: int) -> None:
    """Also where its first two bytes lie on both sides of a border between the pieces that are looked through."""
    fill(tmp_path, frames=1)
    (_, path) = segments(tmp_path)[0]
    file = io.BytesIO(path.read_bytes() + b"x" + bytes(gap) + frame(Kind.RESULTS, RESULT.pack(3, 1, 5)))

    with pytest.raises(Permanent, match="sound records after it"):
        list(frames_of(file, path, Replay()))


def test_what_is_appended_meanwhile_is_not_damage(tmp_path: Path) -> None:
    """Somebody looks at the journal of a run that goes on: its last frame is half written, and then more than whole."""
    fill(tmp_path, frames=1)
    (_, path) = segments(tmp_path)[0]
    sound, more = path.read_bytes(), frame(Kind.RESULTS, RESULT.pack(3, 1, 5))
    file = io.BytesIO(sound + more[:20])
    told = Replay()
    found = frames_of(file, path, told)
    next(found)
    place = file.seek(0, io.SEEK_CUR)
    file.seek(0)
    file.write(sound + more + more)
    file.seek(place)

    assert [kind for kind, _, _ in found] == [Kind.RANGES, Kind.INTENTS, Kind.RESULTS, Kind.DONE]
    assert told.torn


def test_damage_in_the_middle_is_corruption(tmp_path: Path) -> None:
    """A flipped bit with sound records after it is never taken for the end of the journal."""
    fill(tmp_path)
    (_, path) = segments(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Permanent) as damaged:
        replay(tmp_path)
    assert damaged.value.reason is PermanentReason.CORRUPT


def test_a_lost_end_of_an_earlier_segment_is_corruption(tmp_path: Path) -> None:
    """Intents that a later session counted on can't be missing."""
    fill(tmp_path)
    with writer(tmp_path, next_sequence=50) as journal:
        journal.intents(0, "z", [intent(50)])
    (_, path) = segments(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(Permanent) as damaged:
        replay(tmp_path)
    assert damaged.value.reason is PermanentReason.CORRUPT


def test_a_missing_segment_is_corruption(tmp_path: Path) -> None:
    """Segments are numbered without gaps."""
    fill(tmp_path, frames=40, segment_bytes=1000)
    found = segments(tmp_path)
    assert len(found) > 3
    found[1][1].unlink()
    with pytest.raises(Permanent, match="missing"):
        replay(tmp_path)


def test_an_outcome_of_a_later_version_is_refused(tmp_path: Path) -> None:
    """What an unknown outcome means for its document can't be guessed: neither undone nor left alone."""
    fill(tmp_path, frames=1)
    (_, path), *_ = segments(tmp_path)
    with path.open("ab") as file:
        file.write(frame(Kind.RESULTS, RESULT.pack(3, 99, 5)))
    with pytest.raises(Permanent, match="the outcome 99") as caught:
        replay(tmp_path)
    assert caught.value.reason is PermanentReason.CORRUPT


def test_segments_are_handed_on_when_they_are_complete(tmp_path: Path) -> None:
    """Each closed segment is offered once for copying, in order, the last one at the end."""
    closed: list[Path] = []
    fill(tmp_path, frames=40, segment_bytes=1000, on_closed=closed.append)
    assert closed == [path for _, path in segments(tmp_path)]
    assert len(replay(tmp_path).frames) == 40


def test_many_threads_share_one_journal(tmp_path: Path) -> None:
    """Batches of several threads get sequences of their own and all of them are on disk."""
    with writer(tmp_path) as journal:

        def work(thread: int) -> None:
            for number in range(20):
                journal.intents(0, "z", [intent(thread * 1000 + number), intent(thread * 1000 + number + 500)])

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told = replay(tmp_path)
    assert told.next_sequence == 160
    assert len({item.name for place in told.frames for item in read_intents(place)}) == 160


def test_no_journal_is_said(tmp_path: Path) -> None:
    """A folder without segments is not an empty journal."""
    with pytest.raises(Permanent) as missing:
        replay(tmp_path)
    assert missing.value.reason is PermanentReason.NOT_FOUND
