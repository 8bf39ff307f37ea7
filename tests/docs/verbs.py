"""The real command line, asked whether it would take some words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from agent.cli.app import app

# Typer carries its own copy of click or uses the package, by its version; this is what both call a usage error.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_INCOMPLETE = ("MissingParameter", "NoArgsIsHelpError")


def group_of(verb: str) -> Mapping[str, object] | None:
    """The verbs below ``verb``; empty where it is a command by itself; ``None`` where there is no such verb."""
    found = _root().commands.get(verb)
    if found is None:
        return None
    return found.commands if isinstance(found, TyperGroup) else {}


def problem_of(words: list[str], *, whole: bool) -> str:
    """What is wrong with the words after ``runbookd``; empty if nothing is.

    Where the words let their reader choose (``full|incremental``) the first choice stands for all, and where they
    leave a figure open (``N``) 1 does.

    Args:
        whole: a missing argument is wrong, too.
    """
    words = [word.strip("[]").split("|")[0] for word in words if word not in ("...", "…")]
    rest = [re.sub(r"^[NPS]$", "1", word) for word in words]
    command: Any = _root()
    context = typer.Context(command, info_name="runbookd")
    try:
        while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
            name = rest.pop(0)
            if name not in command.commands:
                return f"there is no command {name!r} in {context.command_path!r}"
            command = command.commands[name]
            context = typer.Context(command, parent=context, info_name=name)
        command.parse_args(context, rest)
    except _UsageError as error:
        return "" if type(error).__name__ in _INCOMPLETE and not whole else str(error)
    return ""


def _root() -> TyperGroup:
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    return command
