"""A process that works on backups until it is killed; run by ``test_kill.py``.

``python killed.py HOST PROJECT FOLDER BUCKET STEP OPERATION [ARGUMENT]``: with a ``STEP`` it kills itself there, as
``kill -9`` does. Steps are counted in the storages (before, within and after each change) and at each report of
progress; it ends normally if there are fewer. ``BUCKET`` is ``-`` for two directories, or ``ENDPOINT,NAME``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

from agent.backup import Backups, BackupType
from agent.backup import restore as restoring
from agent.firestore import Carrier, DatabaseAddress, Firestore
from agent.storage import DirectoryStorage, GcsStorage, Storage, StoredObject
from agent.telemetry import quiet_telemetry


class Fuse:
    """Kills this process at the given step."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def burn(self, *_: object) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Fused(DirectoryStorage):
    """A directory whose every change is a step."""

    def __init__(self, fuse: Fuse, name: str, path: Path) -> None:
        super().__init__(name=name, path=path)
        self._fuse = fuse

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        def burning() -> Iterator[bytes]:
            for chunk in chunks:
                self._fuse.burn()
                yield chunk
                self._fuse.burn()

        stored = super().put(key, burning())
        self._fuse.burn()
        return stored

    def replace(self, key: str, data: bytes) -> StoredObject:
        self._fuse.burn()
        stored = super().replace(key, data)
        self._fuse.burn()
        return stored

    def delete(self, key: str) -> None:
        self._fuse.burn()
        super().delete(key)


def main() -> None:
    host, project, folder, bucket, steps, operation, *rest = sys.argv[1:]
    fuse = Fuse(int(steps))
    telemetry = quiet_telemetry()
    storages: list[Storage] = [Fused(fuse, "one", Path(folder, "one"))]
    if bucket == "-":
        storages.append(Fused(fuse, "two", Path(folder, "two")))
    else:
        endpoint, _, name = bucket.partition(",")
        storages.append(GcsStorage(name="two", bucket=name, endpoint=endpoint, retry_seconds=5))
    with Firestore(
        DatabaseAddress(project=project, host=host), telemetry=telemetry, origin="backup", carrier=Carrier.STREAM
    ) as firestore:
        backups = Backups(
            firestore=firestore,
            storages=storages,
            telemetry=telemetry,
            retention={BackupType.FULL: timedelta(0)},
        )
        match operation:
            case "create":
                backups.create(BackupType(rest[0]), progress=fuse.burn)
            case "restore":
                restoring._REPORT_EVERY = 50  # steps close together, without a large database
                backups.restore(rest[0], delete_extra=True, progress=fuse.burn)
            case "upload":
                backups.upload(progress=fuse.burn)
            case "clean":
                backups.clean(dry_run=False)


if __name__ == "__main__":
    main()
