"""The other end of this API: what the command line asks of a running daemon.

Synchronous, because a command waits for its answer. Used by ``runbookd rules eval`` and ``runbookd slow-queries``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from agent.faults import Permanent, PermanentReason, Transient, TransientReason
from agent.samples import Exemplar

_DEADLINE_S = 30.0


class DaemonClient:
    """A running ``runbookd`` at ``url``; a context manager.

    Args:
        url: e.g. ``http://127.0.0.1:8080``.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # A proxy set for the web is not meant for a daemon on this machine.
        self._http = httpx.Client(base_url=self.url, timeout=_DEADLINE_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def evaluate(self, expression: str, at: datetime | None = None) -> dict[str, Any]:
        """``data`` of ``/api/v1/query``; now if ``at`` is ``None``.

        Raises:
            Transient: UNAVAILABLE if no runbookd answers.
            Permanent: INVALID if it doesn't accept the expression.
        """
        parameters = {"query": expression}
        if at is not None:
            parameters["time"] = f"{at.timestamp():.3f}"
        data: dict[str, Any] = self._asked("/api/v1/query", parameters)
        return data

    def query(self, expression: str, at: datetime) -> list[tuple[Mapping[str, str], float]]:
        """The vector that ``expression`` gives, as labels and value; errors as :meth:`evaluate`."""
        data = self.evaluate(expression, at)
        return [(item["metric"], float(item["value"][1])) for item in data["result"]]

    def exemplars(
        self, selector: str, start: datetime, end: datetime
    ) -> list[tuple[Mapping[str, str], list[Exemplar]]]:
        """Exemplars of the selected series, by their labels; errors as :meth:`evaluate`."""
        parameters = {"query": selector, "start": f"{start.timestamp():.3f}", "end": f"{end.timestamp():.3f}"}
        return [
            (
                item["seriesLabels"],
                [
                    Exemplar(
                        trace_id=exemplar["labels"].get("trace_id", ""),
                        value=float(exemplar["value"]),
                        timestamp=float(exemplar["timestamp"]),
                    )
                    for exemplar in item["exemplars"]
                ],
            )
            for item in self._asked("/api/v1/query_exemplars", parameters)
        ]

    def _asked(self, path: str, parameters: Mapping[str, str]) -> Any:
        try:
            body = self._http.get(path, params=dict(parameters)).json()
        except (httpx.HTTPError, ValueError) as error:
            raise Transient(
                TransientReason.UNAVAILABLE,
                f"no runbookd answers at {self.url} ({error})",
                hint="start it: runbookd run; or say where it is: --url",
            ) from error
        if not isinstance(body, dict) or body.get("status") != "success":
            said = body.get("error", body) if isinstance(body, dict) else body
            raise Permanent(PermanentReason.INVALID, f"{self.url} refused: {said}")
        return body["data"]
