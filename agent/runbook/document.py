"""Markdown to a plain tree: sections, each with its tables, lists, code blocks and paragraphs, and a line for all.

Knows Markdown and nothing of runbooks. The section readers find what they need here by heading and by header row,
never by position.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from markdown_it import MarkdownIt
from markdown_it.token import Token

from agent.runbook.slugs import anchors_of, plain


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table.

    Args:
        cells: as many texts as the table has columns; a short row is filled up with empty ones.
        written: how many cells the line has; Markdown drops those beyond the last column without a word.
    """

    line: int
    cells: tuple[str, ...]
    written: int


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table under a heading; ``line`` is that of its header row."""

    title: str
    line: int
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item of a list; ``number`` is None in a bulleted list."""

    line: int
    number: int | None
    text: str
    items: tuple[Item, ...]


@dataclass(frozen=True, kw_only=True)
class CodeBlock:
    """A fenced or indented block; ``line`` is that of its first line of code."""

    line: int
    language: str
    text: str

    @property
    def lines(self) -> tuple[tuple[int, str], ...]:
        """Every line of code with its number in the file."""
        return tuple(enumerate(self.text.split("\n"), start=self.line))


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Running text, its line breaks kept as ``\\n``."""

    line: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands under it, up to the next heading of any level.

    Args:
        path: titles from the page's top down to this one.
        anchor: the fragment by which GitHub links to it.
    """

    title: str
    level: int
    line: int
    anchor: str
    path: tuple[str, ...]
    tables: tuple[Table, ...]
    items: tuple[Item, ...]
    code: tuple[CodeBlock, ...]
    paragraphs: tuple[Paragraph, ...]

    @property
    def key(self) -> str:
        """The title in lower case words, for comparison."""
        return heading_key(self.title)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole page."""

    sections: tuple[Section, ...]

    @cached_property
    def anchors(self) -> frozenset[str]:
        """Every fragment that a link into the page may have."""
        return frozenset(section.anchor for section in self.sections)

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(table for section in self.sections for table in section.tables)

    @property
    def code(self) -> tuple[CodeBlock, ...]:
        return tuple(block for section in self.sections for block in section.code)

    def titled(self, *phrases: str) -> tuple[Section, ...]:
        """Sections whose title contains one of ``phrases``, word by word, whatever the case."""
        wanted = tuple(f" {heading_key(phrase)} " for phrase in phrases)
        return tuple(s for s in self.sections if any(phrase in f" {s.key} " for phrase in wanted))

    def within(self, section: Section) -> tuple[Section, ...]:
        """``section`` and every section below it."""
        start = self.sections.index(section)
        inside = [section]
        for other in self.sections[start + 1 :]:
            if other.level <= section.level:
                break
            inside.append(other)
        return tuple(inside)


def heading_key(title: str) -> str:
    """The words of a title in lower case, without punctuation."""
    return " ".join(re.findall(r"[a-z0-9]+", title.lower()))


def parse_document(text: str) -> Document:
    """The tree of a Markdown page with GitHub's tables."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return _Builder(text.split("\n")).build(tokens)


@dataclass
class _Draft:
    """A section while its blocks are being collected."""

    title: str
    level: int
    line: int
    path: tuple[str, ...]
    tables: list[Table]
    items: list[Item]
    code: list[CodeBlock]
    paragraphs: list[Paragraph]


class _Builder:
    """Walks the flat token stream once; blocks inside list items are read with their item."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._drafts: list[_Draft] = [_new_draft("", 0, 1, ())]

    def build(self, tokens: Sequence[Token]) -> Document:
        at = 0
        while at < len(tokens):
            at = self._block(tokens, at)
        if not any((self._drafts[0].tables, self._drafts[0].items, self._drafts[0].code, self._drafts[0].paragraphs)):
            del self._drafts[0]
        anchors = anchors_of([draft.title for draft in self._drafts])
        return Document(
            sections=tuple(
                Section(
                    title=plain(draft.title),
                    level=draft.level,
                    line=draft.line,
                    anchor=anchor,
                    path=draft.path,
                    tables=tuple(draft.tables),
                    items=tuple(draft.items),
                    code=tuple(draft.code),
                    paragraphs=tuple(draft.paragraphs),
                )
                for draft, anchor in zip(self._drafts, anchors, strict=True)
            )
        )

    def _block(self, tokens: Sequence[Token], at: int) -> int:
        """Read the block that starts at ``at``; gives the index after it."""
        token = tokens[at]
        section = self._drafts[-1]
        if token.type == "heading_open":
            self._heading(token, tokens[at + 1])
            return at + 3
        end = _end_of(tokens, at)
        if token.type == "table_open":
            section.tables.append(self._table(tokens[at:end]))
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            section.items.extend(self._list(tokens[at:end]))
        elif token.type in ("fence", "code_block"):
            section.code.append(_code(token))
        elif token.type == "paragraph_open":
            section.paragraphs.append(Paragraph(line=_line(token), text=_text(tokens[at + 1])))
        elif token.type == "blockquote_open":
            # A quotation is set apart for the eye only; what it says counts like the text around it.
            inside = at + 1
            while inside < end - 1:
                inside = self._block(tokens, inside)
        return end

    def _heading(self, token: Token, inline: Token) -> None:
        level = int(token.tag[1:])
        title = _text(inline)
        above: tuple[str, ...] = ()
        for draft in reversed(self._drafts):
            if draft.level < level and draft.level > 0:
                above = draft.path
                break
        self._drafts.append(_new_draft(title, level, _line(token), (*above, plain(title))))

    def _table(self, tokens: Sequence[Token]) -> Table:
        rows: list[Row] = []
        for at, token in enumerate(tokens):
            if token.type == "tr_open":
                line = _line(token)
                cells = tuple(
                    plain(_text(inner)) for inner in tokens[at : _end_of(tokens, at)] if inner.type == "inline"
                )
                rows.append(Row(line=line, cells=cells, written=_cells_written(self._lines[line - 1])))
        header, *body = rows
        return Table(title=plain(self._drafts[-1].title), line=header.line, columns=header.cells, rows=tuple(body))

    def _list(self, tokens: Sequence[Token]) -> list[Item]:
        items: list[Item] = []
        at = 1
        while at < len(tokens) - 1:
            end = _end_of(tokens, at)
            items.append(self._item(tokens[at:end], ordered=tokens[0].type == "ordered_list_open"))
            at = end
        return items

    def _item(self, tokens: Sequence[Token], *, ordered: bool) -> Item:
        texts: list[str] = []
        inner: list[Item] = []
        at = 1
        while at < len(tokens) - 1:
            token, end = tokens[at], _end_of(tokens, at)
            if token.type == "paragraph_open":
                texts.append(plain(_text(tokens[at + 1])))
            elif token.type in ("bullet_list_open", "ordered_list_open"):
                inner.extend(self._list(tokens[at:end]))
            elif token.type in ("fence", "code_block"):
                self._drafts[-1].code.append(_code(token))
            at = end
        return Item(
            line=_line(tokens[0]),
            number=int(tokens[0].info) if ordered else None,
            text=" ".join(texts),
            items=tuple(inner),
        )


def _new_draft(title: str, level: int, line: int, path: tuple[str, ...]) -> _Draft:
    return _Draft(title=title, level=level, line=line, path=path, tables=[], items=[], code=[], paragraphs=[])


def _code(token: Token) -> CodeBlock:
    language = token.info.split()[0] if token.info.split() else ""
    # The map of a fence starts at the fence itself, that of an indented block at its first line of code.
    line = _line(token) + (1 if token.type == "fence" else 0)
    return CodeBlock(line=line, language=language, text=token.content.rstrip("\n"))


def _line(token: Token) -> int:
    return token.map[0] + 1 if token.map else 1


def _end_of(tokens: Sequence[Token], at: int) -> int:
    """Index after the token that closes the one at ``at``."""
    depth = 0
    for index in range(at, len(tokens)):
        depth += tokens[index].nesting
        if depth == 0:
            return index + 1
    return len(tokens)


def _text(inline: Token) -> str:
    """What a reader sees of an inline token: emphasis, links and code without their marks."""
    parts: list[str] = []
    for child in inline.children or ():
        if child.type in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif child.type != "html_inline":
            parts.append(child.content)
    return "".join(parts).strip()


def _cells_written(line: str) -> int:
    """Cells that a row's source line has, whatever the table's width."""
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return len(re.split(r"(?<!\\)\|", inner))
