"""A backup as text, for reading by hand: one JSON object a line.

Each line is ``{"name": ..., "update_time": ..., "fields": {...}}`` with fields in Firestore's own JSON form (protobuf's
JSON mapping: ``{"integerValue": "5"}``), in which no type is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from google.protobuf import json_format

from agent.backup.chain import Chain


def ndjson(chain: Chain, collections: tuple[str, ...] = ()) -> Iterator[bytes]:
    """The documents of a chain, in the backup's order, a line each.

    Args:
        collections: collection ids to export; empty for all.
    """
    for scope in chain.scopes:
        for stored in chain.documents(scope):
            if collections and stored.path.rsplit("/", 2)[-2] not in collections:
                continue
            document = json_format.MessageToDict(stored.document.parsed())
            line = {
                "name": stored.path,
                "update_time": document.get("updateTime", ""),
                "fields": document.get("fields", {}),
            }
            yield json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
