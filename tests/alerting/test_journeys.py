"""Alerts as timelines: what a person on call would see, second by second."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.alerting import AlertState, Health
from agent.samples import Exemplar, Matcher, MatchOperator

World = Any
Make = Callable[[str], World]

HOT = """
groups:
  - name: heat
    interval: 1s
    rules:
      - alert: Hot
        expr: temperature > 30
        for: 5s
        keep_firing_for: 3s
        labels: {severity: critical, where: "{{ $labels.room }}"}
        annotations:
          summary: "{{ $labels.room }} has {{ $value | humanize }} degrees"
"""
INSTANT = HOT.replace("for: 5s", "for: 0s").replace("keep_firing_for: 3s", "")


def heat(value: float) -> Callable[[float], dict[str, float]]:
    return lambda _: {"temperature{room=cellar}": value}


def silence(_: float) -> None:
    return None


def test_an_alert_is_pending_fires_recovers_and_resolves(world: Make) -> None:
    """Hot from 2 s on, fires at 7 s; cool from 10 s on, resolves at 13 s."""
    it = world(HOT)
    changes = it.run(2, heat(20)) + it.run(8, heat(40)) + it.run(8, heat(20))
    assert changes == [(2, "Hot", "pending"), (7, "Hot", "firing"), (10, "Hot", "recovering"), (13, "Hot", "resolved")]
    assert it.states() == {}


def test_what_cools_in_time_never_fires(world: Make) -> None:
    """Four seconds of heat are not five."""
    it = world(HOT)
    assert it.run(4, heat(40)) + it.run(10, heat(20)) == [(0, "Hot", "pending"), (4, "Hot", "inactive")]


def test_heat_that_returns_while_recovering_is_the_same_alert(world: Make) -> None:
    """keep_firing_for bridges a dip: one alert, one beginning."""
    it = world(HOT)
    it.run(6, heat(40))
    began = it.alert("Hot").fired_at
    assert it.run(2, heat(20)) + it.run(2, heat(40)) == [(6, "Hot", "recovering"), (8, "Hot", "firing")]
    assert it.alert("Hot").fired_at == began


def test_want_of_data_neither_resolves_nor_brings_closer(world: Make) -> None:
    """Pending for 3 s, blind for 20 s, hot again: 2 s are still to go."""
    it = world(HOT)
    it.run(4, heat(40))
    assert it.run(20, silence) == []
    assert it.states() == {"Hot": "pending"}
    changes = it.run(6, heat(40))
    assert [(at, state) for at, _, state in changes] == [(25, "firing")]


def test_a_firing_alert_goes_blind_and_sees_again(world: Make) -> None:
    """After three intervals without data the alert says so, and keeps firing."""
    it = world(INSTANT)
    it.run(3, heat(40))
    it.run(2, silence)
    assert it.alert("Hot").blind == ""
    it.deliver(None)
    result = it.tick()
    blind = "blind: nothing has delivered temperature since 00:00:03 UTC"
    assert [alert.blind for alert in result.sight_changes] == [blind]
    assert it.states() == {"Hot": "firing"}
    it.clock.advance(1)
    it.deliver({"temperature{room=cellar}": 40})
    result = it.tick()
    assert [alert.blind for alert in result.sight_changes] == [""]
    assert result.changes == ()


def test_no_traffic_is_not_health(world: Make) -> None:
    """An error ratio of 0/0 is NaN: the alert stays until there is traffic that succeeds."""
    it = world(INSTANT.replace("temperature > 30", "failed / asked > 0.05"))
    it.run(2, lambda _: {"failed": 5, "asked": 10})
    assert it.run(10, lambda _: {"failed": 0, "asked": 0}) == []
    assert it.states() == {"Hot": "firing"}
    assert it.run(1, lambda _: {"failed": 0, "asked": 10}) == [(12, "Hot", "resolved")]


def test_a_missing_threshold_is_no_answer(world: Make) -> None:
    """When the limit's own series vanishes, a firing alert stays and no other begins."""
    it = world(INSTANT.replace("> 30", "> scalar(limit)"))
    it.run(2, lambda _: {"temperature": 40, "limit": 30})
    assert it.run(5, lambda _: {"temperature": 10}) == []
    assert it.states() == {"Hot": "firing"}


def test_a_failing_query_keeps_the_state_and_is_counted(world: Make) -> None:
    """Duplicate series make the expression fail: an error is neither true nor false."""
    it = world(INSTANT.replace("temperature > 30", "temperature > on () limit"))
    it.run(2, lambda _: {"temperature": 40, "limit{id=1}": 30})
    changes = it.run(5, lambda _: {"temperature": 10, "limit{id=1}": 30, "limit{id=2}": 30})
    assert changes == []
    assert it.alert("Hot").blind.startswith("error: found duplicate series")
    (status,) = it.evaluator.groups()[0].rules
    assert status.health is Health.ERROR
    assert "found duplicate series" in it.tick().failures["Hot"]


@pytest.mark.parametrize("killed_at", range(1, 14))
def test_a_kill_at_any_second_changes_nothing(world: Make, killed_at: int) -> None:
    """Killed and restarted between any two ticks, the same alerts change at the same seconds."""
    it = world(HOT)

    def feed(second: float) -> dict[str, float]:
        return {"temperature{room=cellar}": 40 if 2 <= second < 10 else 20}

    changes = it.run(killed_at, feed)
    it.kill()
    changes += it.run(18 - killed_at, feed)
    expected = [(2, "Hot", "pending"), (7, "Hot", "firing"), (10, "Hot", "recovering"), (13, "Hot", "resolved")]
    once = [change for number, change in enumerate(changes) if change[2] not in {each[2] for each in changes[:number]}]
    assert [state for _, _, state in once] == [state for _, _, state in expected]
    for (at, _, _), (wanted, _, _) in zip(once, expected, strict=True):
        assert wanted <= at <= wanted + 5  # times of pending alerts are written down every 5 s


def test_time_dead_is_not_time_hot(world: Make) -> None:
    """A daemon that was down for an hour does not fire on its first look."""
    it = world(HOT)
    it.run(3, heat(40))
    it.kill()
    it.wait(3600)
    changes = it.run(7, heat(40))
    fired = [at for at, _, state in changes if state == "firing"]
    assert fired
    assert fired[0] >= 3603 + 2


def test_a_change_nobody_heard_of_is_told_again(world: Make) -> None:
    """Killed between writing and telling: the next start tells; heard once, it is not repeated."""
    it = world(INSTANT)
    assert it.run(1, heat(40)) == [(0, "Hot", "firing")]
    it.kill()
    assert it.run(3, heat(40)) == [(1, "Hot", "firing")]
    it.kill()
    assert it.run(3, heat(40)) == []


def test_a_resolve_survives_the_kill_that_followed_it(world: Make) -> None:
    """Every trigger gets its resolve, even if the process died with it in hand."""
    it = world(INSTANT)
    it.run(3, heat(40))
    assert it.run(1, heat(20)) == [(3, "Hot", "resolved")]
    it.kill()
    assert it.run(1, heat(20)) == [(4, "Hot", "resolved")]
    assert it.run(5, heat(20)) == []


def test_a_resolve_is_kept_while_the_source_is_silent(world: Make) -> None:
    """A restart without samples repeats the resolve and loses nothing else."""
    it = world(INSTANT)
    it.run(3, heat(40))
    it.kill()
    assert it.run(5, silence) == []
    assert it.states() == {"Hot": "firing"}


def test_labels_and_annotations_are_filled_in(world: Make) -> None:
    """Templates see the element's labels and value; annotations follow the value."""
    it = world(INSTANT)
    it.run(1, heat(40))
    alert = it.alert("Hot")
    assert alert.labels == {"alertname": "Hot", "room": "cellar", "severity": "critical", "where": "cellar"}
    assert alert.annotations == {"summary": "cellar has 40 degrees"}
    it.run(1, heat(1234))
    assert it.alert("Hot").annotations == {"summary": "cellar has 1.234k degrees"}
    assert it.alert("Hot").fingerprint == alert.fingerprint


def test_each_element_is_an_alert_of_its_own(world: Make) -> None:
    """Two rooms, two alerts; one cools, one stays."""
    it = world(INSTANT)
    it.run(1, lambda _: {"temperature{room=cellar}": 40, "temperature{room=attic}": 50})
    assert len(it.evaluator.active()) == 2
    changes = it.run(1, lambda _: {"temperature{room=cellar}": 20, "temperature{room=attic}": 50})
    assert changes == [(1, "Hot", "resolved")]
    assert it.alert("Hot").labels["room"] == "attic"


def test_alerts_are_written_back_as_series(world: Make) -> None:
    """ALERTS and ALERTS_FOR_STATE appear with the alert and end with it."""
    it = world(HOT)
    it.run(6, heat(40))
    matchers = [Matcher(MatchOperator.EQUAL, "__name__", "ALERTS")]
    states = [dict(labels)["alertstate"] for labels in it.store.series(matchers)]
    assert states == ["firing", "pending"]
    it.run(10, heat(20))
    part = it.store.select(matchers).parts[0]
    view = it.store.view(part, 0, 2**62)
    assert len(view) == 10  # six hot, three recovering, one that ends them


def test_a_recorded_series_is_there_for_the_next_rule(world: Make) -> None:
    """Rules of a group run in order, at one moment."""
    it = world(
        """
groups:
  - name: heat
    interval: 1s
    rules:
      - record: heat:double
        expr: temperature * 2
        labels: {unit: k}
      - alert: Hot
        expr: heat:double{unit="k"} > 60
"""
    )
    assert it.run(1, heat(40)) == [(0, "Hot", "firing")]
    assert it.run(1, silence) == []
    assert it.states() == {"Hot": "firing"}


def test_a_reload_keeps_the_state_of_unchanged_rules(world: Make) -> None:
    """Another annotation, another `for`, another group: the alert goes on."""
    it = world(HOT)
    it.run(6, heat(40))
    began = it.alert("Hot").fired_at
    it.reload(HOT.replace("name: heat", "name: other").replace("has", "is at").replace("for: 5s", "for: 9s"))
    assert it.run(1, heat(40)) == []
    assert it.alert("Hot").fired_at == began
    assert it.alert("Hot").annotations["summary"] == "cellar is at 40 degrees"


def test_an_alert_whose_rule_is_gone_resolves(world: Make) -> None:
    """What was sent is taken back, also when the rule went during a restart."""
    it = world(INSTANT)
    it.run(1, heat(40))
    it.reload("groups: []")
    assert it.run(1, heat(40)) == [(1, "Hot", "resolved")]
    it.reload(INSTANT)
    it.run(2, heat(40))
    it.path.write_text("groups: []")
    it.kill()
    assert [(rule, state) for _, rule, state in it.run(2, heat(40))] == [("Hot", "resolved")]


def test_groups_run_at_their_own_intervals(world: Make) -> None:
    """A group of every 10 s is due at 0, 10, 20; a late pass counts what it missed and makes nothing up."""
    it = world(INSTANT.replace("interval: 1s", "interval: 10s"))
    due = []
    for _ in range(21):
        it.deliver({"temperature{room=cellar}": 20})
        if it.tick().evaluated:
            due.append(it.second)
        it.clock.advance(1)
    assert due == [0, 10, 20]
    it.wait(34)
    result = it.tick()
    assert result.evaluated == ("heat",)
    assert result.missed == 2


def test_a_clock_that_goes_back_stops_nothing(world: Make) -> None:
    """After the wall clock stepped back an hour, rules run on and no alert fires early."""
    it = world(HOT)
    it.run(3, heat(40))
    it.clock.jump(-3600)
    assert it.tick().evaluated == ("heat",)


def test_a_firing_alert_carries_the_trace_that_shows_it(world: Make) -> None:
    """The exemplar with the largest value, of the series that the alert is about."""
    it = world(INSTANT.replace("temperature > 30", "sum(temperature_count) > 30"))
    it.deliver(
        {"temperature_count": 40, "temperature_bucket{le=1}": 3},
        exemplar=Exemplar("abc", 0.7, it.clock.now().timestamp()),
    )
    it.tick()
    assert it.alert("Hot").trace_id == "abc"


def test_the_state_is_in_the_file_before_the_change_is_returned(world: Make, tmp_path: Path) -> None:
    """Whoever reads the file when told of a change finds it there."""
    it = world(INSTANT)
    it.deliver({"temperature{room=cellar}": 40})
    result = it.tick()
    it.kill()
    assert [alert.state for alert in it.evaluator.active()] == [AlertState.FIRING]
    assert it.evaluator.active()[0].fired_at == result.changes[0].fired_at
    assert result.at - result.changes[0].active_since == timedelta(0)
    assert tmp_path.exists()


def test_a_changed_expression_keeps_its_alerts(world: Make) -> None:
    """Another threshold, at a reload or a restart: the alert that fires is the same, and so is one that waits."""
    it = world(HOT)
    it.run(6, heat(40))
    began, active = it.alert("Hot").fired_at, it.alert("Hot").active_since
    it.reload(HOT.replace("> 30", "> 35"))
    assert it.run(1, heat(40)) == []
    it.path.write_text(HOT.replace("> 30", "> 33"))
    it.kill()
    assert it.run(2, heat(40)) == []
    assert (it.alert("Hot").fired_at, it.alert("Hot").active_since) == (began, active)
    it.kill()
    it.run(1, heat(40))
    assert it.alert("Hot").fired_at == began, "it is in the file under its new rule"


def test_a_changed_expression_that_no_longer_holds_ends_the_alert(world: Make) -> None:
    """It is judged by the new text from the next look on."""
    it = world(INSTANT)
    it.run(2, heat(40))
    it.reload(INSTANT.replace("> 30", "> 50"))
    assert it.run(1, heat(40)) == [(2, "Hot", "resolved")]


def test_other_labels_are_another_alert(world: Make) -> None:
    """Whoever was told of a critical alert is told of its end; the warning is new."""
    it = world(INSTANT)
    it.run(2, heat(40))
    it.reload(INSTANT.replace("critical", "warning").replace("> 30", "> 31"))
    assert sorted(it.run(1, heat(40))) == [(2, "Hot", "firing"), (2, "Hot", "resolved")]


def test_a_shorter_patience_counts_from_the_same_beginning(world: Make) -> None:
    """Pending for 3 of 5 s; with `for: 2s` it fires at the next look."""
    it = world(HOT)
    it.run(4, heat(40))
    it.reload(HOT.replace("for: 5s", "for: 2s"))
    assert it.run(1, heat(40)) == [(4, "Hot", "firing")]


def test_over_the_limit_is_an_error_that_takes_no_alert_away(world: Make) -> None:
    """Prometheus drops all alerts of such a rule; here they keep their state, marked, and the rule is in error."""
    it = world(INSTANT.replace("interval: 1s", "interval: 1s\n    limit: 2"))
    rooms = ["cellar", "attic", "hall"]
    it.run(2, lambda _: {f"temperature{{room={room}}}": 40 for room in rooms[:2]})
    assert it.run(5, lambda _: {f"temperature{{room={room}}}": 40 for room in rooms}) == []
    assert [alert.blind for alert in it.evaluator.active()] == ["error: 3 elements, over the group's limit of 2"] * 2
    changes = it.run(1, lambda _: {f"temperature{{room={room}}}": 20 for room in rooms[:2]})
    assert [state for _, _, state in changes] == ["resolved", "resolved"]
