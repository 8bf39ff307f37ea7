"""``runbookd rules``: check, test and try rules, on live samples and on recorded ones."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from agent.alerting import load_rules
from agent.alerting.backtest import backtest, read_recording, store_of
from agent.alerting.scripts import run_script
from agent.api.answers import of_value
from agent.api.client import DaemonClient
from agent.cli.options import Json, Url, daemon_url, runtime
from agent.cli.output import err, out, print_json, stop, table, when
from agent.daemon.wiring import rules_of
from agent.promql import Engine, Plan, compile_expression
from agent.runbook import Policy
from agent.samples import Sample
from agent.signals import observe_policy
from agent.signals.instruments import TARGET_LABELS, LabelCache, samples_of
from agent.telemetry import quiet_telemetry

app = typer.Typer(help="Check and test rule files, and evaluate expressions.")

Files = Annotated[list[Path], typer.Argument(help="Files.")]
_DATA = typer.Option("--data", exists=True, dir_okay=False, help="Recorded samples: OpenMetrics text with timestamps.")
_MOST_SERIES = 10_000


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
    data_file: Annotated[Path | None, _DATA] = None,
    url: Url = "",
    json: Json = False,
) -> None:
    """Evaluate an expression over the samples of the running daemon, or over recorded ones (at their end)."""
    plan = compile_expression(expression)  # a mistake is explained here, without asking the daemon
    moment = at.replace(tzinfo=UTC) if at else None
    if data_file is not None:
        data = _over_recording(plan, data_file, moment)
    else:
        with DaemonClient(daemon_url(url)) as daemon:
            data = daemon.evaluate(expression, moment)
    if json:
        print_json(data)
        return
    if data["resultType"] in ("scalar", "string"):
        out.print(data["result"][1])
        return
    latest = ((item["metric"], item["value"] if "value" in item else item["values"][-1]) for item in data["result"])
    table(("series", "value"), ((_series(metric), pair[1]) for metric, pair in latest))


@app.command("backtest")
def run_backtest(
    data_file: Annotated[Path, _DATA],
    files: Annotated[list[Path] | None, typer.Argument(help="Rule files; those of the settings by default.")] = None,
    json: Json = False,
) -> None:
    """What the rules would have said of a recorded incident: what would have paged, what rolled back."""
    run = runtime()
    rules = load_rules(files) if files else rules_of(run.settings)
    found = backtest(
        rules,
        read_recording(data_file),
        thresholds=_thresholds(run.policy),
        actions={row.condition: str(row.action) for row in run.policy.matrix if not row.manual},
    )
    if json:
        print_json(found)
        return
    called = [each for each in found if each.pages]
    if not called:
        out.print("Nothing would have fired.")
        return
    table(
        ("fired", "ended", "alert", "severity", "the matrix says"),
        (
            (
                when(each.fired_at),
                when(each.resolved_at),
                each.rule,
                each.labels.get("severity", ""),
                each.action.replace("_", " "),
            )
            for each in called
        ),
    )
    out.print("A rollback needs a migration that can be blamed: the recording does not say whether there was one.")


def _over_recording(plan: Plan, path: Path, moment: datetime | None) -> dict[str, Any]:
    recording = read_recording(path)
    at = moment.timestamp() if moment else recording.end
    return of_value(Engine(store_of(recording)).instant(plan, at), at, _MOST_SERIES)[0]


def _thresholds(policy: Policy) -> list[Sample]:
    """The page's figures, as the daemon's rules read them."""
    telemetry = quiet_telemetry()
    observe_policy(lambda: policy, telemetry)
    families = [family for family in telemetry.families() if family.name.startswith("runbook_")]
    return list(samples_of(families, LabelCache(TARGET_LABELS)))


def _series(metric: dict[str, str]) -> str:
    name = metric.pop("__name__", "")
    return f"{name}{{{', '.join(f'{key}={value!r}' for key, value in metric.items())}}}"
