"""Retention: what may go, what never goes, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.backup import BackupType, Candidate, CandidateCopy, Why, decide_retention

NOW = datetime(2025, 9, 10, 8, 0, tzinfo=UTC)
PAGE = {
    BackupType.SNAPSHOT: timedelta(hours=24),
    BackupType.INCREMENTAL: timedelta(days=7),
    BackupType.FULL: timedelta(days=30),
}


def here(*, verified: bool = True) -> CandidateCopy:
    return CandidateCopy(storage="local", on_host=True, verified=verified)


def away(storage: str = "gcs", *, verified: bool = True) -> CandidateCopy:
    return CandidateCopy(storage=storage, on_host=False, verified=verified)


def a_backup(kind: BackupType, days: float, *, verified: bool = True, **more: object) -> Candidate:
    """One copy on this host, unless ``copies`` says otherwise."""
    made = Candidate(id=f"{kind}-{days}", type=kind, read_time=NOW - timedelta(days=days))
    values: dict[str, Any] = {"copies": (here(verified=verified),), **more}
    return replace(made, **values)


def whys(*candidates: Candidate) -> dict[str, Why]:
    """The reason for each backup, all of whose copies are judged alike."""
    return {v.id: v.why for v in decide_retention(candidates, retention=PAGE, now=NOW)}


def fates(*candidates: Candidate) -> dict[str, tuple[bool, Why]]:
    """Keep and why, for each copy."""
    verdicts = decide_retention(candidates, retention=PAGE, now=NOW)
    return {f"{v.storage}:{v.id}": (v.keep, v.why) for v in verdicts}


def test_the_pages_schedule() -> None:
    """Each type is kept as long as the page says, and not longer."""
    assert whys(
        a_backup(BackupType.FULL, 0),
        a_backup(BackupType.SNAPSHOT, 0.9),
        a_backup(BackupType.SNAPSHOT, 1.1),
        a_backup(BackupType.FULL, 29.9),
        a_backup(BackupType.FULL, 30.1),
    ) == {
        "full-0": Why.LAST_GOOD,
        "snapshot-0.9": Why.RETAINED,
        "snapshot-1.1": Why.EXPIRED,
        "full-29.9": Why.RETAINED,
        "full-30.1": Why.EXPIRED,
    }


def test_the_last_good_one_stays_whatever_its_age() -> None:
    """A newer backup that is not verified does not make an old, verified one dispensable."""
    assert whys(a_backup(BackupType.FULL, 400), a_backup(BackupType.FULL, 1, verified=False)) == {
        "full-1": Why.RETAINED,
        "full-400": Why.LAST_GOOD,
    }


def test_without_a_verified_backup_the_newest_stays() -> None:
    """If none was ever verified, the newest is all there is."""
    assert whys(a_backup(BackupType.FULL, 100, verified=False), a_backup(BackupType.FULL, 99, verified=False)) == {
        "full-99": Why.LAST_AT_ALL,
        "full-100": Why.EXPIRED,
    }


def test_an_increment_needs_its_parent() -> None:
    """A parent is kept as long as a child is, and an increment without its parent is no good backup."""
    full = a_backup(BackupType.FULL, 31)
    child = a_backup(BackupType.INCREMENTAL, 1, parent="full-31", verified=False)
    orphan = a_backup(BackupType.INCREMENTAL, 0, parent="full-40")
    newer = a_backup(BackupType.FULL, 2)
    assert whys(full, child, newer, orphan) == {
        "incremental-0": Why.RETAINED,
        "incremental-1": Why.RETAINED,
        "full-2": Why.LAST_GOOD,
        "full-31": Why.HAS_CHILDREN,
    }


def test_a_critical_backup_is_not_the_last_good_one() -> None:
    """A backup of some collections can't bring the database back."""
    found = whys(a_backup(BackupType.CRITICAL, 0, limited=True), a_backup(BackupType.FULL, 50))
    assert found == {"critical-0": Why.NO_POLICY, "full-50": Why.LAST_GOOD}


def test_pinned_and_used_ones_stay() -> None:
    """A pin and a lease hold, whatever the age."""
    assert whys(
        a_backup(BackupType.FULL, 0),
        a_backup(BackupType.SNAPSHOT, 5, pinned=True),
        a_backup(BackupType.SNAPSHOT, 6, in_use=True),
        a_backup(BackupType.SNAPSHOT, 7, damaged=True),
    ) == {
        "full-0": Why.LAST_GOOD,
        "snapshot-5": Why.PINNED,
        "snapshot-6": Why.IN_USE,
        "snapshot-7": Why.DAMAGED,
    }


def test_only_a_proven_one_is_sure_to_restore() -> None:
    """A newer backup that is merely verified does not make the newest proven one dispensable; both stay."""
    assert whys(
        a_backup(BackupType.FULL, 90), a_backup(BackupType.FULL, 80, proven=True), a_backup(BackupType.FULL, 70)
    ) == {"full-70": Why.LAST_GOOD, "full-80": Why.LAST_PROVEN, "full-90": Why.EXPIRED}


def test_a_copy_here_waits_for_one_elsewhere() -> None:
    """An expired copy on this host stays until one off it is verified; the copies elsewhere go by their own age."""
    newest = a_backup(BackupType.FULL, 0)
    for elsewhere in ((away(verified=False),), (away(verified=False), away("archive", verified=False))):
        old = a_backup(BackupType.FULL, 31, copies=(here(), *elsewhere), belongs_elsewhere=True)
        found = fates(newest, old)
        assert found["local:full-31"] == (True, Why.COPY_UNVERIFIED)
        assert found["gcs:full-31"] == (False, Why.EXPIRED)
    old = a_backup(BackupType.FULL, 31, copies=(here(), away(verified=False), away("archive")), belongs_elsewhere=True)
    assert not any(keep for copy, (keep, _) in fates(newest, old).items() if "full-31" in copy)


def test_a_copy_that_never_arrived_elsewhere_holds_the_one_here() -> None:
    """While the bucket is down for longer than backups are kept, those that should be in it stay on this host."""
    newest = a_backup(BackupType.FULL, 0)
    missing = a_backup(BackupType.INCREMENTAL, 8, belongs_elsewhere=True)
    snapshot = a_backup(BackupType.SNAPSHOT, 8)
    assert fates(newest, missing, snapshot) == {
        "local:full-0": (True, Why.LAST_GOOD),
        "local:incremental-8": (True, Why.COPY_UNVERIFIED),
        "local:snapshot-8": (False, Why.EXPIRED),
    }


def test_copies_elsewhere_are_kept_as_long_as_the_page_says() -> None:
    """A full backup is in the bucket and the archive for 30 days, whatever its copies' state, and no longer."""
    newest = a_backup(BackupType.FULL, 0, copies=(away(), away("archive")), belongs_elsewhere=True)
    for verified in (True, False):
        copies = (away(verified=verified), away("archive", verified=verified))
        young = a_backup(BackupType.FULL, 29, copies=copies, belongs_elsewhere=True)
        old = a_backup(BackupType.FULL, 31, copies=copies, belongs_elsewhere=True)
        found = fates(newest, young, old)
        assert {found["gcs:full-29"], found["archive:full-29"]} == {(True, Why.RETAINED)}
        assert {found["gcs:full-31"], found["archive:full-31"]} == {(False, Why.EXPIRED)}


def test_an_increment_that_is_held_holds_its_parents() -> None:
    """What a held copy builds on stays wherever it is, or the copy would be of no use."""
    full = a_backup(BackupType.FULL, 40, copies=(away(), away("archive")), belongs_elsewhere=True)
    held = a_backup(BackupType.INCREMENTAL, 9, parent="full-40", verified=False, belongs_elsewhere=True)
    found = fates(a_backup(BackupType.FULL, 0), held, full)
    assert found["local:incremental-9"] == (True, Why.COPY_UNVERIFIED)
    assert {found["gcs:full-40"], found["archive:full-40"]} == {(True, Why.HAS_CHILDREN)}


def test_a_snapshot_does_not_stand_in_for_a_full_backup() -> None:
    """Snapshots are on this host alone: however new and proven, they leave the last good full backup needed."""
    assert whys(
        a_backup(BackupType.SNAPSHOT, 0.01, proven=True),
        a_backup(BackupType.FULL, 45, proven=True),
        a_backup(BackupType.FULL, 50),
    ) == {"snapshot-0.01": Why.LAST_PROVEN, "full-45": Why.LAST_PROVEN, "full-50": Why.EXPIRED}


def test_after_everything_was_deleted_the_backup_that_has_it_stays() -> None:
    """Backups of what an accident left are sound and proven, and don't push out the last one that holds the data."""
    left = [a_backup(BackupType.FULL, days, documents=1, proven=True) for days in (31, 38, 45)]
    assert whys(*left, *(a_backup(BackupType.FULL, days, documents=306_725) for days in (60, 67))) == {
        "full-31": Why.LAST_PROVEN,
        "full-38": Why.EXPIRED,
        "full-45": Why.EXPIRED,
        "full-60": Why.LAST_SUBSTANTIAL,
        "full-67": Why.EXPIRED,
    }
    unverified = [a_backup(BackupType.FULL, days, verified=False, documents=documents) for days, documents in LOSS]
    assert whys(*unverified) == {
        "full-40": Why.LAST_AT_ALL,
        "full-50": Why.EXPIRED,
        "full-60": Why.LAST_SUBSTANTIAL,
        "full-70": Why.EXPIRED,
    }


LOSS = ((40, 0), (50, 9), (60, 100), (70, 99))


def test_what_somebody_let_go_of_is_left_to_its_age() -> None:
    """The database shrank on purpose: the large backup goes when its time is over, and not before."""
    left = a_backup(BackupType.FULL, 31, documents=30, proven=True)
    large = [a_backup(BackupType.FULL, days, documents=306_725, let_go="by ada: moved") for days in (29, 60, 67)]
    assert whys(left, *large) == {
        "full-29": Why.LAST_GOOD,
        "full-31": Why.LAST_PROVEN,
        "full-60": Why.LET_GO,
        "full-67": Why.LET_GO,
    }
    verdicts = decide_retention([left, *large], retention=PAGE, now=NOW)
    assert {(v.id, v.let_go) for v in verdicts if v.let_go} == {(one.id, "by ada: moved") for one in large}


def test_letting_go_is_no_word_about_what_comes_after() -> None:
    """After the move somebody deletes the rest by accident: the backup that holds the rest stays."""
    assert whys(
        a_backup(BackupType.FULL, 31, documents=1, proven=True),
        a_backup(BackupType.FULL, 45, documents=5_000),
        a_backup(BackupType.FULL, 60, documents=306_725, let_go="by ada: moved"),
    ) == {"full-31": Why.LAST_PROVEN, "full-45": Why.LAST_SUBSTANTIAL, "full-60": Why.LET_GO}


def test_letting_go_takes_nothing_else_away() -> None:
    """The last proven backup, the last good one, a pinned one and a parent stay, whatever anybody let go of."""
    moved = "by ada: moved"
    assert whys(
        a_backup(BackupType.FULL, 31, documents=10, verified=False),
        a_backup(BackupType.FULL, 40, documents=900, let_go=moved),
        a_backup(BackupType.FULL, 50, documents=900, let_go=moved, proven=True),
        a_backup(BackupType.FULL, 60, documents=900, let_go=moved, pinned=True),
    ) == {
        "full-31": Why.EXPIRED,
        "full-40": Why.LAST_GOOD,
        "full-50": Why.LAST_PROVEN,
        "full-60": Why.PINNED,
    }
    parent = a_backup(BackupType.FULL, 70, documents=900, let_go=moved)
    child = a_backup(BackupType.INCREMENTAL, 1, parent="full-70", documents=10)
    assert whys(a_backup(BackupType.FULL, 2, documents=10), child, parent)["full-70"] is Why.LAST_GOOD
    unverified = [a_backup(BackupType.FULL, day, verified=False, documents=n, let_go=moved) for day, n in LOSS]
    assert whys(*unverified)["full-60"] is Why.LAST_SUBSTANTIAL, "nothing newer is known to be good"


def test_backups_of_another_database_stay() -> None:
    """Two databases may share a bucket: the other's backups are neither removed nor taken for ours."""
    other = a_backup(BackupType.FULL, 1, foreign=True)
    assert whys(other, a_backup(BackupType.SNAPSHOT, 90, foreign=True), a_backup(BackupType.FULL, 60)) == {
        "full-1": Why.FOREIGN,
        "snapshot-90": Why.FOREIGN,
        "full-60": Why.LAST_GOOD,
    }


def test_what_a_restore_left_half_way_stays() -> None:
    """The backup of an unfinished restore is the way out of it, and its note says that a way out is needed."""
    left = a_backup(BackupType.SNAPSHOT, 5, restoring=True)
    assert whys(a_backup(BackupType.FULL, 0), left)["snapshot-5"] is Why.RESTORING


@st.composite
def inventories(draw: st.DrawFn) -> list[Candidate]:
    """Any number of backups of any age, with parents that exist or don't, loops included."""
    ids = [f"b{number}" for number in range(draw(st.integers(0, 12)))]
    made = []
    for name in ids:
        kind = draw(st.sampled_from(BackupType))
        parent = draw(st.sampled_from([*ids, "gone"])) if kind is BackupType.INCREMENTAL else ""
        copies = [
            CandidateCopy(storage=storage, on_host=storage == "local", verified=draw(st.booleans()))
            for storage in draw(st.sampled_from([("local",), ("local", "gcs"), ("gcs", "archive"), ("archive",)]))
        ]
        made.append(
            Candidate(
                id=name,
                type=kind,
                read_time=NOW - timedelta(hours=draw(st.integers(0, 24 * 60))),
                parent=parent,
                copies=tuple(copies),
                proven=draw(st.booleans()),
                belongs_elsewhere=draw(st.booleans()) or any(not copy.on_host for copy in copies),
                restoring=draw(st.integers(0, 9)) == 0,
                documents=draw(st.sampled_from([0, 1, 10, 100])),
                foreign=draw(st.integers(0, 9)) == 0,
                pinned=draw(st.integers(0, 9)) == 0,
                in_use=draw(st.integers(0, 9)) == 0,
                limited=kind is BackupType.CRITICAL,
                let_go="by ada: moved" if draw(st.integers(0, 5)) == 0 else "",
            )
        )
    return made


def chain_of(one: Candidate, by_id: dict[str, Candidate]) -> list[Candidate]:
    chain = [one]
    while chain[-1].parent in by_id and by_id[chain[-1].parent] not in chain:
        chain.append(by_id[chain[-1].parent])
    return chain


@settings(max_examples=400, deadline=None)
@given(inventory=inventories())
def test_what_never_happens(inventory: list[Candidate]) -> None:
    """No pin, no lease, no parent of what is kept, no last good backup and no only safe copy is ever given up."""
    verdicts = decide_retention(inventory, retention=PAGE, now=NOW)
    everybody = {one.id: one for one in inventory}
    own = {one.id: one for one in inventory if not one.foreign}
    kept = {verdict.id for verdict in verdicts if verdict.keep}
    whole = {one.id for one in inventory} - {verdict.id for verdict in verdicts if not verdict.keep}
    assert sorted((v.id, v.storage) for v in verdicts) == sorted(
        (one.id, copy.storage) for one in inventory for copy in one.copies
    )
    for one in inventory:
        if one.pinned or one.in_use or one.restoring or one.foreign:
            assert one.id in whole
        if one.id in kept and not one.foreign:
            assert {member.id for member in chain_of(one, own)[1:]} <= whole
    for verdict in verdicts:
        one = everybody[verdict.id]
        if not verdict.keep:
            assert verdict.why is (Why.LET_GO if one.let_go else Why.EXPIRED)
            assert NOW - one.read_time > PAGE[one.type]
            if verdict.storage == "local" and one.belongs_elsewhere:
                assert any(copy.verified and not copy.on_host for copy in one.copies)

    def is_good(one: Candidate) -> bool:
        chain = chain_of(one, own)
        return chain[-1].type in {BackupType.FULL, BackupType.SNAPSHOT} and all(
            member.verified and not member.limited for member in chain
        )

    good = [one for one in own.values() if is_good(one)]
    lasting = [one for one in good if chain_of(one, own)[-1].type is BackupType.FULL]
    for pool in (good, lasting):
        proven = [one for one in pool if one.proven]
        if proven:
            newest = max(proven, key=lambda one: (one.read_time, one.id))
            assert {member.id for member in chain_of(newest, own)} <= whole
        if pool:
            newest = max(pool, key=lambda one: (one.read_time, one.id))
            assert {member.id for member in chain_of(newest, own)} <= whole
            most = max((other.documents for other in pool if not other.let_go), default=0)
            assert any(one.documents * 10 >= most for one in pool if one.id in whole)
    if any(one.type in {BackupType.FULL, BackupType.SNAPSHOT} for one in own.values()):
        assert kept & own.keys()


@settings(max_examples=200, deadline=None)
@given(inventory=inventories(), which=st.integers(0, 11))
def test_letting_go_of_one_costs_no_newer_one(inventory: list[Candidate], which: int) -> None:
    """Who lets go of a backup and of older ones loses none of the newer, unless those build the older ones up."""
    own = {one.id: one for one in inventory if not one.foreign}
    if which >= len(inventory):
        return
    moment = inventory[which].read_time
    older = {one.id for one in own.values() if one.read_time <= moment}
    built_on = {member.id for one in older for member in chain_of(own[one], own)}

    def kept(candidates: list[Candidate]) -> set[tuple[str, str]]:
        verdicts = decide_retention(candidates, retention=PAGE, now=NOW)
        return {(v.id, v.storage) for v in verdicts if v.keep and v.id not in built_on}

    after = [replace(one, let_go="by ada: moved") if one.id in older else one for one in inventory]
    assert kept(inventory) <= kept(after)


@settings(max_examples=100, deadline=None)
@given(inventory=inventories())
def test_removing_what_may_go_changes_no_other_verdict(inventory: list[Candidate]) -> None:
    """Cleaning twice is cleaning once: what was kept is kept again when the rest is gone."""

    def kept(candidates: list[Candidate]) -> set[tuple[str, str]]:
        verdicts = decide_retention(candidates, retention=PAGE, now=NOW)
        return {(v.id, v.storage) for v in verdicts if v.keep}

    first = kept(inventory)
    rest = [
        replace(one, copies=tuple(copy for copy in one.copies if (one.id, copy.storage) in first)) for one in inventory
    ]
    assert kept([one for one in rest if one.copies]) == first
