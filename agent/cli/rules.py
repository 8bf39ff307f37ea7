"""``runbookd rules``: check, test and try rules."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.markup import escape

from agent.alerting import load_rules
from agent.alerting.scripts import run_script
from agent.cli.options import Json, runtime
from agent.cli.output import err, out, print_json, stop, table
from agent.faults import Permanent, PermanentReason, Transient, TransientReason
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
    at: Annotated[datetime | None, typer.Option("--at", help="Time; now by default.")] = None,
    url: Annotated[str, typer.Option("--url", help="A running runbookd; default from the settings.")] = "",
    json: Json = False,
) -> None:
    """Evaluate an expression over the samples of the running daemon."""
    compile_expression(expression)  # a mistake is explained here, without asking the daemon
    api = runtime().settings.api
    address = (url or f"http://{api.host}:{api.port}").rstrip("/")
    parameters = {"query": expression, **({"time": at.isoformat()} if at else {})}
    try:
        body = httpx.get(f"{address}/api/v1/query", params=parameters, timeout=30.0).json()
    except (httpx.HTTPError, ValueError) as error:
        raise Transient(
            TransientReason.UNAVAILABLE, f"no runbookd answers at {address} ({error})", hint="start it: runbookd run"
        ) from error
    if body.get("status") != "success":
        raise Permanent(PermanentReason.INVALID, str(body.get("error", body)))
    if json:
        print_json(body["data"])
        return
    data = body["data"]
    if data["resultType"] in ("scalar", "string"):
        out.print(data["result"][1])
        return
    rows = ((_series(item["metric"]), item["value"][1]) for item in data["result"])
    table(("series", "value"), rows)


def _series(metric: dict[str, str]) -> str:
    name = metric.pop("__name__", "")
    return f"{name}{{{', '.join(f'{key}={value!r}' for key, value in metric.items())}}}"
