"""Runs the benchmarks, a table each: ``python -m bench [NAMES] [--scale S] [--backend B] [--json FILE]``.

Exit code 1 if a target is missed. Short by default: eight to fifteen minutes in all. What one benchmark found is
printed and written as soon as it is known, so that whoever ends the run early keeps it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measure import Measure, Setup
from bench.suite import BENCHES

_WIDTHS = {"median": 18, "target": 11}  # so that the tables' columns stand below each other
_OK = {True: "[green]yes[/]", False: "[bold red]NO[/]", None: ""}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="How fast runbookd is; see bench/README.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--scale", type=float, default=0.02, help="1 is 306,725 documents (default: %(default)s)")
    parser.add_argument("--backend", choices=("sandbox", "emulator"), default="sandbox")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over so many (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(BENCHES))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if given.scale <= 0 or given.rounds < 1:
        parser.error("--scale and --rounds must be positive")
    setup = Setup(scale=given.scale, backend=given.backend, rounds=given.rounds)
    measures: list[Measure] = []
    console = Console(width=None if sys.stdout.isatty() else 110)
    for name in given.names or BENCHES:
        began = time.monotonic()
        found = BENCHES[name](setup)
        console.print(_table(found, f"{name}: {setup}, {time.monotonic() - began:.0f} s"))
        measures += found
        if given.json is not None:
            given.json.write_text(json.dumps(_record(measures, setup), indent=2) + "\n", encoding="utf-8")
    missed = [measure for measure in measures if measure.ok is False]
    for measure in missed:
        console.print(f"[bold red]missed[/] {measure.bench}: {measure.name}, {_figure(measure)} ({measure.target})")
    return 1 if missed else 0


def _table(measures: Sequence[Measure], title: str) -> Table:
    table = Table(title=title, title_justify="left", expand=True)
    table.add_column("measure", ratio=1)
    for heading in ("median", "target", "ok"):
        table.add_column(heading, justify="right", min_width=_WIDTHS.get(heading))
    for measure in measures:
        # A target in brackets is a promise about another server or more documents than these.
        target = measure.target if measure.ok is not None or not measure.target else f"({measure.target})"
        table.add_row(measure.name, _figure(measure), target, _OK[measure.ok])
    return table


def _figure(measure: Measure) -> str:
    if measure.median is None:
        return measure.note
    digits = 0 if measure.median >= 100 else 1 if measure.median >= 10 else 3 if measure.median < 0.1 else 2
    return f"{measure.median:,.{digits}f} {measure.unit}"


def _record(measures: Sequence[Measure], setup: Setup) -> dict[str, object]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        **asdict(setup),
        "measures": [asdict(measure) for measure in measures],
    }


if __name__ == "__main__":
    sys.exit(main())
