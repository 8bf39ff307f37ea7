"""The status page: ``/`` for people, ``/runbook`` for the page that alerts link to.

Plain HTML of one request, without anything from elsewhere. A small script fetches the body anew every few seconds;
without scripts the browser reloads the page.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from agent import __version__
from agent.api.handbook import Handbook
from agent.api.overview import Overview, overview
from agent.api.sources import Sources
from agent.decisions import duration, figure
from agent.runbook import Unit

_log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent
_SCRIPT = (_FOLDER / "status.js.j2").read_text(encoding="utf-8")
_STYLE = (_FOLDER / "status.css").read_text(encoding="utf-8")
_FRESH_S = 1.0


def router(sources: Sources) -> APIRouter:
    """Routes for people."""
    routes = APIRouter()
    page = _Page(sources)
    handbook = Handbook()

    @routes.get("/")
    def status(request: Request) -> HTMLResponse:
        body, title = page.body()
        if "fragment" in request.query_params:
            return HTMLResponse(body, headers={"Cache-Control": "no-store"})
        return _html(_TEMPLATES.get_template("status.html.j2").render(title=title, body=Markup(body)))

    @routes.get("/runbook")
    def runbook() -> HTMLResponse:
        policy = sources.policy()
        text = handbook.html(Path(policy.source))
        return _html(_TEMPLATES.get_template("runbook.html.j2").render(title=policy.title, body=Markup(text)))

    return routes


class _Page:
    """The body, made at most once a second however many look on."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._layout = _TEMPLATES.get_template("body.html.j2")
        self._sections = _TEMPLATES.get_template("sections.html.j2")
        self._lock = threading.Lock()
        self._made: tuple[str, str] | None = None
        self._at = 0.0

    def body(self) -> tuple[str, str]:
        """HTML of the body, and the title."""
        with self._lock:
            now = self._sources.clock.monotonic()
            if self._made is None or now - self._at >= _FRESH_S:
                view = overview(self._sources)
                title = f"{view.headline.title} · runbookd"
                self._made = (self._layout.render(section=partial(self._section, view, title)), title)
                self._at = now
            return self._made

    def _section(self, view: Overview, title: str, name: str) -> Markup:
        """One section, or the news that it can't be shown."""
        context = self._sections.new_context({"view": view, "now": view.now, "title": title, "version": __version__})
        try:
            return Markup("".join(self._sections.blocks[name](context)))
        except Exception as error:  # noqa: BLE001 - a body that is not as expected must not take the page away
            _log.exception("a section of the status page can't be shown", extra={"section": name})
            return Markup('<section><p class="problem">{}: this can\'t be shown now ({})</p></section>').format(
                name, error
            )


def _html(text: str) -> HTMLResponse:
    return HTMLResponse(text, headers={"Cache-Control": "no-store", "Content-Security-Policy": _POLICY})


# --- words of the templates -----------------------------------------------------------------------------------------


def _moment(value: datetime | str | None) -> datetime | None:
    if isinstance(value, str):
        return datetime.fromisoformat(value) if value else None
    return value


def _clock(value: datetime | str | None, now: datetime) -> str:
    """A moment: the time of day, with the date if it isn't today's; in UTC."""
    moment = _moment(value)
    if moment is None:
        return "\u2013"
    pattern = "%H:%M:%S" if moment.date() == now.date() else "%d %b %H:%M"
    return moment.strftime(pattern)


def _ago(value: datetime | str | None, now: datetime) -> str:
    """``3m ago``, or ``in 4h``."""
    moment = _moment(value)
    if moment is None:
        return "never"
    past = now - moment
    return f"{_span(past.total_seconds())} ago" if past >= timedelta() else f"in {_span(-past.total_seconds())}"


def _span(seconds: float | None) -> str:
    return "\u2013" if seconds is None else duration(timedelta(seconds=seconds))


def _figure(value: float | None, unit: str) -> str:
    return "no data" if value is None else figure(value, Unit(unit))


def _size(count: float | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return "\u2013"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _share(part: float | None, whole: float | None) -> int:
    """A whole percentage from 0 to 100, for bars."""
    return 0 if not part or not whole else round(100 * max(0.0, min(part / whole, 1.0)))


def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(clock=_clock, ago=_ago, span=_span, figure=_figure, size=_size)
    found.globals.update(share=_share, style=Markup(_STYLE), script=Markup(_SCRIPT))
    words = found.get_template("words.html.j2").module
    found.globals.update({name: getattr(words, name) for name in ("tones", "tag", "bar", "unreadable")})
    return found


_TEMPLATES = _templates()
_DIGEST = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
# What the page may do: its own script, its own styles, and asking this server for news.
_POLICY = (
    f"default-src 'none'; script-src 'sha256-{_DIGEST}'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
