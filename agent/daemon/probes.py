"""The daemon's own questions to the database, asked once and without retries, so that trouble shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.daemon.maintenance import MaintenanceWatch
from agent.firestore import Firestore
from agent.firestore.protos import StructuredQuery
from agent.signals import Probe

DATABASE = "database"
DOCUMENTS = "documents"
_SAMPLE = 5


def probes_of(
    firestore: Firestore, collections: Callable[[], Sequence[str]], *, maintenance: MaintenanceWatch, timeout: float
) -> tuple[Probe, ...]:
    """Two probes: does the database answer (with its maintenance flag), and can documents be read.

    Args:
        firestore: a connection that doesn't retry.
        collections: ids of the collections to read from; the ones of the migration order.
        timeout: seconds a query may take.
    """

    def database() -> None:
        maintenance.refresh()

    known: dict[str, list[str]] = {}

    def documents() -> None:
        for collection in collections():
            # Found once, then read by name: a query for "any five" costs some servers the whole collection.
            if not known.get(collection):
                known[collection] = [
                    document.name for document in firestore.run_query(_first_of(collection), deadline=timeout)
                ]
            firestore.get(known[collection])

    return Probe(name=DATABASE, run=database), Probe(name=DOCUMENTS, run=documents)


def _first_of(collection: str) -> StructuredQuery:
    query = StructuredQuery()
    selector = query.from_.add()
    selector.collection_id = collection
    selector.all_descendants = True
    query.limit.value = _SAMPLE
    return query
