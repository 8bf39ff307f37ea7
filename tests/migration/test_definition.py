"""Migration files: what is read out of them, and what is said about a wrong one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.faults import Misconfigured, MisconfiguredReason
from agent.migration import Document, find_definition, load_definition, load_definitions

Writer = Callable[..., Path]

GOOD = """
    '''Adds one.

    More about it.
    '''

    from dataclasses import dataclass

    collections = ["users", "items"]
    reads_both_shapes = True
    unindexed = ("at",)

    @dataclass
    class Helper:
        n: int

    def transform(document):
        return document.with_fields(n=Helper(1).n)
"""


def test_reads_a_definition(write_definition: Writer) -> None:
    """Everything a file says ends up in its definition, with the checksum of exactly its bytes."""
    path = write_definition(GOOD, "0007_add_one.py")
    definition = load_definition(path)
    assert (definition.revision, definition.name, definition.title) == ("0007", "0007_add_one", "Adds one")
    assert definition.collections == ("users", "items")
    assert definition.reads_both_shapes
    assert definition.unindexed == ("at",)
    assert (definition.validate, definition.undo, definition.keep_order) == (None, None, False)
    assert definition.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    assert definition.transform(Document("users/u")) == Document("users/u", {"n": 1})


def test_a_changed_file_has_another_checksum(write_definition: Writer) -> None:
    """Even a comment counts: what ran is what the checksum says."""
    first = load_definition(write_definition(GOOD, "0007_add_one.py"))
    second = load_definition(write_definition(GOOD + "\n    # later", "0007_add_one.py"))
    assert first.checksum != second.checksum


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("collections = ('a',)\ndef transform(document)\n", 2, "is not valid Python"),
        ("collections = ('a',)\nx = 1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("import nothing_of_this_name\n", 1, "ModuleNotFoundError"),
        ("collections = ('a',)\n", 0, "has no transform"),
        ("def transform(document): ...\n", 0, "names no collections"),
        ("x = 1\ncollection = ('a',)\ndef transform(document): ...\n", 2, "did you mean collections?"),
        ("collections = 'users'\ndef transform(document): ...\n", 1, "collections is 'users'"),
        ("collections = ('users/u/items',)\ndef transform(document): ...\n", 1, "'items'"),
        ("collections = ('_config',)\ndef transform(document): ...\n", 1, "kept for runbookd"),
        ("collections = ('a', 'a')\ndef transform(document): ...\n", 1, "'a' is there twice"),
        ("collections = ('a', 3)\ndef transform(document): ...\n", 1, "3 is not a name"),
        ("collections = ('a',)\nreads_both_shapes = 'yes'\ndef transform(d): ...\n", 2, "make it True or False"),
        ("collections = ('a',)\ntransform = 3\n", 2, "make it a function transform(document)"),
        ("collections = ('a',)\ndef transform(): ...\n", 2, "can't be called as transform(document)"),
        ("collections = ('a',)\nasync def transform(d): ...\n", 2, "is async"),
        ("collections = ('a',)\ndef transform(d): ...\ndef undo(d): ...\n", 3, "undo(document, before)"),
    ],
)
def test_says_what_is_wrong_and_where(write_definition: Writer, text: str, line: int, what: str) -> None:
    """A wrong file is an error with file, line and what to do."""
    path = write_definition(text)
    with pytest.raises(Misconfigured) as wrong:
        load_definition(path)
    assert wrong.value.reason is MisconfiguredReason.DEFINITION
    assert str(wrong.value).startswith(f"{path}:{line}: " if line else f"{path} ")
    assert what in str(wrong.value)


def test_a_folder_reports_every_problem_at_once(write_definition: Writer) -> None:
    """Names, doubled numbers and broken files are all listed; files with an underscore are left alone."""
    path = write_definition(GOOD, "0001_one.py")
    write_definition(GOOD, "0001_other.py")
    write_definition("x = (", "0002_broken.py")
    write_definition(GOOD, "3_short.py")
    write_definition("x = (", "_notes.py")
    with pytest.raises(Misconfigured) as wrong:
        load_definitions(path.parent)
    problems = str(wrong.value).splitlines()
    assert len(problems) == 3
    assert "revision 0001 is taken by 0001_one.py" in problems[2]


def test_finds_by_name_number_or_rest(write_definition: Writer) -> None:
    """A person may call a migration by any part of its name that is its own."""
    folder = write_definition(GOOD, "0007_add_one.py").parent
    for name in ("0007_add_one", "0007", "add_one", "0007_add_one.py"):
        assert find_definition(folder, name).name == "0007_add_one"
    with pytest.raises(Misconfigured, match="did you mean 0007_add_one"):
        find_definition(folder, "0007_ad_one")


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    """Without the folder there is nothing to guess."""
    with pytest.raises(Misconfigured, match="there is no migrations folder"):
        load_definitions(tmp_path / "nowhere")
