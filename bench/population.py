"""10,000 counters that Prometheus scrapes and our store holds, sample for sample: what rule and query benches ask.

Two metrics, ``y_total`` (asked) and ``x_total`` (failed), 100 jobs of 50 instances each, one sample a second. In every
tenth job a fifth of what is asked fails, elsewhere a hundredth, so that a rule with ``> 0.05`` is true of ten jobs.
The same arguments give the same samples, in any process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from agent.samples import Labels, Sample, SeriesStore, labels_of

JOBS = 100
INSTANCES = 50
METRICS = ("x_total", "y_total")
_SEED = 7

Reading = tuple[int, NDArray[np.int64]]
"""Unix seconds and the values of all series."""


class Population:
    """Readings in order, one a second.

    Args:
        began: unix seconds of the first reading.
    """

    def __init__(self, began: int) -> None:
        self._next = began
        self._random = np.random.default_rng(_SEED)
        members = [(name, job, number) for name in METRICS for job in range(JOBS) for number in range(INSTANCES)]
        self.labels: list[Labels] = [
            labels_of(name, {"job": f"job{job}", "instance": str(number)}) for name, job, number in members
        ]
        self._lines = "".join(
            f'{name}{{job="job{job}",instance="{number}"}} %d {{at}}000\n' for name, job, number in members
        )
        self._share = np.repeat(np.where(np.arange(JOBS) % 10 == 0, 0.2, 0.01), INSTANCES)
        self._values: NDArray[np.int64] = np.zeros(len(members), dtype=np.int64)

    def __iter__(self) -> Iterator[Reading]:
        return self

    def __next__(self) -> Reading:
        """The next reading; its values are in the order of :attr:`labels`."""
        asked = self._random.integers(50, 151, size=len(self._share))
        failed = self._random.binomial(asked, self._share)
        self._values = self._values + np.concatenate([failed, asked])
        self._next += 1
        return self._next - 1, self._values

    def text(self, reading: Reading) -> bytes:
        """A reading in Prometheus's text format, with its timestamp on every line."""
        at, values = reading
        return (self._lines % tuple(values.tolist())).replace("{at}", str(at)).encode()

    def file(self, store: SeriesStore, reading: Reading) -> None:
        """A reading in our store."""
        at, values = reading
        samples = [Sample(labels, float(value)) for labels, value in zip(self.labels, values.tolist(), strict=True)]
        store.ingest("bench", float(at), samples)


class Feed:
    """Serves the population to a scraper; a context manager.

    At first a reading a scrape, so that minutes of samples are there in seconds; once the last one is of now, one a
    second.

    Args:
        history: seconds of samples that are to be there before now.
        pause: seconds between two scrapes at first.
    """

    def __init__(self, *, history: int, pause: float) -> None:
        self.began = int(time.time()) - history + int(history * pause) + 5
        self.population = Population(self.began)
        self.served: list[Reading] = []
        self._history = history
        self._lock = threading.Lock()
        self._body = b""
        feed = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = feed.scraped()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self.target = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="feed")

    def scraped(self) -> bytes:
        """What a scrape now gets."""
        with self._lock:
            if not self._caught_up():
                self.served.append(next(self.population))
                self._body = self.population.text(self.served[-1])
            return self._body

    def wait_until_full(self) -> None:
        """Returns once a reading of now was scraped."""
        while True:
            with self._lock:
                if self._caught_up():
                    return
            time.sleep(0.2)

    def _caught_up(self) -> bool:
        return len(self.served) >= self._history and self.served[-1][0] >= int(time.time())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that is stopped, or out of patience, closes in the middle; that is no news."""
