"""Which copies of which backups may go: a pure function that says keep or remove, and why.

``clean`` acts on its verdicts and ``runbookd backup clean`` prints them. The rules, and the public bugs behind them:
a number of backups is no guarantee if increments count (barman#1081), a parent outlives its children, a backup in
use is not removed under its reader (barman#200), somebody must be able to say "not this one" (pgBackRest#1280), and
a copy here does not go before one elsewhere is known to be good (pgBackRest#1092).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from agent.backup.manifest import BackupType

SHRUNKEN = 10
"""A database that lost this factor of its documents has had an accident, unless somebody says that it is to be so."""


@dataclass(frozen=True, kw_only=True)
class CandidateCopy:
    """What retention has to know of one copy of a backup.

    Args:
        storage: where it is.
        on_host: whether it is lost when this host is.
        verified: whether its own newest verification found nothing wrong.
    """

    storage: str
    on_host: bool = True
    verified: bool = False


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What retention has to know of a backup.

    Args:
        id: its id.
        type: its type.
        read_time: the instant it holds.
        copies: where it is.
        parent: id of the backup it builds on, or empty.
        proven: whether a chain that ends with it was restored from and compared; proves its parents, too.
        pinned: whether somebody said to keep it.
        in_use: whether a living process reads or writes it.
        restoring: whether a restore from it has begun and not finished.
        damaged: whether its manifest can't be read; its age and parent are then unknown.
        limited: whether it holds some collections only.
        documents: how many the database held at that instant.
        foreign: whether it is of another database than the one whose retention is decided.
        belongs_elsewhere: whether it is off this host as well, or is to be by the page and the settings.
        let_go: what was noted when somebody let go of it, because the database has really shrunk since; or empty.
    """

    id: str
    type: BackupType
    read_time: datetime
    copies: tuple[CandidateCopy, ...] = ()
    parent: str = ""
    proven: bool = False
    pinned: bool = False
    in_use: bool = False
    restoring: bool = False
    damaged: bool = False
    limited: bool = False
    documents: int = 0
    foreign: bool = False
    belongs_elsewhere: bool = False
    let_go: str = ""

    @property
    def verified(self) -> bool:
        """Whether it has a copy that is known to be good."""
        return any(copy.verified for copy in self.copies)

    @property
    def safe_elsewhere(self) -> bool:
        """Whether the loss of this host would leave a copy that is known to be good."""
        return any(copy.verified and not copy.on_host for copy in self.copies)


class Why(StrEnum):
    """The reason of a verdict, in words that ``clean`` prints."""

    RETAINED = "younger than the retention of its type"
    NO_POLICY = "its type has no retention"
    LAST_PROVEN = "the newest backup that a restore drill proved, or one that it builds on"
    LAST_GOOD = "the newest verified backup of the whole database, or one that it builds on"
    LAST_SUBSTANTIAL = "the newest verified backup from before nine tenths of the documents were gone"
    LAST_AT_ALL = "no backup of the whole database is verified; this is the newest"
    PINNED = "pinned"
    IN_USE = "in use"
    RESTORING = "a restore from it began and did not finish"
    COPY_UNVERIFIED = "no copy off this host is verified"
    HAS_CHILDREN = "a backup that is kept builds on it"
    DAMAGED = "its manifest is damaged; a person has to look at it"
    FOREIGN = "of another database"
    EXPIRED = "older than the retention of its type"
    LET_GO = "older than the retention of its type, and somebody let go of it"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What happens to one copy of a backup, and why.

    Args:
        needed_by: the child for ``HAS_CHILDREN``, else empty.
        let_go: who let go of the backup, when and why, whatever the verdict; else empty.
    """

    id: str
    storage: str
    keep: bool
    why: Why
    needed_by: str = ""
    let_go: str = ""


def decide_retention(
    candidates: Iterable[Candidate], *, retention: Mapping[BackupType, timedelta], now: datetime
) -> tuple[Verdict, ...]:
    """A verdict for each copy of each candidate, newest backup first.

    All copies are kept, whatever their age, of: the last good backups (see :func:`_last_good`), a pinned one, one in
    use, one from which a restore is unfinished, one without a retention, one whose manifest is damaged, one of another
    database, and everything that a backup builds on of which any copy is kept.

    Of an expired backup each copy is judged by itself. One elsewhere goes; one on this host stays until a copy
    elsewhere is verified, if the backup belongs elsewhere at all. So a bucket that was down for as long as a backup is
    kept costs room on this host, and not the backup.
    """
    newest_first = sorted(candidates, key=lambda one: (one.read_time, one.id), reverse=True)
    own = [one for one in newest_first if not one.foreign]
    by_id = {one.id: one for one in own}
    kept = _last_good(own, by_id)
    for one in newest_first:
        if (why := _kept_for(one, retention.get(one.type), now)) is not None:
            kept.setdefault(one.id, (why, ""))
    expired = {one.id: _expired(one) for one in own if one.id not in kept}
    # Newest first, so a child has its verdict before its parent asks for it.
    for one in own:
        if one.id in kept or any(verdict.keep for verdict in expired[one.id]):
            for parent in _chain(one, by_id)[1:]:
                kept.setdefault(parent.id, (Why.HAS_CHILDREN, one.id))
    verdicts: list[Verdict] = []
    for one in newest_first:
        if one.id not in kept:
            verdicts += expired[one.id]
            continue
        why, child = kept[one.id]
        verdicts += [
            Verdict(id=one.id, storage=copy.storage, keep=True, why=why, needed_by=child, let_go=one.let_go)
            for copy in one.copies
        ]
    return tuple(verdicts)


def _last_good(newest_first: Sequence[Candidate], by_id: Mapping[str, Candidate]) -> dict[str, tuple[Why, str]]:
    """What is kept because it is, or may be, all there is to restore from.

    Only a proven chain is sure to restore; a verified one that is newer is kept as well: it loses less. Both are
    looked for among chains that begin with a full backup, which the page keeps for a month in two places, and among
    all, because a snapshot of an hour ago is better here and worth nothing when this host is gone. And after somebody
    deleted everything, the backups of what is left are sound and bring nothing back: they never push out the last one
    that holds the data. Whether that was an accident only a person knows: what somebody let go of is no measure any
    more, and yet it stays for as long as it is the last proven or the last good one.
    """
    kept: dict[str, tuple[Why, str]] = {}

    def keep(last: Candidate | None, why: Why) -> None:
        for member in _chain(last, by_id) if last is not None else []:
            kept.setdefault(member.id, (why, ""))

    good = [one for one in newest_first if _is_good(one, by_id)]
    for pool in ([one for one in good if _chain(one, by_id)[-1].type is BackupType.FULL], good):
        keep(next((one for one in pool if one.proven), None), Why.LAST_PROVEN)
        keep(next(iter(pool), None), Why.LAST_GOOD)
        held = [one for one in pool if not one.let_go]
        most = max((one.documents for one in held), default=0)
        keep(next((one for one in held if one.documents * SHRUNKEN >= most), None), Why.LAST_SUBSTANTIAL)
    if not good:
        whole = [one for one in newest_first if one.type.is_whole and not one.limited and not one.damaged]
        most = max((one.documents for one in whole), default=0)
        keep(next(iter(whole), None), Why.LAST_AT_ALL)
        keep(next((one for one in whole if one.documents * SHRUNKEN >= most), None), Why.LAST_SUBSTANTIAL)
    return kept


def _kept_for(one: Candidate, age_limit: timedelta | None, now: datetime) -> Why | None:
    """Why the backup is kept for its own sake, or ``None`` if its time is over."""
    if one.foreign:
        return Why.FOREIGN
    if one.pinned:
        return Why.PINNED
    if one.in_use:
        return Why.IN_USE
    if one.restoring:
        return Why.RESTORING
    if one.damaged:
        return Why.DAMAGED
    if age_limit is None:
        return Why.NO_POLICY
    return Why.RETAINED if now - one.read_time <= age_limit else None


def _expired(one: Candidate) -> list[Verdict]:
    """The verdicts on the copies of a backup whose time is over."""
    held = one.belongs_elsewhere and not one.safe_elsewhere

    def judged(copy: CandidateCopy) -> Verdict:
        keep = copy.on_host and held
        why = Why.LET_GO if one.let_go else Why.EXPIRED
        return Verdict(
            id=one.id,
            storage=copy.storage,
            keep=keep,
            why=Why.COPY_UNVERIFIED if keep else why,
            let_go=one.let_go,
        )

    return [judged(copy) for copy in one.copies]


def _chain(one: Candidate, by_id: Mapping[str, Candidate]) -> list[Candidate]:
    """``one`` and everything it builds on, as far as that is there."""
    chain = [one]
    while (parent := by_id.get(chain[-1].parent)) is not None and parent not in chain:
        chain.append(parent)
    return chain


def _is_good(one: Candidate, by_id: Mapping[str, Candidate]) -> bool:
    chain = _chain(one, by_id)
    return chain[-1].type.is_whole and all(member.verified and not member.limited for member in chain)
