"""What every benchmark here returns, and how contenders are timed. Used by ``python -m bench`` and its subjects."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What to measure on.

    Args:
        scale: 1 is the page's 306,725 documents.
        backend: ``sandbox`` or ``emulator``.
        rounds: how often each contender runs.
    """

    scale: float
    backend: str
    rounds: int

    def __str__(self) -> str:
        return f"{self.backend}, scale {self.scale:g}, medians of {self.rounds}"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a figure has to reach.

    Args:
        limit: in the measure's unit.
        at_least: whether more is better.
        backend: the only server that the promise is about; ``None`` is any. The sandbox answers so fast that a ratio
            to a bare reader or writer there measures our CPU alone.
        documents: the least number of documents that it is about: below it, fixed costs decide.
    """

    limit: float
    at_least: bool
    backend: str | None = None
    documents: int = 0

    def judge(self, figure: float, setup: Setup, documents: int) -> bool | None:
        """Whether ``figure`` reaches it; ``None`` where the promise is not about this run."""
        if self.backend not in (None, setup.backend) or documents < self.documents:
            return None
        return figure >= self.limit if self.at_least else figure <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One line of the table.

    Args:
        median: of the rounds (of the rounds' ratios, for a ratio), in ``unit``; ``x`` is a ratio. ``None``: there is
            no figure, and ``note`` says why.
        ok: whether the target is met; ``None`` if there is none or it is not about this run.
    """

    bench: str
    name: str
    median: float | None
    unit: str
    target: str = ""
    ok: bool | None = None
    note: str = ""


class Table:
    """Measures of one bench, judged as they come in."""

    def __init__(self, bench: str, setup: Setup, *, documents: int = 0) -> None:
        self._bench = bench
        self._setup = setup
        self._documents = documents
        self.measures: list[Measure] = []

    def add(self, name: str, median: float, unit: str, target: Target | None = None) -> None:
        self.measures.append(
            Measure(
                bench=self._bench,
                name=name,
                median=median,
                unit=unit,
                target=str(target) if target else "",
                ok=target.judge(median, self._setup, self._documents) if target else None,
            )
        )

    def note(self, name: str, why: str) -> None:
        """A line without a figure."""
        self.measures.append(Measure(bench=self._bench, name=name, median=None, unit="", note=why))


@dataclass(frozen=True, kw_only=True)
class Duel:
    """Two contenders' medians in seconds, and the median of the rounds' ``theirs / ours``."""

    ours: float
    theirs: float
    ratio: float


def timed(action: Callable[[], object]) -> float:
    """Seconds that ``action`` takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def contest(
    contenders: Sequence[Callable[[], object]], rounds: int, *, before: Callable[[], object] = lambda: None
) -> list[list[float]]:
    """Seconds of each contender by round; they take turns, and turns at beginning: a machine's speed drifts.

    Args:
        before: makes ready for a turn, unmeasured.
    """
    seconds: list[list[float]] = [[] for _ in contenders]
    for number in range(rounds):
        for place in range(len(contenders)):
            turn = (number + place) % len(contenders)
            before()
            seconds[turn].append(timed(contenders[turn]))
    return seconds


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The median over the rounds of how much faster ``of`` was than ``to``."""
    return statistics.median(other / one for one, other in zip(of, to, strict=True))


def duel(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> Duel:
    """A contest of two."""
    one, other = contest([ours, theirs], rounds)
    return Duel(ours=statistics.median(one), theirs=statistics.median(other), ratio=ratio(one, other))
