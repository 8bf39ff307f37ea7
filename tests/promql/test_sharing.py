"""Rules of one tick share what they read, and each still gets what it would get alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

from agent.promql import Element, Engine, Evaluation, compile_expression
from agent.promql.summing import sums
from agent.samples import Sample, SeriesStore, labels_of

JOBS = 6
NOW = 400.5


@pytest.fixture
def store() -> SeriesStore:
    """Counters of two sources: steady ones, some that are born late, miss readings, end or restart."""
    chance = random.Random(4)
    store = SeriesStore()
    for source in ("a", "b"):
        totals = [0.0] * JOBS * 4
        for second in range(401):
            samples = []
            for number in range(len(totals)):
                totals[number] = 0.0 if number % 7 == 3 and chance.random() < 0.01 else totals[number] + chance.random()
                away = (
                    (number % 7 == 1 and second < 100 + number)
                    or (number % 7 == 2 and chance.random() < 0.05)
                    or (number % 7 == 4 and second > 390)
                )
                if not away:
                    labels = {"job": f"j{number % JOBS}", "n": str(number), "source": source}
                    samples.append(Sample(labels_of("c_total", labels), totals[number]))
            store.ingest(source, float(second), samples)
    return store


EXPRESSIONS = [
    f'sum by (source) ({function}(c_total{{job="j{job}"{source}}}[{window}]{offset}))'
    for job in range(JOBS)
    for function in ("rate", "increase", "delta")
    for window in ("10s", "5m", "300ms")
    for source, offset in (("", ""), (',source="a"', ""), ("", " offset 30s"))
]


def elements(evaluation: Evaluation, text: str) -> list[Element]:
    return evaluation.elements(compile_expression(text).root)


def test_sharing_changes_no_value(store: SeriesStore) -> None:
    """Whoever asked before, and in whatever order, a rule sees the same elements as in an evaluation of its own."""
    engine = Engine(store)
    alone = {text: elements(engine.at(NOW), text) for text in EXPRESSIONS}
    assert sum(map(len, alone.values())) > 150
    order = EXPRESSIONS * 2
    random.Random(1).shuffle(order)
    together = engine.at(NOW)
    for text in order:
        assert elements(together, text) == alone[text]


def test_what_was_filed_within_a_tick_is_seen(store: SeriesStore) -> None:
    """A rule after a recording rule sees what that one wrote, although others looked at the window before."""
    engine = Engine(store)
    texts = [f'rate(c_total{{source="a",n="{number}"}}[10s])' for number in (0, 6, 12, 18)]
    evaluation = engine.at(NOW)
    before = [elements(evaluation, text) for text in texts[:3]]
    assert all(before)
    late = [Sample(labels_of("c_total", {"job": "j0", "n": str(n), "source": "a"}), 1e6) for n in (0, 6, 12, 18)]
    store.ingest("a", NOW, late)
    evaluation.forget(frozenset({"c_total"}))
    assert [elements(evaluation, text) for text in texts] == [elements(engine.at(NOW), text) for text in texts]
    assert elements(evaluation, texts[0]) != before[0]


def test_few_numbers_are_summed_as_many_are() -> None:
    """The shortcut of a rule's sum agrees with the way of whole tables, also where sums cancel out or overflow."""
    chance = random.Random(9)
    odd = [1e100, -1e100, 1.0, 0.1, float("inf"), float("-inf"), float("nan"), 1.7e308]
    for _ in range(200):
        column = [chance.choice(odd) if chance.random() < 0.3 else chance.uniform(-1, 1) for _ in range(9)]
        values, starts = np.array(column)[:, None], np.array([0, 1, 5])
        few = sums(values, starts)[:, 0]
        many = sums(np.hstack([values, values]), starts)[:, 0]
        assert few == pytest.approx(many, rel=1e-12, abs=1e-14, nan_ok=True)
