"""Before anything is restored or exported: is every file of the backup sound somewhere?

Also those that a restore does not read, the index and the small records: a storage that lost one byte of them has
lost trust, and a restore is the wrong moment to find out what else it lost.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.backup.catalogue import Catalogue
from agent.backup.chain import Chain
from agent.backup.manifest import MANIFEST, Manifest, unseal
from agent.backup.records import Copy
from agent.backup.segments import Segment
from agent.backup.summaries import chain_ids, is_proven
from agent.faults import Permanent, PermanentReason, RunbookdError


def checked_chain(chain: Chain, catalogue: Catalogue, cancelled: Callable[[], bool]) -> Chain:
    """The chain, once every file of it was read; later reads start where it was sound.

    Raises:
        Permanent: ``CORRUPT``, naming the file and, in the hint, the next best backup; ``CANCELLED``.
        Misconfigured: ``SETTINGS``: a key is missing.
    """
    places: dict[tuple[str, str], str] = {}
    for member in chain.members:
        catalogue.keys.require(member.key_id, member.id)  # a missing key is no damage
        _require_sound_records(chain, member, catalogue)
        for segment in member.files:
            if cancelled():
                raise Permanent(PermanentReason.CANCELLED, "cancelled before anything was written")
            places[member.id, segment.file] = _sound_place(chain, member, segment, catalogue)

    def read(manifest: Manifest, segment: Segment) -> bytes:
        first = places[manifest.id, segment.file]
        others = [name for name in catalogue.storages if name != first]
        return catalogue.read(manifest, segment, [first, *others])

    return Chain(members=chain.members, read=read)


def _sound_place(chain: Chain, member: Manifest, segment: Segment, catalogue: Catalogue) -> str:
    problems = []
    for name in catalogue.storages:
        try:
            catalogue.read(member, segment, [name])
            return name
        except RunbookdError as error:
            problems.append(error.message)
    raise Permanent(
        PermanentReason.CORRUPT,
        f"{chain.newest.id} can't be restored: {'; '.join(problems)}",
        hint=_next_best(chain, catalogue),
    )


def _require_sound_records(chain: Chain, member: Manifest, catalogue: Catalogue) -> None:
    """See that some copy has no damaged record.

    Raises:
        Permanent: ``CORRUPT``, naming them.
    """
    found = [
        [f"{copy.storage}: {problem}" for problem in damaged_records(catalogue, copy, member.id)]
        for copy in catalogue.entry(member.id).copies
    ]
    if all(found):
        raise Permanent(
            PermanentReason.CORRUPT,
            f"{chain.newest.id} can't be restored: {'; '.join(problem for problems in found for problem in problems)}",
            hint=f"`runbookd backup verify {member.id}` says what else is damaged, and writes verified.json anew; "
            f"{_next_best(chain, catalogue)}",
        )


def damaged_records(catalogue: Catalogue, copy: Copy, backup: str) -> list[str]:
    """A sentence for each small record beside the manifest that is not what was written."""
    problems = []
    for file in copy.files:
        if not file.endswith(".json") or file == MANIFEST:
            continue
        key = f"{backup}/{file}"
        try:
            unseal(b"".join(catalogue.storages[copy.storage].get(key)), key)
        except Permanent as error:
            if error.reason is not PermanentReason.NOT_FOUND:  # a lease that was released meanwhile
                problems.append(error.message)
    return problems


def _next_best(chain: Chain, catalogue: Catalogue) -> str:
    broken = {member.id for member in chain.members}
    entries = {entry.id: entry for entry in catalogue.entries()}
    for entry in entries.values():
        if entry.id in broken or entry.manifest is None or entry.manifest.only:
            continue
        if is_proven(entry, entries) and not broken & set(chain_ids(entry, entries)):
            return f"the next best verified backup is {entry.id}"
    return "no other verified backup is there; try the others with `runbookd backup verify`, or take a new one"
