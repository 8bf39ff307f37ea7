"""The runbook as HTML, with the anchors that alerts link to: what an on-call opens from the status page."""

from __future__ import annotations

import threading
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from agent.faults import Misconfigured, MisconfiguredReason
from agent.runbook.encoding import decode_page
from agent.runbook.slugs import anchors_of


class Handbook:
    """Renders a page once for each state of its file. Thread-safe."""

    def __init__(self) -> None:
        # Raw HTML stays text: the file is the team's, the browser is the on-call's.
        self._markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
        self._lock = threading.Lock()
        self._made: tuple[Path, int, str] | None = None

    def html(self, path: Path) -> str:
        """The page at ``path``.

        Raises:
            Misconfigured: (RUNBOOK) the file can't be read any more.
        """
        with self._lock:
            try:
                changed = path.stat().st_mtime_ns
                if self._made is None or self._made[:2] != (path, changed):
                    self._made = (path, changed, self._rendered(path.read_bytes()))
            except OSError as error:
                raise Misconfigured(
                    MisconfiguredReason.RUNBOOK,
                    f"the runbook {path} can't be read ({error.strerror})",
                    hint="put it back; what was read at the start stays in force",
                ) from error
            return self._made[2]

    def _rendered(self, data: bytes) -> str:
        tokens = self._markdown.parse(decode_page(data).text)
        headings = [at for at, token in enumerate(tokens) if token.type == "heading_open"]
        anchors = anchors_of([_text(tokens[at + 1]) for at in headings])
        for at, anchor in zip(headings, anchors, strict=True):
            tokens[at].attrSet("id", anchor)
        return str(self._markdown.renderer.render(tokens, self._markdown.options, {}))


def _text(inline: Token) -> str:
    """A heading without its markup, as GitHub makes anchors of it."""
    return "".join(child.content for child in inline.children or ())
