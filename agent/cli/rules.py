"""``runbookd rules``: check, test and try rules."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from agent.alerting import load_rules
from agent.alerting.scripts import run_script
from agent.api.client import DaemonClient
from agent.cli.options import Json, Url, daemon_url
from agent.cli.output import err, out, print_json, stop, table
from agent.promql import compile_expression

app = typer.Typer(help="Check and test rule files, and evaluate expressions.")

Files = Annotated[list[Path], typer.Argument(help="Files.")]


@app.command("check")
def check(files: Files) -> None:
    """Load rule files; every problem with file, group and rule."""
    rules = load_rules(files)
    out.print(f"{len(files)} files: {len(rules.alerts)} alerts, {len(rules.recordings)} recordings. All good.")


@app.command("test")
def run_tests(files: Files, json: Json = False) -> None:
    """Run rule scripts in promtool's unit-test format on our own engine; exit code 1 if an assertion fails."""
    results = [assertion for file in files for assertion in run_script(file)]
    failed = [result for result in results if not result.passed]
    if json:
        print_json(results)
    else:
        for result in failed:
            err.print(
                f"[red]FAILED[/] {result.file}, {result.test}, {result.subject} at {result.at:g} s\n"
                f"  expected {escape(result.expected)}\n  got      {escape(result.got)}",
                highlight=False,
            )
        out.print(f"{len(results)} assertions in {len(files)} scripts: {len(results) - len(failed)} passed")
    if failed:
        stop(1)


@app.command("eval")
def evaluate(
    expression: Annotated[str, typer.Argument(help="PromQL.")],
    at: Annotated[datetime | None, typer.Option("--at", help="Time in UTC; now by default.")] = None,
    url: Url = "",
    json: Json = False,
) -> None:
    """Evaluate an expression over the samples of the running daemon."""
    compile_expression(expression)  # a mistake is explained here, without asking the daemon
    with DaemonClient(daemon_url(url)) as daemon:
        data = daemon.evaluate(expression, at.replace(tzinfo=UTC) if at else None)
    if json:
        print_json(data)
        return
    if data["resultType"] in ("scalar", "string"):
        out.print(data["result"][1])
        return
    rows = ((_series(item["metric"]), item["value"][1]) for item in data["result"])
    table(("series", "value"), rows)


def _series(metric: dict[str, str]) -> str:
    name = metric.pop("__name__", "")
    return f"{name}{{{', '.join(f'{key}={value!r}' for key, value in metric.items())}}}"
