"""signals: everything that becomes a sample.

Belongs here: the agent's own instruments, the page's thresholds as series, scraping of the application's client
metrics, probes, the page's queries timed on purpose, the baseline before a change, Cloud Monitoring, and how fresh each
source is. Does not belong here: keeping samples (samples), judging them (promql, alerting).

``agent.signals.cloud_monitoring`` is imported from its own module: Google's client library takes a fifth of a second to
load, and few deployments use it.
"""

from agent.signals.baseline import Baseline, BaselineRecorder
from agent.signals.freshness import Freshness
from agent.signals.instruments import InstrumentSource
from agent.signals.policy import observe_policy
from agent.signals.probe import Probe, ProbeRunner
from agent.signals.queries import PageQueries, QueryTiming, Verdict, Warmed
from agent.signals.scrape import ExpositionParser, Scraper

__all__ = [
    "Baseline",
    "BaselineRecorder",
    "ExpositionParser",
    "Freshness",
    "InstrumentSource",
    "PageQueries",
    "Probe",
    "ProbeRunner",
    "QueryTiming",
    "Scraper",
    "Verdict",
    "Warmed",
    "observe_policy",
]
