"""Queries stand aside while the rules are looked at, and not for ever."""

from __future__ import annotations

import threading

from agent.promql import Answer, Engine, Vector, compile_expression
from agent.promql.way import RightOfWay
from agent.samples import Sample, SeriesStore, labels_of


def test_a_query_waits_for_the_rules_and_the_rules_for_nobody() -> None:
    """While the way is taken rules get their values at once; a query gets its own as soon as it is free."""
    store = SeriesStore()
    store.ingest("app", 1.0, [Sample(labels_of("x", {}), 7.0)])
    engine = Engine(store)
    engine.way = RightOfWay(patience=60.0)
    plan = compile_expression("x + 1")
    answers: list[Answer] = []
    query = threading.Thread(target=lambda: answers.append(engine.query(plan, 1.0)))
    with engine.way.taken():
        query.start()
        value = engine.instant(plan, 1.0)
        query.join(0.05)
        assert query.is_alive()
    query.join(10.0)
    assert isinstance(value, Vector)
    assert [answer.value for answer in answers] == [value]


def test_a_look_that_hangs_does_not_take_the_queries_with_it() -> None:
    """Patience ends, whether the way is free by then or not."""
    way = RightOfWay(patience=0.001)
    with way.taken():
        way.give()
