"""Retention: what may go, what never goes, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.backup import BackupType, Candidate, Why, decide_retention

NOW = datetime(2025, 9, 10, 8, 0, tzinfo=UTC)
PAGE = {
    BackupType.SNAPSHOT: timedelta(hours=24),
    BackupType.INCREMENTAL: timedelta(days=7),
    BackupType.FULL: timedelta(days=30),
}


def a_backup(kind: BackupType, days: float, *, verified: bool = True, **more: object) -> Candidate:
    made = Candidate(id=f"{kind}-{days}", type=kind, read_time=NOW - timedelta(days=days), verified=verified)
    values = {field: getattr(made, field) for field in made.__dataclass_fields__} | more
    return Candidate(**values)


def whys(*candidates: Candidate) -> dict[str, Why]:
    return {v.id: v.why for v in decide_retention(candidates, retention=PAGE, now=NOW)}


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


def test_a_copy_elsewhere_has_to_be_verified_first() -> None:
    """An expired backup stays as long as its copy off this host is not known to be good."""
    old = a_backup(BackupType.FULL, 90, unsafe_elsewhere=True)
    assert whys(a_backup(BackupType.FULL, 0), old)["full-90"] is Why.COPY_UNVERIFIED


@st.composite
def inventories(draw: st.DrawFn) -> list[Candidate]:
    """Any number of backups of any age, with parents that exist or don't, loops included."""
    ids = [f"b{number}" for number in range(draw(st.integers(0, 12)))]
    made = []
    for name in ids:
        kind = draw(st.sampled_from(BackupType))
        parent = draw(st.sampled_from([*ids, "gone"])) if kind is BackupType.INCREMENTAL else ""
        made.append(
            Candidate(
                id=name,
                type=kind,
                read_time=NOW - timedelta(hours=draw(st.integers(0, 24 * 60))),
                parent=parent,
                verified=draw(st.booleans()),
                proven=draw(st.booleans()),
                unsafe_elsewhere=draw(st.integers(0, 9)) == 0,
                pinned=draw(st.integers(0, 9)) == 0,
                in_use=draw(st.integers(0, 9)) == 0,
                limited=kind is BackupType.CRITICAL,
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
    """No pin, no lease, no parent of what is kept and no last good backup is ever given up, in any inventory."""
    verdicts = {v.id: v for v in decide_retention(inventory, retention=PAGE, now=NOW)}
    by_id = {one.id: one for one in inventory}
    kept = {name for name, verdict in verdicts.items() if verdict.keep}
    assert set(verdicts) == set(by_id)
    for one in inventory:
        if one.pinned or one.in_use or one.unsafe_elsewhere:
            assert one.id in kept
        if one.id in kept:
            assert {member.id for member in chain_of(one, by_id)} <= kept
        if one.id not in kept:
            assert verdicts[one.id].why is Why.EXPIRED
            assert NOW - one.read_time > PAGE[one.type]

    def is_good(one: Candidate) -> bool:
        chain = chain_of(one, by_id)
        return chain[-1].type in {BackupType.FULL, BackupType.SNAPSHOT} and all(
            member.verified and not member.limited for member in chain
        )

    good = [one for one in inventory if is_good(one)]
    if good:
        newest = max(good, key=lambda one: (one.read_time, one.id))
        assert {member.id for member in chain_of(newest, by_id)} <= kept
    proven = [one for one in good if one.proven]
    if proven:
        newest = max(proven, key=lambda one: (one.read_time, one.id))
        assert {member.id for member in chain_of(newest, by_id)} <= kept
    if any(one.type in {BackupType.FULL, BackupType.SNAPSHOT} for one in inventory):
        assert kept


@settings(max_examples=100, deadline=None)
@given(inventory=inventories())
def test_removing_what_may_go_changes_no_other_verdict(inventory: list[Candidate]) -> None:
    """Cleaning twice is cleaning once: what was kept is kept again when the rest is gone."""
    first = {v.id for v in decide_retention(inventory, retention=PAGE, now=NOW) if v.keep}
    rest = [one for one in inventory if one.id in first]
    assert {v.id for v in decide_retention(rest, retention=PAGE, now=NOW) if v.keep} == first
