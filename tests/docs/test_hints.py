"""What the program tells people to type exists, too."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.docs.verbs import group_of, problem_of

_CITED = re.compile(r"(?:^|[:,`] ?|\b(?:or|then|run|repeat|with) )runbookd ([a-z-]+)(?: ([a-z-]+))?")
SOURCES = sorted((ROOT / "agent").rglob("*.py"))


def _texts(source: Path) -> list[str]:
    """Strings that are handed to ``hint=`` or stand in backticks; f-strings without their values."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "hint":
            parts = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
            found += [part for part in parts if isinstance(part, str)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [f"`{code}" for code in re.findall(r"`(runbookd [^`]+)`", node.value)]
    return found


@pytest.mark.parametrize(
    "source", [source for source in SOURCES if _texts(source)], ids=lambda source: str(source.relative_to(ROOT))
)
def test_commands_in_hints_exist(source: Path) -> None:
    """A hint at 3 a.m. that names a command which isn't there is worse than none."""
    wrong = []
    for text in _texts(source):
        for verb, second in _CITED.findall(text):
            group = group_of(verb)
            if group is None or (group and second and second not in group):
                wrong.append(f"{verb} {second}: {text}")
    assert wrong == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("backup create --type full|incremental", ""),
        ("backup create --kind full", "no such option"),
        ("backup make", "no command 'make'"),
        ("automation hold --for 30m", "missing"),
        ("perf --runs N --json", ""),
        ("perf --runs many", "integer"),
    ],
)
def test_what_is_wrong_with_a_command_is_found(words: str, problem: str) -> None:
    """The check can fail: unknown verbs, options and values are told apart from good ones."""
    found = problem_of(words.split(), whole=True)
    assert problem in found.lower() if problem else found == ""
