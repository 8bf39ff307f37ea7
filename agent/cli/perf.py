"""``runbookd perf``: the page's queries against their targets."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from agent.cli.options import Json, runtime
from agent.cli.output import err, print_json, progress_bars, stop, table
from agent.daemon.assembly import address_of, page_queries_of
from agent.firestore import NO_RETRY, Firestore
from agent.signals import QueryTiming, Verdict

_DEADLINE_S = 10.0
_STYLES = {Verdict.MET: "green", Verdict.MISSED: "red", Verdict.FAILED: "bold red", Verdict.NO_DATA: "yellow"}


def register(app: typer.Typer) -> None:
    app.command()(perf)


def perf(
    runs: Annotated[int, typer.Option("--runs", "-n", min=1, max=1000, help="How often each query is asked.")] = 20,
    json: Json = False,
) -> None:
    """Ask each query of the page some times and compare its p95 with its target.

    Exit code 1 unless every target is met. Only a transient collection is written to, and cleaned up. What the queries
    are is said by the settings' section `queries`.
    """
    run = runtime()
    with Firestore(
        address_of(run.settings), telemetry=run.telemetry, origin="perf", deadline=_DEADLINE_S, retry=NO_RETRY
    ) as firestore:
        firestore.check()
        queries = page_queries_of(run.settings, run.policy, firestore, run.clock)
        with progress_bars() as progress, run.telemetry.span("perf"):
            timings = [queries.measure(target, runs=runs, progress=progress) for target in run.policy.query_targets]
    met = all(timing.verdict is Verdict.MET for timing in timings)
    if json:
        print_json({"met": met, "queries": timings})
    else:
        table(
            ("query", "runs", "p50", "p95", "target", "on the page", "verdict"),
            (
                (
                    timing.title,
                    f"{timing.runs - timing.failures} of {timing.runs}",
                    _milliseconds(timing.p50),
                    _milliseconds(timing.p95),
                    f"<{_milliseconds(timing.target)}",
                    _milliseconds(timing.stated),
                    _verdict(timing),
                )
                for timing in timings
            ),
        )
        for timing in timings:
            if timing.problem:
                err.print(f"[red]{timing.title}[/]: {escape(timing.problem)}", highlight=False)
    if not met:
        stop(1)


def _verdict(timing: QueryTiming) -> str:
    style = _STYLES[timing.verdict]
    return f"[{style}]{timing.verdict.replace('_', ' ')}[/]"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f}ms" if seconds < 0.1 and seconds * 1000 % 1 else f"{seconds * 1000:,.0f}ms"
