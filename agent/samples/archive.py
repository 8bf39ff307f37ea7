"""The file that carries samples over a restart, so that a new process is not blind for a whole window.

The daemon loads it before its sources start, writes the last hour every minute, and all there is on a clean stop. The
file is a zip of arrays: each has a checksum, so that a torn one is noticed; it replaces the last one in one step. Its
loss costs no more than a blind window, which is why a damaged file is set aside and not an error.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.clock import Clock
from agent.samples.store import Readings, SeriesStore

_log = logging.getLogger(__name__)

_FORMAT = "runbookd samples 1"
_MAX_BYTES = 256 * 1024 * 1024
_HOUR_MS = 3_600_000


class SampleArchive:
    """Samples on disk.

    Args:
        path: the file; its folder exists.
        max_bytes: of samples in it; where there are more, the older ones are left out.
    """

    def __init__(self, path: Path, *, max_bytes: int = _MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes

    def save(self, store: SeriesStore, *, now: float, lasting: int) -> None:
        """Write the samples of the ``lasting`` ms before ``now`` (unix seconds), or of as much as has room.

        Raises:
            OSError: the disk is full or can't be written; the file of before is as it was.
        """
        while store.size_of_readings(round(now * 1000) - lasting) > self._max_bytes:
            lasting //= 2
        found = store.readings(round(now * 1000) - lasting)
        header = {"format": _FORMAT, "sources": [{"source": each.source, "labels": each.labels} for each in found]}
        arrays: dict[str, NDArray[Any]] = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)}
        for number, each in enumerate(found):
            arrays[f"times{number}"], arrays[f"values{number}"] = each.times, each.values
        fresh = self.path.with_suffix(".new")
        with fresh.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)

    def load(self, store: SeriesStore, *, now: float) -> int:
        """File what was saved into an empty ``store``; how many samples that were.

        A file that is not whole, or not ours, is renamed to ``*.damaged`` and said in the log.
        """
        if not self.path.exists():
            return 0
        try:
            found = self._read()
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            aside = self.path.with_suffix(".damaged")
            _log.warning(
                "the samples of before the restart can't be read; rules are blind until their windows fill again",
                extra={"file": str(self.path), "moved_to": str(aside), "error": str(error)},
            )
            self.path.replace(aside)
            return 0
        return store.restore(found, now)

    def _read(self) -> list[Readings]:
        # The header, and what the arrays spend on their own headers, come on top of the samples.
        if self.path.stat().st_size > 2 * self._max_bytes + 1_000_000:
            raise ValueError("it is larger than any file that runbookd writes")
        with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != _FORMAT:
                raise ValueError(f"its format is {header['format']!r}")
            found = []
            for number, each in enumerate(header["sources"]):
                labels = tuple(tuple((str(name), str(value)) for name, value in pairs) for pairs in each["labels"])
                times, values = arrays[f"times{number}"], arrays[f"values{number}"]
                if times.dtype != np.int64 or values.dtype != np.float64 or values.shape != (len(times), len(labels)):
                    raise ValueError(f"the samples of {each['source']!r} do not fit their labels")
                found.append(Readings(str(each["source"]), labels, times, values))
            return found


class SampleKeeper:
    """Saves a store by interval, in a thread of its own, and once more at the end.

    Args:
        interval: seconds between two saves: what ``kill -9`` can cost.
    """

    def __init__(self, archive: SampleArchive, store: SeriesStore, *, clock: Clock, interval: float = 60.0) -> None:
        self._archive = archive
        self._store = store
        self._clock = clock
        self._interval = interval
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Load what an earlier process left, then save by interval. Call it before anything is filed."""
        count = self._archive.load(self._store, now=self._clock.now().timestamp())
        if count:
            _log.info("samples of before the restart were loaded", extra={"samples": count})
        self._thread = threading.Thread(target=self._run, daemon=True, name="samples")
        self._thread.start()

    def stop(self) -> None:
        """Save everything there is. Call it when nothing is filed any more."""
        self._stop.set()
        if self._thread is None:
            return
        self._thread.join()
        self.save(24 * _HOUR_MS)

    def save(self, lasting: int = _HOUR_MS) -> None:
        """Save the samples of the last ``lasting`` ms; a failure is logged, the next save may succeed."""
        try:
            self._archive.save(self._store, now=self._clock.now().timestamp(), lasting=lasting)
        except OSError as error:
            _log.warning("samples could not be saved", extra={"file": str(self._archive.path), "error": str(error)})

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.save()
