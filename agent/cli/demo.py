"""``runbookd demo``: the main job, as a story."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agent.cli.output import err, stop
from agent.daemon.daemon import Daemon
from agent.daemon.serving import serve_api
from agent.daemon.wiring import build
from agent.demo import DemoOptions, FaultChoice, Story
from agent.demo.narration import Narrator
from agent.runbook import load_runbook
from agent.settings import load_settings
from agent.telemetry import start_logging, start_telemetry

_WIDTH = 110  # of a log or a file, which have none
_ROOT = Path(__file__).resolve().parents[2]


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    scale: Annotated[float, typer.Option("--scale", min=0.001, max=1.0, help="1 is 306,725 documents.")] = 0.1,
    fault: Annotated[FaultChoice, typer.Option("--fault", help="What goes wrong half-way.")] = FaultChoice.ERRORS,
    leave: Annotated[bool, typer.Option("--exit", help="End when the story ends.")] = False,
    port: Annotated[int, typer.Option("--port", help="Of the status page; 0 takes any free one.")] = 0,
    folder: Annotated[Path | None, typer.Option("--folder", help="Keep the run's files here.")] = None,
) -> None:
    """Watch a bad migration being rolled back by itself: on the sandbox, or on FIRESTORE_EMULATOR_HOST."""
    start_logging("ERROR")
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runbookd-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        emulator = os.environ.pop("FIRESTORE_EMULATOR_HOST", None)  # the daemon's way leads through the proxy
        page = _ROOT / "runbooks" / "firestore-operations.md"
        options = DemoOptions(
            folder=folder,
            page=page,
            rules=str(_ROOT / "rules" / "*.yaml"),
            migrations=_ROOT / "migrations",
            scale=scale,
            fault=fault,
            emulator=emulator,
            port=port,
        )
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=_WIDTH)
        with Story(options, load_runbook(page), console, daemon_of) as story:
            checks = story.play()
            passed = all(check.passed for check in checks)
            if not leave:
                console.print(f"\nThe daemon stays up: [bold]{story.url}[/]   Ctrl-C ends it.")
                with contextlib.suppress(KeyboardInterrupt):
                    threading.Event().wait()
        if not passed:
            err.print("[bold red]The story did not end as the page says.[/]")
            stop(1)


def daemon_of(config: Path, narrator: Narrator) -> Daemon:
    """The daemon that ``runbookd run`` would start with ``config``, with the narrator listening."""
    daemon = build(load_settings(config), config=config, telemetry=start_telemetry("daemon"), observer=narrator)
    serve_api(daemon)
    return daemon
