"""The files that carry samples over a restart, so that a new process is not blind for a whole window.

The daemon loads them before its sources start, writes what is new every minute, and the rest on a clean stop. A file
holds ten minutes: only the last one is written again, and a damaged one costs its ten minutes alone. It is a zip of
arrays, each with a checksum, so that a torn one is noticed; it is replaced in one step, so that ``kill -9`` meanwhile
leaves the one of before. Loss costs no more than a blind window, which is why a damaged file is set aside and not an
error.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.clock import Clock
from agent.samples.store import Readings, SeriesStore

_log = logging.getLogger(__name__)

_FORMAT = "runbookd samples 2"
_MAX_BYTES = 512 * 1024 * 1024
_SPAN_MS = 600_000
_SUFFIX = ".samples"


class SampleArchive:
    """Samples on disk, ten minutes a file. For one thread at a time.

    Args:
        folder: where the files are; made if it is not there.
        retention: seconds; older files go.
        max_bytes: of all files; where there are more, the oldest go.
    """

    def __init__(self, folder: Path, *, retention: float = 6 * 3600.0, max_bytes: int = _MAX_BYTES) -> None:
        self.folder = folder
        self._retention = round(retention * 1000)
        self._max_bytes = max_bytes
        self._saved = 0

    def save(self, store: SeriesStore, *, now: float) -> None:
        """Write what was read since the last save, up to ``now`` (unix seconds).

        Raises:
            OSError: the disk is full or can't be written; every file is as it was, or new and whole.
        """
        until = round(now * 1000)
        self.folder.mkdir(parents=True, exist_ok=True)
        since = min(self._saved, until) if self._saved else until - self._retention
        for start in range(since // _SPAN_MS * _SPAN_MS, until + 1, _SPAN_MS):
            found = store.readings(start - 1, min(start + _SPAN_MS - 1, until))
            if found:
                self._write(self.folder / f"{start}{_SUFFIX}", found)
        self._saved = until
        self._clean(until)

    def load(self, store: SeriesStore, *, now: float) -> int:
        """File what was saved into an empty ``store``; how many samples that were.

        A file that is not whole, or not ours, is renamed to ``*.damaged`` and said in the log.
        """
        files = self._files()
        self._saved = files[-1][0] if files else 0  # the last file may be half full: it is written again
        return store.restore(self._whole([path for _, path in files]), now)

    def _whole(self, paths: list[Path]) -> Iterator[Readings]:
        for path in paths:
            try:
                found = self._read(path)
            except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                aside = path.with_suffix(".damaged")
                _log.warning(
                    "samples of before the restart can't be read; rules that look that far back are blind there",
                    extra={"file": str(path), "moved_to": str(aside), "error": str(error)},
                )
                path.replace(aside)
            else:
                yield from found

    def _files(self) -> list[tuple[int, Path]]:
        """When each file begins, ms, oldest first."""
        named = [(path.stem, path) for path in self.folder.glob(f"*{_SUFFIX}")]
        return sorted((int(stem), path) for stem, path in named if stem.isascii() and stem.isdigit())

    def _clean(self, until: int) -> None:
        """Remove what is too old, too much, or of a future that a clock put back has taken back."""
        total = 0
        for start, path in reversed(self._files()):
            total += path.stat().st_size
            old = start + _SPAN_MS < until - self._retention
            if start > until or old or (total > self._max_bytes and start + _SPAN_MS <= until):
                path.unlink()

    def _write(self, path: Path, found: list[Readings]) -> None:
        header = {"format": _FORMAT, "sources": [{"source": each.source, "labels": each.labels} for each in found]}
        arrays: dict[str, NDArray[Any]] = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)}
        for number, each in enumerate(found):
            arrays[f"times{number}"], arrays[f"values{number}"] = each.times, each.values
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def _read(self, path: Path) -> list[Readings]:
        if path.stat().st_size > 2 * self._max_bytes:
            raise ValueError("it is larger than any file that runbookd writes")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
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
        """Save the rest. Call it when nothing is filed any more."""
        self._stop.set()
        if self._thread is None:
            return
        self._thread.join()
        self.save()

    def save(self) -> None:
        """Save what is new; a failure is logged, and the next save makes up for it."""
        try:
            self._archive.save(self._store, now=self._clock.now().timestamp())
        except OSError as error:
            _log.warning("samples could not be saved", extra={"folder": str(self._archive.folder), "error": str(error)})

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.save()
