"""What a Markdown page cites: commands, code, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from agent.runbook.slugs import anchors_of

ROOT = Path(__file__).parents[2]
_COMMAND = re.compile(r"(?:^|[\s(;])runbookd((?:\s+\S+)*)$")
_CHAIN = re.compile(r"\s+(?:\|\||&&|\||;)\s+")


@dataclass(frozen=True, kw_only=True)
class Cited:
    """A piece of code on a page; ``block`` is its language (``text`` if none), empty for code within a sentence."""

    page: Path
    line: int
    text: str
    block: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


def pages() -> list[Path]:
    """Every page whose words are promises; those that nobody has written yet are not there."""
    found = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    for pattern in ("docs/**/*.md", "runbooks/*.md", "bench/*.md", "grafana/**/*.md"):
        found += sorted(ROOT.glob(pattern))
    return [page for page in found if page.exists()]


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def codes(page: Path) -> Iterator[Cited]:
    """Every line of a code block and every piece of code within a sentence or table cell."""
    line = 0
    for token in tokens(page):
        line = token.map[0] + 1 if token.map else line
        if token.type in ("fence", "code_block"):
            first = line + (token.type == "fence")
            for offset, text in enumerate(token.content.splitlines()):
                if text.strip():
                    block = token.info.strip() or "text"
                    yield Cited(page=page, line=first + offset, text=text.strip(), block=block)
        for child in token.children or ():
            if child.type == "code_inline":
                yield Cited(page=page, line=line, text=child.content)


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language."""
    return [token.content for token in tokens(page) if token.type == "fence" and token.info.strip() == language]


def links(page: Path) -> Iterator[Cited]:
    """Targets of links that don't lead away from the repository."""
    line = 0
    for token in tokens(page):
        line = token.map[0] + 1 if token.map else line
        for child in token.children or ():
            target = str(child.attrs.get("href", "")) if child.type == "link_open" else ""
            if target and "://" not in target and not target.startswith("mailto:"):
                yield Cited(page=page, line=line, text=target)


def anchors(page: Path) -> set[str]:
    """Fragments that a link into ``page`` may have."""
    parsed = tokens(page)
    titles = [after.content for token, after in pairwise(parsed) if token.type == "heading_open"]
    return set(anchors_of(titles))


def commands(cited: Cited) -> Iterator[list[str]]:
    """The words after ``runbookd`` of every command in a piece of code; comments, pipes and assignments left out."""
    text = re.sub(r"(^|\s)#.*$", "", cited.text)
    if cited.block == "text":
        text = re.split(r"\s{2,}", text)[0]  # what stands behind a wide gap explains the command
    for part in _CHAIN.split(text):
        found = _COMMAND.search(part)
        if found is not None:
            yield shlex.split(found[1])
