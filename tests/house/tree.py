"""The product's own source, read as text and as trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Module:
    """One Python file."""

    path: Path

    @property
    def name(self) -> str:
        """Path from the top of the checkout, with slashes."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.name)

    @property
    def docstring(self) -> str:
        """Its words with single spaces between them."""
        return " ".join((ast.get_docstring(self.tree) or "").split())

    def imports(self) -> Iterator[str]:
        """Dotted names of what is imported, wherever in the file; of ``from a import b`` that is ``a.b``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def names_used(self) -> set[str]:
        """Names that the code reads, imports left out."""
        found = {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}
        return found | {node.attr for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)}


@cache
def modules(folder: str) -> tuple[Module, ...]:
    """Every Python file under ``folder``, sorted."""
    return tuple(Module(path) for path in sorted((ROOT / folder).rglob("*.py")))
