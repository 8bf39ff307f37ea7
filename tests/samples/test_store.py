"""The series store: what is filed, what ends, what is dropped."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from agent.faults import Refused
from agent.samples import (
    Exemplar,
    Labels,
    Limits,
    Matcher,
    MatchOperator,
    Sample,
    SeriesStore,
    describe,
    labels_of,
)
from agent.samples.columns import present

UP = labels_of("up", {"job": "api"})
DOWN = labels_of("down", {"job": "api"})


def named(name: str) -> tuple[Matcher, ...]:
    return (Matcher(MatchOperator.EQUAL, "__name__", name),)


def samples_of(store: SeriesStore, name: str, after: float = -1.0, until: float = 1e9) -> list[tuple[float, float]]:
    """Times and values of the only series called ``name``."""
    selection = store.select(named(name))
    if not selection.parts:
        return []
    view = store.view(selection.parts[0], round(after * 1000), round(until * 1000))
    cells = view.block(0, len(view), selection.parts[0].columns)[:, 0]
    there = present(cells)
    return [(float(at) / 1000, float(value)) for at, value in zip(view.times[there], cells[there], strict=True)]


def matching(store: SeriesStore, *conditions: str) -> list[str]:
    """Described series that satisfy conditions such as ``job!=api``."""
    found = []
    for condition in conditions:
        operator = next(each for each in ("=~", "!~", "!=", "=") if each in condition)
        name, value = condition.split(operator, 1)
        found.append(Matcher(MatchOperator(operator), name, value))
    return [describe(labels) for labels in store.series(found)]


def test_labels_are_sorted_and_have_no_empty_values() -> None:
    """An empty label is no label, and the metric's name is one."""
    assert labels_of("up", {"z": "1", "a": "", "job": "api"}) == (("__name__", "up"), ("job", "api"), ("z", "1"))


def test_labels_are_described_as_promql_writes_them() -> None:
    """Quotes, backslashes and line ends are escaped."""
    assert describe(labels_of("up", {"path": 'a"b\\c\n'})) == 'up{path="a\\"b\\\\c\\n"}'
    assert describe(()) == "{}"
    assert describe(labels_of("my.metric", {"a.b": "c"})) == '{"my.metric", "a.b"="c"}'


def test_readings_are_kept_in_order() -> None:
    """Every reading of a source becomes one row of its series."""
    store = SeriesStore()
    for second in range(5):
        store.ingest("app", 10 + second, [Sample(UP, second)])
    assert samples_of(store, "up") == [(10 + second, second) for second in range(5)]
    assert samples_of(store, "up", after=11, until=13) == [(12, 2), (13, 3)]


def test_a_series_that_a_reading_lacks_ends_there() -> None:
    """Absence in a later reading of the same source is staleness; coming back is a new beginning."""
    store = SeriesStore()
    store.ingest("app", 1, [Sample(UP, 1), Sample(DOWN, 0)])
    store.ingest("app", 2, [Sample(UP, 1)])
    store.ingest("app", 3, [Sample(UP, 1), Sample(DOWN, 5)])
    assert samples_of(store, "down") == [(1, 0), (3, 5)]


def test_a_stale_source_ends_all_its_series() -> None:
    """After ``stale`` the last row of every series is absent, even at the moment of the last reading."""
    store = SeriesStore()
    store.ingest("app", 1, [Sample(UP, 1)])
    store.stale("app", 1)
    part = store.select(named("up")).parts[0]
    view = store.view(part, 0, 5000)
    assert not present(view.block(len(view) - 1, len(view), part.columns)).any()


def test_nan_is_a_value_and_not_an_absence() -> None:
    """A measured NaN is present."""
    store = SeriesStore()
    store.ingest("app", 1, [Sample(UP, math.nan)])
    assert len(samples_of(store, "up")) == 1


def test_a_late_reading_is_dropped_and_counted() -> None:
    """What is not newer than the source's last reading changes nothing."""
    store = SeriesStore()
    store.ingest("app", 5, [Sample(UP, 1)])
    store.ingest("app", 5, [Sample(UP, 2)])
    store.ingest("app", 4, [Sample(UP, 3), Sample(DOWN, 3)])
    assert samples_of(store, "up") == [(5, 1)]
    assert store.statistics().refused_as_late == 3


def test_two_sources_may_not_deliver_one_living_series() -> None:
    """The second one's sample is dropped while the first is alive, and taken over once it is stale."""
    store = SeriesStore()
    store.ingest("one", 1, [Sample(UP, 1)])
    store.ingest("two", 2, [Sample(UP, 2)])
    assert samples_of(store, "up") == [(1, 1)]
    assert store.statistics().refused_as_duplicate == 1
    store.stale("one", 3)
    store.ingest("two", 4, [Sample(UP, 4)])
    assert samples_of(store, "up") == [(4, 4)]


def test_retention_drops_old_readings_and_dead_series() -> None:
    """Chunks past retention go, and with them series that nobody delivered since."""
    store = SeriesStore(Limits(retention=100, chunk=10))
    store.ingest("app", 0, [Sample(UP, 0), Sample(DOWN, 0)])
    for second in range(1, 400):
        store.ingest("app", second, [Sample(UP, second)])
    assert matching(store, "job=api") == ['up{job="api"}']
    kept = samples_of(store, "up")
    assert list(kept[-1]) == [399, 399]
    assert len(kept) in range(100, 100 + 60 + 2 * 10)


def test_readings_are_bounded_by_count() -> None:
    """However long the retention, a source keeps no more readings than the limit, a chunk and a sweep aside."""
    store = SeriesStore(Limits(readings=50, chunk=10))
    for second in range(400):
        store.ingest("app", second, [Sample(UP, second)])
    assert len(samples_of(store, "up")) <= 50 + 10 + 61


def test_a_freed_place_starts_empty() -> None:
    """A series that takes the place of one that expired shows none of its samples."""
    store = SeriesStore(Limits(retention=100, chunk=10))
    store.ingest("app", 0, [Sample(DOWN, 7)])
    for second in range(1, 300):
        store.ingest("app", second, [Sample(UP, second)])
    new = labels_of("new", {})
    store.ingest("app", 300, [Sample(UP, 300), Sample(new, 1)])
    assert samples_of(store, "new") == [(300, 1)]


def test_series_beyond_the_limit_are_refused_and_the_others_go_on() -> None:
    """Where none has ended, what is new is turned away; what is known is not silenced by it."""
    store = SeriesStore(Limits(series=3))
    for second in range(4):
        living = [Sample(labels_of("old", {"id": str(number)}), 1) for number in range(2)]
        store.ingest("app", second, [Sample(UP, second), *living, Sample(labels_of("new", {"id": str(second)}), 1)])
    assert store.statistics().series == 3
    assert store.statistics().refused_for_limit == 4
    assert store.statistics().made_room == 0
    assert samples_of(store, "up")[-1] == (3, 3)
    assert samples_of(store, "new") == []


def test_series_that_ended_make_room() -> None:
    """Label churn can't grow memory without bound, nor keep out what is new: the longest ended go first."""
    store = SeriesStore(Limits(series=40))
    for second in range(200):
        churn = labels_of("churn", {"id": str(second)})
        store.ingest("app", second, [Sample(UP, second), Sample(churn, second)])
        assert store.statistics().series <= 40
        assert f'churn{{id="{second}"}}' in matching(store, "__name__=churn")
    assert store.statistics().refused_for_limit == 0
    assert store.statistics().made_room >= 160
    assert len(samples_of(store, "up")) == 200
    kept = [int(each.split('"')[1]) for each in matching(store, "__name__=churn")]
    assert sorted(kept) == list(range(200 - len(kept), 200))


def test_room_is_not_made_at_the_expense_of_a_series_that_comes_back() -> None:
    """A reading that revives the longest ended series and brings a new one gets both."""
    store = SeriesStore(Limits(series=3))
    one, two, three, new = (labels_of(name, {}) for name in ("one", "two", "three", "new"))
    store.ingest("app", 1, [Sample(one, 1)])
    store.ingest("app", 2, [Sample(two, 2), Sample(three, 2)])
    store.ingest("app", 3, [Sample(three, 3)])
    store.ingest("app", 4, [Sample(one, 4), Sample(new, 4), Sample(three, 4)])
    assert samples_of(store, "one") == [(1, 1), (4, 4)]
    assert samples_of(store, "new") == [(4, 4)]
    assert samples_of(store, "two") == []


def test_memory_is_bounded_in_bytes() -> None:
    """Where there is less than the retention needs, the oldest chunks of all sources go first, and are counted."""
    store = SeriesStore(Limits(size=200_000, chunk=20))
    many = [labels_of("wide", {"id": str(number)}) for number in range(100)]
    for second in range(600):
        store.ingest("wide", second, [Sample(each, second) for each in many])
        store.ingest("narrow", second, [Sample(UP, second)])
        assert store.statistics().size_bytes < 200_000 + 61 * 128 * 8 + 2 * 20 * 128 * 8
    assert store.statistics().cut_short > 0
    kept = samples_of(store, "up")
    assert list(kept[-1]) == [599, 599]
    assert 60 < len(kept) < 400
    assert store.statistics().series == 101


def test_what_came_and_went_costs_what_it_held() -> None:
    """A full chunk keeps only the columns that hold samples: churn of 50 series a chunk takes no square of room."""
    store = SeriesStore(Limits(chunk=100))
    for second in range(2_000):
        churn = [Sample(labels_of("churn", {"id": f"{second // 100}-{number}"}), second) for number in range(50)]
        store.ingest("app", second, [Sample(UP, second), *churn])
    assert store.statistics().series == 1_001
    assert store.statistics().size_bytes < 3 * 2_000 * 51 * 8  # 1,001 columns of 2,000 rows would be twenty times that
    assert len(samples_of(store, "up")) == 2_000
    assert held_by(store, "7-3") == [float(second) for second in range(700, 800)]


def held_by(store: SeriesStore, identity: str) -> list[float]:
    """Values of the series with this ``id``."""
    part = store.select((Matcher(MatchOperator.EQUAL, "id", identity),)).parts[0]
    view = store.view(part, -1, 10**9)
    cells = view.block(0, len(view), part.columns)[:, 0]
    return [float(value) for value in cells[present(cells)]]


def test_a_clock_put_back_into_a_packed_chunk() -> None:
    """What is cut off is gone, and what comes then is filed beside what was kept."""
    store = SeriesStore(Limits(chunk=10))
    for second in range(40):
        churn = [Sample(labels_of("churn", {"id": f"{second // 10}-{number}"}), second) for number in range(20)]
        store.ingest("app", second, [Sample(UP, second), *churn])
    store.rewind(14)
    store.ingest("app", 15, [Sample(UP, 15), Sample(DOWN, 15)])
    assert [at for at, _ in samples_of(store, "up")] == [float(second) for second in range(16)]
    assert samples_of(store, "down") == [(15, 15)]
    assert held_by(store, "1-3") == [10.0, 11.0, 12.0, 13.0, 14.0]


def test_the_version_changes_with_the_set_of_series_alone() -> None:
    """Readings of known series leave derived tables valid."""
    store = SeriesStore()
    store.ingest("app", 1, [Sample(UP, 1)])
    versions = [store.version]
    store.ingest("app", 2, [Sample(UP, 2)])
    versions.append(store.version)
    store.ingest("app", 3, [Sample(UP, 3), Sample(DOWN, 3)])
    versions.append(store.version)
    assert versions[0] == versions[1] != versions[2]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["job=api"], ['up{job="api"}', 'up{job="api", zone="a"}']),
        (["job!=api"], ['up{job="web"}']),
        (["zone="], ['up{job="api"}', 'up{job="web"}']),
        (["zone!="], ['up{job="api", zone="a"}']),
        (["job=~a.*", "zone=a"], ['up{job="api", zone="a"}']),
        (["job=~a"], []),
        (["job!~a.*"], ['up{job="web"}']),
        (["zone=~.*"], ['up{job="api"}', 'up{job="api", zone="a"}', 'up{job="web"}']),
        (["zone=~.+"], ['up{job="api", zone="a"}']),
        (["nothing!=x"], ['up{job="api"}', 'up{job="api", zone="a"}', 'up{job="web"}']),
        (["nothing=x"], []),
    ],
)
def test_matchers_select_as_in_prometheus(conditions: list[str], expected: list[str]) -> None:
    """Patterns are anchored, and a label that is missing equals an empty one."""
    store = SeriesStore()
    pairs = ({"job": "api"}, {"job": "web"}, {"job": "api", "zone": "a"})
    store.ingest("app", 1, [Sample(labels_of("up", each), 1) for each in pairs])
    assert sorted(matching(store, *conditions)) == sorted(expected)


def test_a_pattern_takes_linear_time() -> None:
    """What makes a backtracking engine hang is matched at once, as in Prometheus."""
    store = SeriesStore()
    store.ingest("app", 1, [Sample(labels_of("up", {"job": "a" * 5_000}), 1)])
    assert matching(store, "job=~" + "(a+)+" * 20 + "b") == []


@pytest.mark.parametrize("pattern", ["(?=a)", "a{2000}", "((a{100}){100}){100}", "(", "\\1", "a*+"])
def test_a_pattern_that_prometheus_refuses_is_refused(pattern: str) -> None:
    """Look-around, back references and repetition beyond RE2's limits."""
    store = SeriesStore()
    store.ingest("app", 1, [Sample(UP, 1)])
    with pytest.raises(Refused):
        matching(store, "job=~" + pattern)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (r"a\z", "a"),
        (r"\Qa.b\E", "a.b"),
        ("a{,5}", "a{,5}"),
        (r"\pL+", "é"),
        ("(?i)JOB", "job"),
        ("a.b", "a\nb"),
        ("[[]", "["),
    ],
)
def test_patterns_mean_what_they_mean_in_prometheus(pattern: str, value: str) -> None:
    """Python's own engine reads these differently, or not at all."""
    assert Matcher(MatchOperator.MATCHES, "job", pattern).matches(value)


def test_exemplars_are_found_by_matchers_and_age() -> None:
    """The newest exemplars of a series are kept, repeated ones once."""
    store = SeriesStore()
    old, new = Exemplar("t1", 0.5, 1.0), Exemplar("t2", 0.9, 8.0)
    store.ingest("app", 1, [Sample(UP, 1, old)])
    store.ingest("app", 2, [Sample(UP, 1, old)])
    store.ingest("app", 9, [Sample(UP, 1, new)])
    assert store.exemplars(named("up"), since=0) == [(UP, old), (UP, new)]
    assert store.exemplars(named("up"), since=5) == [(UP, new)]


def test_label_names_and_values_are_listed() -> None:
    """What the API's label endpoints need."""
    store = SeriesStore()
    store.ingest("app", 1, [Sample(UP, 1), Sample(labels_of("down", {"zone": "a"}), 1)])
    assert store.label_names() == ["__name__", "job", "zone"]
    assert store.metric_names() == ["down", "up"]
    assert store.label_values("job") == ["api"]


def test_a_view_reads_across_chunks_and_widths() -> None:
    """A window may span chunks made before and after a series appeared."""
    store = SeriesStore(Limits(chunk=4))
    many = [labels_of("wide", {"id": str(number)}) for number in range(20)]
    for second in range(6):
        store.ingest("app", second, [Sample(UP, second)])
    for second in range(6, 12):
        store.ingest("app", second, [Sample(UP, second), *(Sample(each, second) for each in many)])
    selection = store.select((Matcher(MatchOperator.MATCHES, "__name__", "up|wide"),))
    part = selection.parts[0]
    view = store.view(part, -1, 11_000)
    cells = view.block(0, 12, part.columns)
    there = present(cells)
    assert there[:, 0].all()
    assert not there[:6, 1:].any()
    assert there[6:, 1:].all()
    assert list(view.steady(part.columns)) == [True] + [False] * 20


def test_a_reset_makes_a_series_unsteady() -> None:
    """The shortcut for counters is barred where a value fell."""
    store = SeriesStore()
    for second, value in enumerate((5.0, 6.0, 1.0)):
        store.ingest("app", second, [Sample(UP, value), Sample(DOWN, second)])
    part = store.select((Matcher(MatchOperator.EQUAL, "job", "api"),)).parts[0]
    assert list(store.view(part, -1, 5000).steady(part.columns)) == [False, True]


def test_ten_thousand_known_series_are_filed_quickly() -> None:
    """The sampling loop must not be what delays the rules; the bound leaves room for a loaded machine."""
    store = SeriesStore()
    labels: list[Labels] = [labels_of("requests_total", {"id": str(number)}) for number in range(10_000)]
    fastest = math.inf
    for second in range(8):
        batch = [Sample(each, float(second)) for each in labels]
        started = time.perf_counter()
        store.ingest("app", second, batch)
        fastest = min(fastest, time.perf_counter() - started)
    assert fastest < 0.05
    assert np.isclose(samples_of_one(store, labels[7]), 7.0)


def samples_of_one(store: SeriesStore, labels: Labels) -> float:
    selection = store.select([Matcher(MatchOperator.EQUAL, name, value) for name, value in labels])
    view = store.view(selection.parts[0], 0, 1_000_000)
    return float(view.block(len(view) - 1, len(view), selection.parts[0].columns)[0, 0])


def test_a_rewound_store_files_again() -> None:
    """The clock was put back: what is of the future goes, in part of a chunk or in whole ones, and readings go on."""
    store = SeriesStore(Limits(chunk=4))
    for second in range(10):
        store.ingest("app", float(second), [Sample(UP, float(second)), Sample(DOWN, 1.0)])
    version = store.version
    assert store.rewind(5.0) == 4
    assert store.version != version
    assert samples_of(store, "up") == [(float(second), float(second)) for second in range(6)]
    store.ingest("app", 5.5, [Sample(UP, 50.0)])
    assert samples_of(store, "up")[-1] == (5.5, 50.0)
    assert store.statistics().refused_as_late == 0
    assert store.rewind(-1.0) == 7
    store.ingest("app", 0.0, [Sample(UP, 3.0)])
    assert samples_of(store, "up") == [(0.0, 3.0)]


def test_a_source_is_silent_when_it_ended_or_was_not_heard_of() -> None:
    """An end is known at once, a hanging source after the patience; who speaks again is not silent."""
    store = SeriesStore()
    store.ingest("app", 10.0, [Sample(UP, 1.0)])
    assert store.silent_since("app", 20.0, 300.0) is None
    assert store.silent_since("app", 400.0, 300.0) == 10.0
    store.stale("app", 12.0)
    store.stale("app", 15.0)
    assert store.silent_since("app", 20.0, 300.0) == 12.0
    store.ingest("app", 21.0, [Sample(UP, 1.0)])
    assert store.silent_since("app", 22.0, 300.0) is None
    assert store.silent_since("nobody", 22.0, 300.0) is None


def test_a_counter_born_between_two_readings_was_zero_at_the_first() -> None:
    """Its first errors are an increase, although nobody saw them begin; what is no counter begins where it is seen."""
    store = SeriesStore()
    ok, failed = labels_of("operations_total", {}), labels_of("operations_total", {"error": "yes"})
    gauge, other = labels_of("queue", {}), labels_of("queue", {"shard": "2"})
    for second in range(3):
        store.ingest("app", second, [Sample(ok, second), Sample(gauge, 1)], counters={"operations_total"})
    later = [Sample(ok, 3), Sample(gauge, 1), Sample(failed, 4), Sample(other, 5)]
    store.ingest("app", 3, later, counters={"operations_total"})
    found = {labels: of_series(store, labels) for labels in (failed, other)}
    assert found == {failed: [(2.0, 0.0), (3.0, 4.0)], other: [(3.0, 5.0)]}


def test_only_what_surely_was_zero_is_taken_for_it() -> None:
    """Not after a silence, nor under a metric that was not there, nor for a series that is known."""
    store = SeriesStore()
    ok, failed, new = labels_of("a_total", {}), labels_of("a_total", {"error": "yes"}), labels_of("b_total", {})
    counters = {"a_total", "b_total"}
    store.ingest("app", 0, [Sample(ok, 7)], counters=counters)
    store.ingest("app", 1, [Sample(ok, 8), Sample(new, 1e9)], counters=counters)
    store.stale("app", 2)
    store.ingest("app", 3, [Sample(ok, 9), Sample(failed, 50)], counters=counters)
    store.ingest("app", 4, [Sample(ok, 9)], counters=counters)
    store.ingest("app", 5, [Sample(ok, 9), Sample(failed, 51)], counters=counters)
    assert of_series(store, ok) == [(0, 7), (1, 8), (3, 9), (4, 9), (5, 9)]
    assert of_series(store, new) == [(1, 1e9)]
    assert of_series(store, failed) == [(3, 50), (5, 51)]


def test_a_counter_may_be_born_where_a_chunk_ends() -> None:
    """The zero goes into the chunk before, which had no room for the series, and its rate counts from there."""
    store = SeriesStore(Limits(chunk=2))
    ok = labels_of("a_total", {})
    fresh = [labels_of("a_total", {"n": str(number)}) for number in range(20)]
    for second in range(4):
        store.ingest("app", second, [Sample(ok, second)], counters={"a_total"})
    born = [Sample(ok, 4), *(Sample(labels, number) for number, labels in enumerate(fresh))]
    store.ingest("app", 4, born, counters={"a_total"})
    assert [of_series(store, labels) for labels in fresh] == [[(3, 0), (4, number)] for number in range(20)]


def of_series(store: SeriesStore, labels: Labels) -> list[tuple[float, float]]:
    """Times and values of one series."""
    selection = store.select([Matcher(MatchOperator.EQUAL, name, value) for name, value in labels])
    for part in selection.parts:
        for position, column in zip(part.positions, part.columns, strict=True):
            if selection.labels[position] == labels:
                view = store.view(part, -1000, 10_000_000)
                cells = view.block(0, len(view), np.array([column]))[:, 0]
                there = present(cells)
                return [(float(at) / 1000, float(v)) for at, v in zip(view.times[there], cells[there], strict=True)]
    return []
