"""One backup's files on their way into several storages.

Made by ``create`` for each backup; a storage that fails is left out, and told of at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.backup.catalogue import Catalogue, remove_folder
from agent.backup.manifest import MANIFEST, Manifest, read_manifest
from agent.faults import RunbookdError


class Copies:
    """Publishes a backup's files in several storages; goes on while one of them works."""

    def __init__(self, backup: str, catalogue: Catalogue, storages: Sequence[str]) -> None:
        self._backup = backup
        self._storages = [catalogue.storages[name] for name in storages]
        self._catalogue = catalogue
        self._failures: dict[str, RunbookdError] = {}

    def encrypt(self, file: str, data: bytes) -> bytes:
        return self._catalogue.keys.seal(f"{self._backup}/{file}", data)

    def publish(self, file: str, chunks: list[bytes]) -> None:
        for storage in self._storages:
            if storage.name in self._failures:
                continue
            try:
                storage.put(f"{self._backup}/{file}", chunks)
            except RunbookdError as error:
                self._failures[storage.name] = error
        if len(self._failures) == len(self._storages):
            raise next(iter(self._failures.values()))

    def publish_manifest(self, manifest: Manifest) -> Manifest:
        data = manifest.to_bytes()
        self.publish(MANIFEST, [data])
        return read_manifest(data)  # as everybody else will see it, its seal included

    def withdraw(self) -> None:
        """Remove what was published; best effort, because what stays is recognised as a leftover later."""
        for storage in self._storages:
            try:
                remove_folder(storage, self._backup)
            except RunbookdError:
                continue

    def raise_failures(self) -> None:
        if not self._failures:
            return
        name, error = next(iter(self._failures.items()))
        kept = ", ".join(storage.name for storage in self._storages if storage.name not in self._failures)
        raise type(error)(
            error.reason,
            f"{self._backup} is complete in {kept}, but its copy to {name} failed: {error.message}",
            hint=error.hint,
        ) from error
