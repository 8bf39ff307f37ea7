"""``runbookd sandbox``: the embedded Firestore, to try things on."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.output import out, progress_bars
from agent.sandbox import seed, start_sandbox


def register(app: typer.Typer) -> None:
    app.command()(sandbox)


def sandbox(
    port: Annotated[int, typer.Option("--port", help="0 takes any free one.")] = 8686,
    data: Annotated[Path | None, typer.Option("--data", help="Folder that keeps the documents.")] = None,
    seed_scale: Annotated[
        float, typer.Option("--seed-scale", min=0.0, help="Load the sample database; 1 is 306,725 documents.")
    ] = 0.0,
    project: Annotated[str, typer.Option("--project", help="Project to load it into.")] = "sandbox",
) -> None:
    """Run an embedded Firestore until Ctrl-C."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with start_sandbox(data, port) as server:
        if seed_scale:
            with progress_bars() as progress:
                report = seed(server.host, project, seed_scale, progress)
            out.print(f"{report.documents:,} documents loaded into project {project} in {report.seconds:.1f} s")
        out.print(f"Firestore sandbox at [bold]{server.host}[/]. Point any Firestore client at it:")
        out.print(f"  export FIRESTORE_EMULATOR_HOST={server.host} FIREBASE_PROJECT={project}", highlight=False)
        out.print("Ctrl-C ends it.")
        ended.wait()
