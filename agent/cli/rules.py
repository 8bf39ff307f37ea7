"""``runbookd rules``: check, test and try rules, on live samples and on recorded ones."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from agent.alerting import RuleSet, load_rules
from agent.alerting.recordings import Recording, read_recording, store_of
from agent.alerting.scripts import Assertion, run_script
from agent.api import ApiServer, create_query_app
from agent.api.answers import of_value
from agent.api.client import DaemonClient
from agent.cli.options import Json, Url, daemon_url, runtime
from agent.cli.output import err, out, print_json, stop, table, when
from agent.daemon.wiring import rules_of
from agent.faults import Misconfigured, MisconfiguredReason
from agent.promql import Engine, Plan, compile_expression
from agent.rehearsal import Backtest, Migration, backtest, is_journey, run_journey, thresholds_of
from agent.rehearsal.history import asker, fetched
from agent.rehearsal.playback import Playback

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
    """Run rule scripts (promtool's unit-test format) and journeys, on our own engine; exit code 1 if one fails."""
    with _rehearsing():
        results = [assertion for file in files for assertion in _run(file)]
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


@app.command("serve")
def serve(
    data_file: Annotated[Path, _DATA],
    files: Annotated[list[Path] | None, typer.Argument(help="Rule files to put to it; none by default.")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on; 0 takes any free one.")] = 9099,
) -> None:
    """Answer Prometheus's HTTP API over recorded samples, so that Grafana can open them; until Ctrl-C."""
    rules = load_rules(files) if files else RuleSet()
    recording = read_recording(data_file)
    thresholds = thresholds_of(runtime().policy) if files else []
    with Playback(recording, rules=rules, thresholds=thresholds) as playback:
        server = ApiServer(create_query_app(playback), host=host, port=port)
        server.start()
        begin, end = (when(datetime.fromtimestamp(moment, UTC)) for moment in (recording.start, recording.end))
        out.print(f"{len(recording.series)} series from {begin} to {end} at {server.url}")
        out.print("Add that address to Grafana as a Prometheus data source; Ctrl-C ends it.")
        _until_stopped()
        server.stop()


@app.command("backtest")
def run_backtest(
    data_file: Annotated[Path | None, _DATA] = None,
    files: Annotated[list[Path] | None, typer.Argument(help="Rule files; those of the settings by default.")] = None,
    prometheus: Annotated[str, typer.Option("--prometheus", help="Take the history from the Prometheus here.")] = "",
    since: Annotated[datetime | None, typer.Option("--from", help="Where that history begins, in UTC.")] = None,
    until: Annotated[datetime | None, typer.Option("--to", help="Where it ends, in UTC; now by default.")] = None,
    migration: Annotated[
        str,
        typer.Option("--migration", metavar="FROM[/TO]", help="When a migration ran, in UTC, if samples don't tell."),
    ] = "",
    json: Json = False,
) -> None:
    """What the rules would have said of a recorded history: what would have paged, what been rolled back."""
    run = runtime()
    rules = load_rules(files) if files else rules_of(run.settings)
    start = since.replace(tzinfo=UTC) if since else None
    found = backtest(
        rules,
        _history(rules, data_file, prometheus, start, until),
        run.policy,
        thresholds=thresholds_of(run.policy),
        migration=_migration(migration),
        start=start,
    )
    if json:
        print_json(found)
    else:
        _tell(found)


def _history(
    rules: RuleSet, data_file: Path | None, prometheus: str, start: datetime | None, until: datetime | None
) -> Recording:
    if (data_file is None) is (not prometheus):
        raise Misconfigured(
            MisconfiguredReason.SETTINGS,
            "a backtest needs one history",
            hint="give --data FILE, or --prometheus URL with --from",
        )
    if data_file is not None:
        return read_recording(data_file)
    if start is None:
        raise Misconfigured(
            MisconfiguredReason.SETTINGS,
            "--prometheus needs to know where the history begins",
            hint="give --from 2026-01-31T08:00:00, in UTC",
        )
    end = until.replace(tzinfo=UTC) if until else datetime.now(UTC)
    return fetched(rules, asker(prometheus), start=start, end=end)


def _migration(text: str) -> Migration | None:
    if not text:
        return None
    begin, _, end = text.partition("/")
    try:
        started, ended = (datetime.fromisoformat(each).replace(tzinfo=UTC) if each else None for each in (begin, end))
    except ValueError as error:
        raise Misconfigured(
            MisconfiguredReason.SETTINGS,
            f"--migration {text!r} is not FROM or FROM/TO",
            hint="write it like 2026-01-31T08:00:00/2026-01-31T08:12:00, in UTC",
        ) from error
    return Migration(started=started, ended=ended) if started else None


def _tell(found: Backtest) -> None:
    called = [each for each in found.fired if each.pages]
    if not called:
        out.print("Nothing would have fired.")
    else:
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
    for paged in found.paged:
        if paged.kind == "trigger":
            out.print(f"{when(paged.at)} {paged.channel} would have called: {paged.title}", markup=False)
    for decided in found.decided:
        what = "rolled back" if decided.rolls_back else f"decided {decided.verdict.replace('_', ' ')}"
        out.print(f"{when(decided.at)} {decided.row} would have {what}: {decided.reasons[0]}", markup=False)
    if found.unseen:
        out.print(f"The history does not speak of: {', '.join(found.unseen)}", markup=False)


def _run(file: Path) -> tuple[Assertion, ...]:
    return run_journey(file) if is_journey(file) else run_script(file)


@contextmanager
def _rehearsing() -> Iterator[None]:
    """Without a log: faults that are rehearsed are none of this process's."""
    log = logging.getLogger("agent")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _until_stopped() -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()


def _over_recording(plan: Plan, path: Path, moment: datetime | None) -> dict[str, Any]:
    recording = read_recording(path)
    at = moment.timestamp() if moment else recording.end
    return of_value(Engine(store_of(recording)).instant(plan, at), at, _MOST_SERIES)[0]


def _series(metric: dict[str, str]) -> str:
    name = metric.pop("__name__", "")
    return f"{name}{{{', '.join(f'{key}={value!r}' for key, value in metric.items())}}}"
