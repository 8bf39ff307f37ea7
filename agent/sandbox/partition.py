"""PartitionQuery: names at which a query's results fall into parts of about the same size.

Google's emulator has no such RPC. Called by the server.
"""

from __future__ import annotations

from typing import Any

from agent.firestore.protos import Cursor, PartitionQueryResponse, Value
from agent.sandbox import frames
from agent.sandbox.query import Query
from agent.sandbox.status import invalid
from agent.sandbox.view import View


def partition(query: Query, request: Any, view: View) -> PartitionQueryResponse:
    """The reply: at most ``partition_count`` cursors, one page of them if a page size is given.

    Raises:
        StatusError: INVALID_ARGUMENT for a query that can't be partitioned.
    """
    wanted = request.partition_count
    if wanted <= 0:
        raise invalid("partition_count must be greater than 0.")
    if query.matches or query.offset or query.limit is not None or not query.scope.descendants:
        raise invalid("PartitionQuery takes a query of all descendants in name order, without filters or limits.")
    if not query.in_name_order or query.orders[0].descending:
        raise invalid("PartitionQuery takes a query ordered by __name__ ascending.")
    runs = list(view.runs(query.scope.collections(view.catalogue), low=query.low, high=query.high))
    total = sum(view.count(run) for run in runs)
    reply = PartitionQueryResponse()
    boundaries = {total * part // (wanted + 1) for part in range(1, wanted + 1)} - {0}
    skipped = int(request.page_token or 0)
    size = request.page_size if request.page_size > 0 else len(boundaries)
    chosen = sorted(boundaries)[skipped : skipped + size]
    if skipped + size < len(boundaries):
        reply.next_page_token = str(skipped + size)
    passed = 0
    for run in runs:
        count = view.count(run)
        inside = [boundary - passed for boundary in chosen if passed <= boundary < passed + count]
        for position, key in enumerate(view.keys(run) if inside else ()):
            if position in inside:
                row = view.get(run.collection, key)
                if row is not None:
                    name = frames.parse(row[3]).name
                    reply.partitions.append(Cursor(values=[Value(reference_value=name)], before=True))
        passed += count
    return reply
