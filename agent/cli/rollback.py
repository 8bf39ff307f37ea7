"""``runbookd rollback``: the page's emergency sequence, by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.options import DryRun, Json, Yes, runtime
from agent.cli.output import EXIT_CONFLICTS, confirm, err, out, print_json, stop, table
from agent.daemon.observer import Observer
from agent.daemon.wiring import build
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason
from agent.migration import RunState
from agent.recovery import Recovery, RecoveryState, StepRecord, StepState, planned


def register(app: typer.Typer) -> None:
    app.command()(rollback)


class _Printer(Observer):
    """Each step as it ends."""

    def recovering(self, recovery: Recovery, step: StepRecord | None) -> None:
        del recovery
        if step is not None and step.state in (StepState.DONE, StepState.FAILED):
            mark = "[green]done[/]" if step.state is StepState.DONE else "[red]failed[/]"
            of = f" of {step.budget:g} s" if step.budget is not None else ""
            err.print(f"{mark}  {step.title}  {step.seconds or 0.0:.1f} s{of}  [dim]{step.detail}[/]")


def rollback(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="The latest migration run by default.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Carry out the page's emergency sequence, or go on with one that is stuck.

    Stops traffic, takes the migration run back by its journal (or restores the last good backup if that is approved),
    clears caches, restores traffic and checks health, each step within its budget on the page.
    """
    invocation = runtime()
    _ = invocation.firestore  # says at once, and clearly, if nothing answers
    daemon = build(
        invocation.settings, config=invocation.config_file, telemetry=invocation.telemetry, observer=_Printer()
    )
    parts = daemon.parts
    try:
        record = parts.runs.get(run_id) if run_id else parts.runs.latest()
        if record is None:
            raise Permanent(PermanentReason.NOT_FOUND, "no migration has run: there is nothing to roll back")
        latest = parts.recovery_journal.latest()
        stuck = (
            latest
            if latest is not None and latest.run_id == record.id and latest.state is RecoveryState.STUCK
            else None
        )
        if record.state is RunState.UNDONE and stuck is None:
            raise Refused(RefusedReason.ALREADY_RAN, f"run {record.id} has been undone already")
        now = parts.clock.now()
        row = next((row for row in invocation.policy.matrix if row.budget is not None), None)
        budget = row.budget if row is not None else None
        if dry_run:
            plan = stuck or planned(
                id="plan",
                decision_id="plan",
                run_id=record.id,
                condition="by hand",
                started_at=now,
                budget=budget,
                sequence=invocation.policy.emergency,
            )
            point = parts.recovery_actions.choose_restore_point(record.id)
            if json:
                print_json({"run": record.id, "restore_point": point, "steps": plan.steps})
                return
            out.print(f"would roll back [bold]{record.id}[/] ({record.counts.written:,} documents) from {point.detail}")
            table(
                ("step", "budget", "state"),
                ((s.title, f"{s.budget:g} s" if s.budget is not None else "-", str(s.state)) for s in plan.steps),
            )
            return
        confirm(f"Roll back {record.id} ({record.counts.written:,} documents)? Traffic stops meanwhile.", yes=yes)
        parts.notifier.start()
        unfinished = parts.recovery_journal.unfinished()
        if stuck is not None:
            recovery = parts.recovery_runner.retry(stuck)
        elif unfinished is not None:  # cut off with its process; if a daemon is at it, its lock says no
            recovery = parts.recovery_runner.run(unfinished)
        else:
            begun = parts.recovery_runner.begin(
                decision_id=f"manual-{now:%Y%m%d-%H%M%S}-{record.id}",
                run_id=record.id,
                condition="by hand",
                budget=budget,
            )
            recovery = parts.recovery_runner.run(begun)
    finally:
        daemon.stop()
    if json:
        print_json(recovery)
    if recovery.state is RecoveryState.STUCK:
        raise Permanent(
            PermanentReason.UNHEALTHY,
            f"the rollback is stuck and maintenance mode stays on: {recovery.problem}",
            hint="mend the cause, then run `runbookd rollback` again; it goes on where it stopped",
        )
    if not json:
        out.print(f"rolled back: {recovery.counts.get('documents', 0):,} documents in {recovery.seconds or 0.0:.1f} s")
    if recovery.counts.get("kept"):
        out.print(f"[yellow]{recovery.counts['kept']:,} documents were changed by others since and kept[/]")
        stop(EXIT_CONFLICTS)
