"""A store filled from promtool's series notation, as the tests of this room need it."""

from __future__ import annotations

import pytest

from agent.promql import Engine
from agent.samples import Sample, SeriesStore, labels_of


class Scene:
    """A store and an engine over it."""

    def __init__(self) -> None:
        self.store = SeriesStore()
        self.engine = Engine(self.store)

    def series(
        self, name: str, values: list[float | None], *, start: float = 0.0, every: float = 1.0, **labels: str
    ) -> None:
        """One series with a sample ``every`` seconds; ``None`` leaves a hole without ending the series."""
        identity = labels_of(name, labels)
        for number, value in enumerate(values):
            if value is not None:
                self.store.ingest(str(identity), start + number * every, [Sample(identity, value)])


@pytest.fixture
def scene() -> Scene:
    return Scene()
