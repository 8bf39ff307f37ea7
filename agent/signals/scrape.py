"""Scraping: the application's own client metrics, which see every operation and not just the probes'.

A target speaks the Prometheus text format or OpenMetrics (asked for first, because it carries exemplars). Parsing
keeps the label set of every line it has seen by the raw text before the value: a target's lines repeat from scrape
to scrape, and only the values change.

A client library makes a counter when it first counts, so the first error of a kind is a series that was not there
before. Prometheus needs a second sample to see an increase; here a counter that is born between two readings was zero
at the first of them, which is what its library means, and its first errors count (``counters_from_zero``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

from agent.clock import Clock, next_beat
from agent.faults import Permanent, PermanentReason
from agent.samples import Exemplar, Labels, Sample, SeriesStore, labels_of
from agent.settings import ScrapeTarget
from agent.signals.freshness import Freshness
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import SCRAPE_UP

_log = logging.getLogger(__name__)
# The rules look on whole multiples of their interval. What is scraped so long before, or longer for a target that takes
# longer, is there by then; in no step with them it would on average wait for half an interval.
_AHEAD_S = 0.1
_ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


class ExpositionParser:
    """Turns exposition text into samples with ``target`` labels added; keeps the label sets it has seen."""

    def __init__(self, target: Mapping[str, str]) -> None:
        self._target = dict(target)
        self._known: dict[str, Labels] = {}
        self.counters: set[str] = set()
        """Names of the samples that count from zero, as far as the target has said so (``# TYPE``)."""

    def parse(self, text: str) -> Iterator[Sample]:
        """Samples of one scrape.

        Raises:
            Permanent: a line is not in the format; the message quotes it.
        """
        for line in text.splitlines():
            if not line or line[0] == "#":
                if line.startswith("# TYPE "):
                    self._type(line)
                continue
            body, _, exemplar = line.partition(" # {")
            prefix, _, number = body.rstrip().rpartition(" ")
            if (prefix[-1:] != "}" and " " in prefix) or not prefix:  # a timestamp follows the value: ours is used
                prefix, _, number = prefix.rpartition(" ")
            labels = self._known.get(prefix)
            if labels is None:
                labels = self._known[prefix] = self._labels(prefix, line)
            try:
                value = float(number)
            except ValueError:
                raise _malformed(line) from None
            yield Sample(labels, value, _exemplar(exemplar) if exemplar else None)

    def _type(self, line: str) -> None:
        _, _, name, kind = (*line.split(), "", "")[:4]
        if kind == "counter":
            self.counters |= {name, f"{name}_total"}  # OpenMetrics leaves the suffix out here
        elif kind == "histogram":
            self.counters |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"}

    def _labels(self, prefix: str, line: str) -> Labels:
        try:
            family = next(iter(text_string_to_metric_families(prefix.strip() + " 0\n")))
            sample = family.samples[0]
        except (ValueError, StopIteration, IndexError, KeyError):
            raise _malformed(line) from None
        # As Prometheus does: the target's own label moves aside for ours.
        own = {f"exported_{k}" if k in self._target else k: v for k, v in sample.labels.items()}
        return labels_of(sample.name, {**own, **self._target})


def _malformed(line: str) -> Permanent:
    return Permanent(PermanentReason.INVALID, f"not a line of the Prometheus text format: {line[:120]!r}")


def _exemplar(text: str) -> Exemplar | None:
    """``trace_id="..."} value [timestamp]``; an exemplar that can't be read is no reason to lose the sample."""
    labels, _, rest = text.partition("} ")
    trace_id = next(
        (pair.partition("=")[2].strip('"') for pair in labels.split(",") if pair.strip().startswith("trace_id=")), ""
    )
    numbers = rest.split()
    try:
        return Exemplar(
            trace_id=trace_id, value=float(numbers[0]), timestamp=float(numbers[1]) if len(numbers) > 1 else 0.0
        )
    except (ValueError, IndexError):
        return None


class Scraper:
    """Scrapes every target in a thread of its own."""

    def __init__(
        self,
        targets: Iterable[ScrapeTarget],
        *,
        store: SeriesStore,
        freshness: Freshness,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._targets = tuple(targets)
        self._store = store
        self._freshness = freshness
        self._clock = clock
        self._up: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        telemetry.observe(SCRAPE_UP, self._observe)

    def start(self) -> None:
        for target in self._targets:
            self._freshness.expect(_source(target))
            thread = threading.Thread(target=self._loop, args=(target,), daemon=True, name=f"scrape-{target.job}")
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=2.0)

    def _loop(self, target: ScrapeTarget) -> None:
        instance = target.instance
        parser = ExpositionParser({"job": target.job, "instance": instance})
        timeout = min(target.interval * 2, 10.0)
        with httpx.Client(timeout=timeout, headers={"Accept": _ACCEPT}) as client:
            while not self._stop.is_set():
                began = self._clock.monotonic()
                up = self._scrape(client, parser, target)
                with self._lock:
                    self._up[target.job, instance] = up
                # Fixed points, not "a while after the last one": scrapes don't drift when one is slow.
                now = self._clock.monotonic()
                ahead = min(max(_AHEAD_S, 2 * (now - began)), target.interval / 2)
                self._stop.wait(next_beat(now, target.interval, ahead=ahead) - now)

    def _scrape(self, client: httpx.Client, parser: ExpositionParser, target: ScrapeTarget) -> float:
        at = self._clock.now().timestamp()
        try:
            response = client.get(target.url)
            response.raise_for_status()
            samples = list(parser.parse(response.text))
        except (httpx.HTTPError, Permanent) as error:
            _log.debug("scrape failed", extra={"url": target.url, "error": str(error)})
            self._store.stale(_source(target), at)
            return 0.0
        self._store.ingest(_source(target), at, samples, counters=parser.counters if target.counters_from_zero else ())
        self._freshness.delivered(_source(target))
        return 1.0

    def _observe(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        with self._lock:
            results = dict(self._up)
        for (job, instance), up in results.items():
            yield up, {"job": job, "instance": instance}


def _source(target: ScrapeTarget) -> str:
    # Both: what one target no longer has must not end the series of another instance of the same job.
    return f"scrape:{target.job}/{target.instance}"
