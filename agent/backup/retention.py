"""Which backups may go: a pure function that says keep or remove, and why.

``clean`` acts on its verdicts and ``runbookd backup clean`` prints them. The rules, and the public bugs behind them:
a number of backups is no guarantee if increments count (barman#1081), a parent outlives its children, a backup in
use is not removed under its reader (barman#200), and somebody must be able to say "not this one" (pgBackRest#1280).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from agent.backup.manifest import BackupType


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What retention has to know of a backup.

    Args:
        id: its id.
        type: its type.
        read_time: the instant it holds.
        parent: id of the backup it builds on, or empty.
        verified: whether its newest verification found nothing wrong.
        proven: whether a chain that ends with it was restored from and compared; proves its parents, too.
        pinned: whether somebody said to keep it.
        in_use: whether a living process reads or writes it.
        damaged: whether its manifest can't be read; its age and parent are then unknown.
        limited: whether it holds some collections only.
        unsafe_elsewhere: whether it is here and off this host, and none of the copies off this host is verified.
    """

    id: str
    type: BackupType
    read_time: datetime
    parent: str = ""
    verified: bool = False
    proven: bool = False
    pinned: bool = False
    in_use: bool = False
    damaged: bool = False
    limited: bool = False
    unsafe_elsewhere: bool = False


class Why(StrEnum):
    """The reason of a verdict, in words that ``clean`` prints."""

    RETAINED = "younger than the retention of its type"
    NO_POLICY = "its type has no retention"
    LAST_PROVEN = "the newest backup that a restore drill proved, or one that it builds on"
    LAST_GOOD = "the newest verified backup of the whole database, or one that it builds on"
    LAST_AT_ALL = "no backup of the whole database is verified; this is the newest"
    PINNED = "pinned"
    IN_USE = "in use"
    COPY_UNVERIFIED = "its copy off this host is not verified"
    HAS_CHILDREN = "a backup that is kept builds on it"
    DAMAGED = "its manifest is damaged; a person has to look at it"
    EXPIRED = "older than the retention of its type"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What happens to one backup, and why. ``needed_by`` is the child for ``HAS_CHILDREN``, else empty."""

    id: str
    keep: bool
    why: Why
    needed_by: str = ""


def decide_retention(
    candidates: Iterable[Candidate], *, retention: Mapping[BackupType, timedelta], now: datetime
) -> tuple[Verdict, ...]:
    """A verdict for each candidate, newest first.

    Kept, whatever its age: the last good backup (the newest of the whole database whose chain a restore drill proved;
    besides it, the newest whose chain is verified throughout; where there is neither, the newest of the whole
    database), a pinned one, one in use, one without a retention, one whose manifest is damaged, one whose copies off
    this host are not verified, and everything that one of these builds on.
    """
    newest_first = sorted(candidates, key=lambda one: (one.read_time, one.id), reverse=True)
    by_id = {one.id: one for one in newest_first}
    verdicts: dict[str, Verdict] = {}

    def keep(one: Candidate, why: Why) -> None:
        verdicts.setdefault(one.id, Verdict(id=one.id, keep=True, why=why))

    # Only a proven chain is sure to restore. A verified one that is newer is kept as well: it loses less.
    good = [one for one in newest_first if _is_good(one, by_id)]
    for last, why in (
        (next((one for one in good if one.proven), None), Why.LAST_PROVEN),
        (next(iter(good), None), Why.LAST_GOOD),
    ):
        for member in _chain(last, by_id) if last is not None else []:
            keep(member, why)
    if not good:
        for one in newest_first:
            if not one.limited and one.type.is_whole and not one.damaged:
                keep(one, Why.LAST_AT_ALL)
                break

    for one in newest_first:
        age_limit = retention.get(one.type)
        if one.pinned:
            keep(one, Why.PINNED)
        elif one.in_use:
            keep(one, Why.IN_USE)
        elif one.damaged:
            keep(one, Why.DAMAGED)
        elif one.unsafe_elsewhere:
            keep(one, Why.COPY_UNVERIFIED)
        elif age_limit is None:
            keep(one, Why.NO_POLICY)
        elif now - one.read_time <= age_limit:
            keep(one, Why.RETAINED)

    # Newest first, so a child has its verdict before its parent asks for it.
    for one in newest_first:
        if one.id in verdicts:
            for parent in _chain(one, by_id)[1:]:
                verdicts.setdefault(parent.id, Verdict(id=parent.id, keep=True, why=Why.HAS_CHILDREN, needed_by=one.id))

    return tuple(verdicts.get(one.id, Verdict(id=one.id, keep=False, why=Why.EXPIRED)) for one in newest_first)


def _chain(one: Candidate, by_id: Mapping[str, Candidate]) -> list[Candidate]:
    """``one`` and everything it builds on, as far as that is there."""
    chain = [one]
    while (parent := by_id.get(chain[-1].parent)) is not None and parent not in chain:
        chain.append(parent)
    return chain


def _is_good(one: Candidate, by_id: Mapping[str, Candidate]) -> bool:
    chain = _chain(one, by_id)
    return chain[-1].type.is_whole and all(member.verified and not member.limited for member in chain)
