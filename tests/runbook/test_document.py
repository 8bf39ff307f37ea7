"""Markdown to sections: every row, item and line of code knows where it stands."""

from __future__ import annotations

from agent.runbook.document import parse_document

_PAGE = """intro

# Top **bold** `code`

| A | B |
|---|---|
| 1 | `x` |
| 2 |
| 3 | y | z |

## Inner

1. first
   - nested
2. second
   goes on

```bash
# comment
run
```

> quoted
>
> | Q |
> |---|
> | 9 |

    indented

# Next
"""


def test_everything_has_its_line() -> None:
    """Lines are those of the file, counted from 1."""
    before, top, inner, after = parse_document(_PAGE).sections
    assert (before.title, before.paragraphs[0].line) == ("", 1)
    assert (top.title, top.line, top.anchor) == ("Top bold code", 3, "top-bold-code")
    (table,) = top.tables
    assert (table.line, table.columns) == (5, ("A", "B"))
    assert [(row.line, row.cells, row.written) for row in table.rows] == [
        (7, ("1", "x"), 2),
        (8, ("2", ""), 1),
        (9, ("3", "y"), 3),
    ]
    assert [(item.line, item.number, item.text) for item in inner.items] == [
        (13, 1, "first"),
        (15, 2, "second goes on"),
    ]
    assert [(item.line, item.text) for item in inner.items[0].items] == [(14, "nested")]
    assert inner.code[0].lines == ((19, "# comment"), (20, "run"))
    assert inner.code[1].lines == ((29, "indented"),)
    assert inner.tables[0].rows[0].line == 27
    assert inner.path == ("Top bold code", "Inner")
    assert after.path == ("Next",)


def test_sections_are_found_by_the_words_of_their_heading() -> None:
    """Case and punctuation don't matter; a part of a word is no word."""
    document = parse_document("# Rollback: Command Sequence!\n## Below\n# Rollbacks\n")
    (found,) = document.titled("rollback command sequence")
    assert [section.title for section in document.within(found)] == ["Rollback: Command Sequence!", "Below"]
    assert len(document.titled("rollback")) == 1


def test_an_empty_page_is_a_page() -> None:
    """Nothing in, nothing out."""
    assert parse_document("").sections == ()
