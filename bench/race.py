"""Which pages first: our daemon, or Prometheus with Alertmanager? Part of ``python -m bench detection``.

One process exposes the client metrics of 40 applications; all contenders scrape it, with the same rule file, and page
loopback receivers of PagerDuty's Events API v2. The applications' databases begin to fail one after the other, so that
every trial meets another phase of every interval. Prometheus scrapes and evaluates once a second, Alertmanager groups
by condition with ``group_wait: 0s``; each rule is a group of its own there, because Prometheus spreads groups over the
interval. Ours runs twice: as it is shipped, with one look a second, and with five.

Three rules. *quick* has no patience and looks at 5 s, the least that a scrape a second allows: what is measured is the
way from the process to the pager. In a *dead* database every operation fails, in an *ill* one every fifth. *patient*
has the window and the ``for`` of the shipped decision rule: there all contenders wait, above all, for the rule.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml

from agent.sandbox.child import Child
from agent.sandbox.receivers import PagerDutyEvent, PagerDutyReceiver
from bench.measure import Table, Target
from bench.monitoring import Remote, Server, alertmanager, configuration, missing, prometheus
from bench.watcher import ROUTING_KEY

TRIALS = 20
_APART_S = 0.3675  # no divisor of a second
_WARM_UP_S = 12.0  # longer than any window
_PATIENCE_S = 90.0
_THIRD = Target(limit=round(1 / 3, 3), at_least=False)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule about one kind of application."""

    name: str
    kind: str
    window: str
    pending_for: str = "0s"
    target: Target | None = None

    def conditions(self) -> list[str]:
        """One for each application: what its page is known by."""
        return [f"{self.name}-{self.kind}-{number}" for number in range(TRIALS)]


RULES = (
    Rule(name="quick", kind="dead", window="5s", target=_THIRD),
    Rule(name="quick", kind="ill", window="5s"),
    Rule(name="patient", kind="ill", window="10s", pending_for="12s"),
)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Who pages, whom it pages, and how to know what an event is about."""

    name: str
    pager: PagerDutyReceiver
    condition: Callable[[PagerDutyEvent], str]
    processes: Sequence[Remote]

    def paged_at(self) -> dict[str, float]:
        """Unix time of the first trigger, by condition."""
        found: dict[str, float] = {}
        for event in self.pager.received:
            if event.action == "trigger":
                found.setdefault(self.condition(event), event.received_at.timestamp())
        return found


def race(table: Table) -> None:
    """Adds a line for each contender and rule; nothing where a program is missing."""
    if missing():
        print(f"detection beside {' and '.join(missing())}: not installed, left out", file=sys.stderr)
        return
    with ExitStack() as stack:
        live = stack.enter_context(Child("bench.stepping", [str(TRIALS)] * 2, name="live process"))
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "rules.yaml"
        file.write_text(_rule_file(), encoding="utf-8")
        target = live.ready["target"]
        ours = [
            _ours(stack, name, target, file, interval)
            for name, interval in (("ours, five looks a second", 0.2), ("ours, as shipped", 1.0))
        ]
        theirs = _theirs(stack, target, file)
        contenders = [*ours, theirs]
        time.sleep(_WARM_UP_S)
        before = [_cpu(each) for each in contenders]
        began = time.monotonic()
        stepped = _step(live)
        _wait(contenders, len(RULES) * TRIALS)
        lasted = time.monotonic() - began
        shares = [(_cpu(each) - used) / lasted for each, used in zip(contenders, before, strict=True)]
        delays = {each.name: _delays(each, stepped) for each in contenders}
    for rule in RULES:
        what = f"{rule.name} rule, {rule.kind} database"
        medians = {name: statistics.median(found[rule]) for name, found in delays.items()}
        for name, median in medians.items():
            table.add(f"{what}: {name}", median, "s")
        for each in ours:
            judged = rule.target if each is ours[0] else None
            table.add(f"{what}: {each.name} / Prometheus", medians[each.name] / medians[theirs.name], "x", judged)
    for each, share in zip(contenders, shares, strict=True):
        table.add(f"CPU: {each.name}", share * 100, "% of a core")


def _rule_file() -> str:
    groups = []
    for rule in RULES:
        for number, condition in enumerate(rule.conditions()):
            of_it = f'db_query_summary="{rule.kind}-{number}"'
            count = "db_client_operation_duration_seconds_count"
            failed = f'sum(rate({count}{{{of_it},error_type!=""}}[{rule.window}]))'
            alert = {
                "alert": rule.name.capitalize(),
                "expr": f"{failed} / sum(rate({count}{{{of_it}}}[{rule.window}])) > 0.05",
                "for": rule.pending_for,
                "labels": {"severity": "critical", "condition": condition},
                "annotations": {"summary": "{{ $value | humanizePercentage }} of database operations fail"},
            }
            groups.append({"name": condition, "rules": [alert]})
    return yaml.safe_dump({"groups": groups}, sort_keys=False)


def _ours(stack: ExitStack, name: str, target: str, file: Path, interval: float) -> Contender:
    pager = stack.enter_context(PagerDutyReceiver())
    arguments = [target, str(file), pager.base_url, str(interval)]
    child = stack.enter_context(Child("bench.watcher", arguments, name="watcher"))
    return Contender(
        name=name,
        pager=pager,
        condition=lambda event: event.dedup_key.rpartition("/")[2],
        processes=[Remote("http://127.0.0.1", child.pid)],
    )


def _theirs(stack: ExitStack, target: str, file: Path) -> Contender:
    pager = stack.enter_context(PagerDutyReceiver())
    paging = {
        "routing_key": ROUTING_KEY,
        "url": f"{pager.base_url}/v2/enqueue",
        "description": "{{ .CommonLabels.condition }}",
    }
    route = {"receiver": "pager", "group_by": ["condition"], "group_wait": "0s", "group_interval": "1s"}
    routing = {"route": route, "receivers": [{"name": "pager", "pagerduty_configs": [paging]}]}
    manager: Server = stack.enter_context(alertmanager(routing))
    address = manager.url.removeprefix("http://")
    alerting = {"alertmanagers": [{"static_configs": [{"targets": [address]}]}]}
    rules = file.read_text(encoding="utf-8")
    server = stack.enter_context(prometheus(configuration(target, "1s", alerting=alerting), rules))
    return Contender(
        name="Prometheus and Alertmanager",
        pager=pager,
        condition=lambda event: event.summary,
        processes=[server, manager],
    )


def _step(live: Child) -> dict[str, float]:
    """Make every application's database fail, one after the other; unix time by application."""
    stepped = {}
    due = time.monotonic()
    for number in range(TRIALS):
        for kind in ("dead", "ill"):
            time.sleep(max(due - time.monotonic(), 0.0))
            application = f"{kind}-{number}"
            stepped[application] = float(live.ask({"step": application})["at"])
            due += _APART_S
    return stepped


def _wait(contenders: Sequence[Contender], pages: int) -> None:
    """Raises: RuntimeError: somebody was not paged in time."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if all(len(each.paged_at()) >= pages for each in contenders):
            return
        time.sleep(0.5)
    found = ", ".join(f"{each.name}: {len(each.paged_at())}" for each in contenders)
    raise RuntimeError(f"of {pages} pages there are after {_PATIENCE_S:.0f} s only: {found}")


def _delays(contender: Contender, stepped: dict[str, float]) -> dict[Rule, list[float]]:
    """Seconds from the step to the page.

    Raises:
        RuntimeError: a page came before its step: something else was measured.
    """
    paged = contender.paged_at()
    delays = {
        rule: [
            paged[condition] - stepped[f"{rule.kind}-{number}"] for number, condition in enumerate(rule.conditions())
        ]
        for rule in RULES
    }
    if min(min(found) for found in delays.values()) < 0:
        raise RuntimeError(f"{contender.name} paged before there was anything to page for")
    return delays


def _cpu(contender: Contender) -> float:
    return sum(process.cpu() for process in contender.processes)
