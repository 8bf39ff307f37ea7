"""Options that several verbs share."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Annotated

import typer

from agent.cli.runtime import Runtime

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", "--skip-confirmation", help="Don't ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and do nothing.")]
Owner = Annotated[str, typer.Option("--owner", envvar=["RUNBOOKD_OWNER", "USER"], help="Who says so.")]
Url = Annotated[str, typer.Option("--url", help="A running runbookd; default from the settings.")]

_runtime: ContextVar[Runtime] = ContextVar("runtime")


def use(runtime: Runtime) -> None:
    """Make ``runtime`` this invocation's; called once, by the root command."""
    _runtime.set(runtime)


def runtime() -> Runtime:
    """This invocation's runtime."""
    return _runtime.get()


def daemon_url(given: str) -> str:
    """Where the running daemon is asked: ``given``, or the settings' address."""
    api = runtime().settings.api
    return given or f"http://{api.host}:{api.port}"
