"""Before anything is restored or exported: is every file that will be needed sound somewhere?"""

from __future__ import annotations

from collections.abc import Callable

from agent.backup.catalogue import Catalogue
from agent.backup.chain import Chain
from agent.backup.manifest import Manifest
from agent.backup.segments import Segment
from agent.backup.summaries import chain_ids, is_proven
from agent.faults import Permanent, PermanentReason, RunbookdError


def checked_chain(chain: Chain, catalogue: Catalogue, cancelled: Callable[[], bool]) -> Chain:
    """The chain, once every document and deletion of it was read; later reads start where it was sound.

    Raises:
        Permanent: ``CORRUPT``, naming the file and, in the hint, the next best backup; ``CANCELLED``.
        Misconfigured: ``SETTINGS``: a key is missing.
    """
    places: dict[tuple[str, str], str] = {}
    for member in chain.members:
        catalogue.keys.require(member.key_id, member.id)  # a missing key is no damage
        for segment in (*member.segments, *member.deletes):
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


def _next_best(chain: Chain, catalogue: Catalogue) -> str:
    broken = {member.id for member in chain.members}
    entries = {entry.id: entry for entry in catalogue.entries()}
    for entry in entries.values():
        if entry.id in broken or entry.manifest is None or entry.manifest.only:
            continue
        if is_proven(entry, entries) and not broken & set(chain_ids(entry, entries)):
            return f"the next best verified backup is {entry.id}"
    return "no other verified backup is there; try the others with `runbookd backup verify`, or take a new one"
