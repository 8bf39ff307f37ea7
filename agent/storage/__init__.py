"""storage: where backups live.

Belongs here: the promise that a place for backups makes (:class:`Storage`), the two kinds of places that keep it (a
directory, a Google Cloud Storage bucket), translation of their errors. Does not belong here: what is stored, what a
backup is, how long it is kept (``backup``). Every kind passes the same contract suite, ``tests/storage``.
"""

from agent.storage.contract import Storage, StoredObject, Usage
from agent.storage.directory import DirectoryStorage
from agent.storage.gcs import GcsStorage

__all__ = ["DirectoryStorage", "GcsStorage", "Storage", "StoredObject", "Usage"]
