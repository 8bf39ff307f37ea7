"""The tests: fakes at ports, nothing patched, each with a sentence that says what holds."""

from __future__ import annotations

import ast

import pytest

from tests.house.tree import Module, modules

# Tests that replace something inside the product, with the reason; there are none.
PATCHED: dict[str, str] = {}
TESTS = tuple(module for module in modules("tests") if module.path.name.startswith("test_"))


def test_nothing_is_patched() -> None:
    """Neither unittest.mock nor monkeypatch.setattr; the environment and the folder may be set."""
    assert {module.name for module in modules("tests") if _patches(module)} <= set(PATCHED)


@pytest.mark.parametrize("module", TESTS, ids=lambda module: module.name)
def test_a_test_says_what_holds(module: Module) -> None:
    """Every test function and every file of tests has a docstring."""
    assert module.docstring
    silent = [
        node.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def _patches(module: Module) -> bool:
    if any(name.split(".")[:2] == ["unittest", "mock"] or name.split(".")[0] == "mock" for name in module.imports()):
        return True
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in {"setattr", "setitem"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "monkeypatch"
        for node in ast.walk(module.tree)
    )
