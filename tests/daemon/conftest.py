"""Deployments on the session's sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.sandbox import PagerDutyReceiver, seed, start_proxy
from tests.daemon.deployment import Deployment

SCALE = 0.01


@pytest.fixture
def deployment(sandbox: Any, project: str, tmp_path: Path) -> Iterator[Deployment]:
    """3,067 documents behind a proxy of their own, a pager, and nothing started yet."""
    seed(sandbox.host, project, SCALE)
    with start_proxy(sandbox.host) as proxy, PagerDutyReceiver() as pagerduty:
        found = Deployment(folder=tmp_path, project=project, proxy=proxy, direct=sandbox.host, pagerduty=pagerduty)
        try:
            yield found
        finally:
            found.close()
