"""The official Python client on the same server: what a script of one's own would use.

It is used as its documentation shows: ``stream()`` with ``to_dict()``, ``bulk_writer()`` with its default settings.
Both are slow enough that a bounded number of documents tells their rate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from google.cloud.firestore import Client

_READ_AT_LEAST = 50_000


class OfficialClient:
    """Reads the seeded database and writes samples of it.

    Args:
        project: the seeded database's.
        collections: its root collections with the number of their documents. The smallest ones that hold 50,000
            documents together are read, or all.
        sample: paths of documents for the bulk writer.
        folder: for what it writes.
    """

    def __init__(self, project: str, *, collections: Mapping[str, int], sample: Iterable[str], folder: Path) -> None:
        self._client = Client(project=project)
        self._folder = folder
        self._collections: list[str] = []
        expected = 0
        for name, count in sorted(collections.items(), key=lambda item: item[1]):
            if expected < _READ_AT_LEAST:
                self._collections.append(name)
                expected += count
        references = [self._client.document(path) for path in sample]
        self._values = [(found.reference.path, found.to_dict() or {}) for found in self._client.get_all(references)]
        self.read_rates: list[float] = []
        self.bulk_rates: list[float] = []

    def read(self) -> None:
        """``stream().to_dict()`` to JSON lines; root collections only."""
        began = time.perf_counter()
        documents = 0
        with (self._folder / "official.json").open("w", encoding="utf-8") as file:
            for collection in self._collections:
                for snapshot in self._client.collection(collection).stream():
                    file.write(json.dumps(snapshot.to_dict(), default=str) + "\n")
                    documents += 1
        self.read_rates.append(documents / (time.perf_counter() - began))

    def bulk(self) -> None:
        """The sample into an empty project of the server that the environment names now."""
        client = Client(project="bulk")
        began = time.perf_counter()
        writer = client.bulk_writer()
        for path, value in self._values:
            writer.create(client.document(path), value)
        writer.close()  # type: ignore[no-untyped-call]  # the package types it no further
        self.bulk_rates.append(len(self._values) / (time.perf_counter() - began))
