"""Migration files: ``migrations/NNNN_name.py``, loaded, checked, and identified by the checksum of their bytes.

A file says what it changes in a few module-level names and one pure function::

    \"\"\"Reviews keep their schedule in one map.\"\"\"

    from agent.migration import Document

    collections = ("reviews",)
    reads_both_shapes = True


    def transform(document: Document) -> Document | None:
        if document.has("schedule"):
            return None
        return document.renamed("interval", "schedule.interval")

Called by the command line, the worker that runs a migration, and the tests of a definition.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from agent.faults import Misconfigured, MisconfiguredReason
from agent.migration.document import Change, Document, Transformed

Transform = Callable[[Document], Transformed]
Validate = Callable[[Document], str | None]
Undo = Callable[[Document, Document | None], Change | None]

_FILE_NAME = re.compile(r"(?P<revision>\d{4})_[a-z0-9_]+\.py")
Invariants = Callable[[Document], Mapping[str, float]]

_SETTINGS = (
    "collections",
    "reads_both_shapes",
    "keep_order",
    "unindexed",
    "transform",
    "validate",
    "invariants",
    "undo",
)


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One migration file.

    Args:
        revision: the number of the file name, e.g. ``"0001"``.
        name: the file name without ``.py``.
        path: the file.
        checksum: SHA-256 of the file's bytes, in hex.
        title: first line of the docstring.
        collections: ids of the collection groups, as the file lists them.
        reads_both_shapes: the application reads documents of the old and of the new shape, so the migration may run
            while it serves; without it, maintenance mode is needed.
        keep_order: run the collections as listed, not in the runbook's priority order.
        unindexed: fields for which an index exemption exists, so that stamping them is not limited to 500 writes/s.
        transform: one document in, what it becomes out; pure.
        validate: ``None`` if a migrated document is right, else what is wrong with it.
        invariants: figures of one document, of the old or the new shape, whose sums the migration must not change.
        undo: merges a document that a user changed after the migration: ``(document now, before-image)`` to what is
            to be written, or ``None`` to keep the user's version.
    """

    revision: str
    name: str
    path: Path
    checksum: str
    title: str
    collections: tuple[str, ...]
    transform: Transform
    reads_both_shapes: bool = False
    keep_order: bool = False
    unindexed: tuple[str, ...] = ()
    validate: Validate | None = None
    invariants: Invariants | None = None
    undo: Undo | None = None


def load_definitions(folder: Path) -> tuple[Definition, ...]:
    """Every migration of ``folder``, by revision. Files that start with ``_`` and ``__init__.py`` are left alone.

    Raises:
        Misconfigured: the folder is missing, or files are wrong; the message lists every one.
    """
    if not folder.is_dir():
        raise Misconfigured(
            MisconfiguredReason.DEFINITION,
            f"there is no migrations folder {folder}",
            hint="make it, or set migration.definitions to the one that you have",
        )
    definitions: list[Definition] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        try:
            definitions.append(load_definition(path))
        except Misconfigured as error:
            problems.append(str(error))
    by_revision: dict[str, Definition] = {}
    for definition in definitions:
        first = by_revision.setdefault(definition.revision, definition)
        if first is not definition:
            problems.append(
                f"{definition.path}: revision {definition.revision} is taken by {first.path.name}: take the next number"
            )
    if problems:
        raise Misconfigured(MisconfiguredReason.DEFINITION, "\n".join(problems))
    return tuple(definitions)


def find_definition(folder: Path, name: str) -> Definition:
    """The migration called ``name``: its full name, its revision, or the rest of its name.

    Raises:
        Misconfigured: there is none, or its file is wrong.
    """
    wanted = name.removesuffix(".py")
    paths = [path for path in sorted(folder.glob("*.py")) if _FILE_NAME.fullmatch(path.name)]
    for path in paths:
        if wanted in (path.stem, path.stem[:4], path.stem[5:]):
            return load_definition(path)
    known = ", ".join(path.stem for path in paths) or "none"
    close = difflib.get_close_matches(wanted, [path.stem for path in paths], n=1)
    raise Misconfigured(
        MisconfiguredReason.DEFINITION,
        f"{folder} has no migration {name!r}",
        hint=f"did you mean {close[0]}?" if close else f"it has: {known}",
    )


def load_definition(path: Path) -> Definition:
    """Run one migration file and check what it says.

    Raises:
        Misconfigured: with file, line and what is wrong.
    """
    return _Loader(path).load()


class _Loader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, int] = {}

    def load(self) -> Definition:
        match = _FILE_NAME.fullmatch(self._path.name)
        if match is None:
            raise self._wrong(
                0,
                "is not a migration's file name",
                "four digits, an underscore, a name in small letters: 0003_split_names.py",
            )
        source = self._read()
        module = self._run(source)
        self._check_spelling(module)
        transform = self._function(module, "transform", ("document",))
        if transform is None:
            raise self._wrong(0, "has no transform", "define transform(document) -> document | None | DELETE")
        return Definition(
            revision=match["revision"],
            name=self._path.stem,
            path=self._path,
            checksum=hashlib.sha256(source).hexdigest(),
            title=(module.__doc__ or "").strip().partition("\n")[0].rstrip(".") or self._path.stem,
            collections=self._collections(module),
            transform=transform,
            reads_both_shapes=self._flag(module, "reads_both_shapes"),
            keep_order=self._flag(module, "keep_order"),
            unindexed=self._names(module, "unindexed"),
            validate=self._function(module, "validate", ("document",)),
            invariants=self._function(module, "invariants", ("document",)),
            undo=self._function(module, "undo", ("document", "before")),
        )

    def _wrong(self, line: int, what: str, hint: str = "") -> Misconfigured:
        where = f"{self._path}:{line}:" if line else f"{self._path}"
        return Misconfigured(MisconfiguredReason.DEFINITION, f"{where} {what}", hint=hint)

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise self._wrong(0, f"can't be read ({error.strerror})") from error

    def _run(self, source: bytes) -> ModuleType:
        try:
            tree = ast.parse(source, filename=str(self._path))
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 0
            raise self._wrong(line, f"is not valid Python ({getattr(error, 'msg', error)})") from error
        self._lines = dict(_assignments(tree))
        # The checksum must be that of the bytes that ran, so they are compiled here and not by the import system,
        # which could take a stale .pyc. The name is registered because dataclasses look their module up.
        module = ModuleType(f"runbookd_migration_{self._path.stem}")
        module.__file__ = str(self._path)
        sys.modules[module.__name__] = module
        try:
            exec(compile(tree, str(self._path), "exec"), module.__dict__)
        except Exception as error:
            raise self._wrong(_line_in(self._path, error), f"{type(error).__name__}: {error}") from error
        return module

    def _check_spelling(self, module: ModuleType) -> None:
        for name, line in self._lines.items():
            if name in _SETTINGS or name.startswith("_") or name.isupper():
                continue
            close = difflib.get_close_matches(name, _SETTINGS, n=1, cutoff=0.8)
            if close and not hasattr(module, close[0]):
                raise self._wrong(line, f"{name} means nothing to runbookd", f"did you mean {close[0]}?")

    def _collections(self, module: ModuleType) -> tuple[str, ...]:
        names = self._names(module, "collections")
        line = self._lines.get("collections", 0)
        if not names:
            raise self._wrong(line, "names no collections", 'say which ones: collections = ("users",)')
        for name in names:
            if "/" in name:
                raise self._wrong(
                    line,
                    f"collections: {name!r} is a path",
                    f"give the id of the collection group alone: {name.rpartition('/')[2]!r}",
                )
            if name.startswith("_"):
                raise self._wrong(line, f"collections: {name!r} is kept for runbookd or Firestore itself")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise self._wrong(line, f"collections: {twice[0]!r} is there twice")
        return names

    def _names(self, module: ModuleType, setting: str) -> tuple[str, ...]:
        value = getattr(module, setting, ())
        if isinstance(value, str) or not isinstance(value, Sequence | set | frozenset):
            raise self._wrong(
                self._lines.get(setting, 0), f"{setting} is {value!r}", f'make it a tuple: {setting} = ("users",)'
            )
        names: list[str] = []
        for name in sorted(value) if isinstance(value, set | frozenset) else value:
            if not isinstance(name, str) or not name:
                raise self._wrong(self._lines.get(setting, 0), f"{setting}: {name!r} is not a name")
            names.append(name)
        return tuple(names)

    def _flag(self, module: ModuleType, setting: str) -> bool:
        value = getattr(module, setting, False)
        if not isinstance(value, bool):
            raise self._wrong(self._lines.get(setting, 0), f"{setting} is {value!r}", "make it True or False")
        return value

    def _function(self, module: ModuleType, setting: str, parameters: tuple[str, ...]) -> Callable[..., Any] | None:
        function = getattr(module, setting, None)
        if function is None:
            return None
        line = self._lines.get(setting, 0)
        signature = f"{setting}({', '.join(parameters)})"
        if not callable(function):
            raise self._wrong(line, f"{setting} is {function!r}", f"make it a function {signature}")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise self._wrong(line, f"{setting} is async or a generator", "a pure function returns its result")
        try:
            inspect.signature(function).bind(*parameters)
        except TypeError as error:
            raise self._wrong(line, f"{setting} can't be called as {signature} ({error})") from error
        checked: Callable[..., Any] = function
        return checked


def _assignments(tree: ast.Module) -> Iterable[tuple[str, int]]:
    """Names bound at the top of the file, with their lines."""
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name, node.lineno
            case ast.Assign():
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        yield target.id, node.lineno
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node.lineno
            case _:
                continue


def _line_in(path: Path, error: BaseException) -> int:
    """The line of ``path`` at which ``error`` passed last; 0 if it did not pass there."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return (lines[-1] or 0) if lines else 0


def raised_at(definition: Definition, error: BaseException) -> str:
    """``error`` of a definition's function as ``file:line: Type: text``, for quarantine lists and reports."""
    line = _line_in(definition.path, error)
    where = f"{definition.path.name}:{line}: " if line else ""
    return f"{where}{type(error).__name__}: {error}"
