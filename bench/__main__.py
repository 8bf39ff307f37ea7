"""Runs the benchmarks and prints one table: ``python -m bench [NAMES] [--scale S] [--backend B] [--json FILE]``.

Exit code 1 if a target is missed. Short by default: two to three minutes in all.
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
    progress = Console(stderr=True)
    for name in given.names or BENCHES:
        began = time.monotonic()
        measures += BENCHES[name](setup)
        progress.print(f"{name}: {time.monotonic() - began:.0f} s", style="dim")
    _print(measures, setup)
    if given.json is not None:
        given.json.write_text(json.dumps(_record(measures, setup), indent=2) + "\n", encoding="utf-8")
    return 1 if any(measure.ok is False for measure in measures) else 0


def _print(measures: Sequence[Measure], setup: Setup) -> None:
    table = Table(title=f"{setup.backend}, scale {setup.scale:g}, medians of {setup.rounds}", title_justify="left")
    for heading in ("bench", "measure"):
        table.add_column(heading)
    for heading in ("median", "target", "ok"):
        table.add_column(heading, justify="right")
    for measure in measures:
        # A target in brackets is a promise about another server or more documents than these.
        target = measure.target if measure.ok is not None or not measure.target else f"({measure.target})"
        table.add_row(measure.bench, measure.name, _figure(measure), target, _OK[measure.ok])
    Console(width=None if sys.stdout.isatty() else 110).print(table)


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
