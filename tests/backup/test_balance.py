"""Even ranges from what an earlier backup knows: bytes for documents, documents for names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.backup import Backups, BackupType
from agent.backup.balance import even_cuts, mean_sizes
from agent.backup.segments import Segment
from agent.firestore import Firestore, NameRange, Scope
from agent.storage import DirectoryStorage
from tests.backup.conftest import contents, write
from tests.backup.test_restore import ReadOnly

Make = Callable[..., Backups]


def segment(first: str, last: str, documents: int, raw_bytes: int) -> Segment:
    return Segment(
        file="documents-000-0000.pb.zst",
        first=first,
        last=last,
        documents=documents,
        raw_bytes=raw_bytes,
        stored_bytes=raw_bytes // 4,
        sha256="",
        content_sha256="",
        collections=(),
    )


def test_mean_sizes_by_root_collection() -> None:
    """Nested documents count for their root; a segment of several roots only where none tells of one root alone."""
    sizes = mean_sizes(
        [
            segment("logs/a", "logs/m", 900, 90_000),
            segment("logs/n", "users/u1", 100, 500_000),
            segment("users/u2", "users/u3/cards/c9", 10, 90_000),
            segment("users/u4", "users/u5", 10, 70_000),
            segment("vast/a", "zoo/z", 10, 1_000),
        ]
    )
    assert sizes == {"logs": 100, "users": 8_000, "vast": 100, "zoo": 100}
    assert mean_sizes([]) == {}


def test_cuts_are_even_in_documents() -> None:
    """Many ranges of few large documents become one; those of many small ones stay."""
    large = [segment(f"large/{number}", f"large/{number}x", 10, 10_000_000) for number in range(8)]
    small = [segment(f"small/{number}", f"small/{number}x", 1_000, 1_000_000) for number in range(8)]
    assert even_cuts([*large, *small], 8) == ["large/0", *(f"small/{number}" for number in range(1, 8))]


def test_segments_that_are_too_large_are_no_help() -> None:
    """One reader would have most of the work: the server is asked for better cuts."""
    many = segment("a/0", "a/1", 90_000, 1_000_000)
    assert even_cuts([many, segment("b/0", "b/1", 10_000, 90_000_000)], 4) == []
    assert even_cuts([], 4) == even_cuts([segment("a/0", "a/1", 0, 0)], 4) == []


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 16))
def test_no_stretch_is_much_larger_than_its_share(documents: list[int], parts: int) -> None:
    """Cuts are firsts of segments, in order, from the very first on; no more stretches than were asked for."""
    segments = [segment(f"a/{n:03}", f"a/{n:03}x", count, 1) for n, count in enumerate(documents)]
    cuts = even_cuts(segments, parts)
    share = sum(documents) / parts
    assert bool(cuts) == (max(documents) <= 2 * share)
    assert cuts == sorted(set(cuts))
    assert len(cuts) <= parts
    if cuts:
        assert cuts[0] == segments[0].first
        for first, last in pairwise([*cuts, "b"]):
            held = sum(one.documents for one in segments if first <= one.first < last)
            assert held <= share + max(documents)


class Production(ReadOnly):
    """Cuts where it is told to, as production does, and notes what it was told."""

    def __init__(self, firestore: Firestore) -> None:
        super().__init__(firestore)
        self.known: list[Sequence[str]] = []
        self.sizes: list[Mapping[str, float] | None] = []

    def ranges(
        self,
        parts: int,
        read_time: datetime,
        *,
        known: Sequence[str] = (),
        sizes: Mapping[str, float] | None = None,
    ) -> list[Scope]:
        assert (parts, read_time <= self.server_time()) == (8, True)
        self.known.append(known)
        self.sizes.append(sizes)
        starts = [*known[1:]] or ["few/d3", *(f"many/d{number:03}" for number in range(0, 200, 20))]
        return [NameRange(first=first, last=last) for first, last in pairwise(["", *starts, ""])]


def test_each_backup_learns_from_the_last_whole_one(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make
) -> None:
    """The first knows nothing, a full one sizes, an increment cuts; whatever they are, nothing is missed."""
    write(firestore, {f"few/d{number}": {"b": bytes(5_000)} for number in range(6)})
    write(firestore, {f"many/d{number:03}": {"n": number} for number in range(200)})
    database = Production(firestore)
    backups = backups_of(database, local, parallel=2)

    backups.create(BackupType.SNAPSHOT)
    write(firestore, {"few/d1": {"n": 1}, "many/d007": None, "many/new": {"b": bytes(50_000)}})
    backups.create(BackupType.FULL)
    backups.create(BackupType.INCREMENTAL)
    write(firestore, {"few/d2": {"n": 2}, "many/d150": None})
    last_increment = backups.create(BackupType.INCREMENTAL).id
    backups.create(BackupType.FULL)

    assert not database.sizes[0]
    sizes = database.sizes[1]
    assert sizes is not None
    assert sizes["few"] > 5_000 > 200 > sizes["many"] > 0
    assert [bool(known) for known in database.known] == [False, False, True, True, False]
    assert len(database.known[2]) <= 8
    after = database.sizes[4]
    assert after is not None
    assert after["many"] > sizes["many"], "it learns from full backups, not from what changed last"
    for backup in (last_increment, backups.list()[0].id):
        names = [json.loads(line)["name"] for line in backups.export(backup)]
        assert names == sorted(contents(firestore)), backup
