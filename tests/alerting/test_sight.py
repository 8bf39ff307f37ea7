"""Rules that can't see: no data, silence and failure are told apart, each with its reason and its rule's policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.alerting import Health, load_rules
from agent.faults import Misconfigured

World = Any
Make = Callable[[str], World]

RULES = """
groups:
  - name: heat
    interval: 1s
    rules:
      - alert: Hot
        expr: EXPR
        labels: {severity: critical}
        annotations: {summary: "it has {{ $value }} degrees", runbook_url: page.md, POLICY}
"""


def rules(policy: str = "", expression: str = "temperature > 30") -> str:
    return RULES.replace("EXPR", expression).replace(", POLICY", f", {policy}" if policy else "")


def hot(_: float) -> dict[str, float]:
    return {"temperature": 40}


def cool(_: float) -> dict[str, float]:
    return {"temperature": 20}


def gone(_: float) -> dict[str, float]:
    """The source speaks, the series is not among what it says."""
    return {"humidity": 1}


def silent(_: float) -> None:
    return None


def failing(_: float) -> dict[str, float]:
    return {"temperature": 40, "limit{id=1}": 1, "limit{id=2}": 2}


LIMIT = "temperature > on () limit"


def health(it: World) -> tuple[Health, str]:
    (status,) = it.evaluator.groups()[0].rules
    return status.health, status.lack.reason if status.lack else ""


def test_each_way_of_not_seeing_has_its_name_and_reason(world: Make) -> None:
    """Never there, not there any more, NaN, a source that fell silent, a failure: five different things."""
    it = world(rules())
    it.run(1, gone)
    assert health(it) == (Health.NO_DATA, "no series match temperature")
    it.run(1, cool)
    assert health(it) == (Health.OK, "")
    it.run(1, gone)
    assert health(it) == (Health.NO_DATA, "the expression has no result")
    it.run(1, lambda _: {"temperature": float("nan")})
    assert health(it) == (Health.NO_DATA, "the result is NaN")
    it.run(1, silent)
    assert health(it) == (Health.BLIND, "nothing has delivered temperature since 00:00:04 UTC")
    it.reload(rules(expression=LIMIT))
    it.run(1, failing)
    found, why = health(it)
    assert found is Health.ERROR
    assert why.startswith("found duplicate series")


def test_a_source_that_hangs_is_blind_once_its_samples_are_too_old(world: Make) -> None:
    """Nobody says that it ended: after the lookback its silence is seen all the same."""
    it = world(rules())
    it.run(1, cool)
    it.clock.advance(400)
    it.tick()
    assert health(it)[0] is Health.BLIND


@pytest.mark.parametrize("unseen", [gone, silent, failing])
def test_by_default_the_state_is_kept(world: Make, unseen: Callable[[float], Any]) -> None:
    """Whatever is not seen, an alert that fires goes on and none begins."""
    expression = LIMIT if unseen is failing else "temperature > 30"
    it = world(rules(expression=expression))
    assert it.run(30, unseen) == []
    it.run(2, lambda _: {"temperature": 40, "limit": 30})
    assert it.run(30, unseen) == []
    assert it.states() == {"Hot": "firing"}
    assert it.alert("Hot").blind


def test_no_data_may_be_health_where_the_rule_says_so(world: Make) -> None:
    """A counter that is born with its first error: without it there are none. Silence is not that."""
    it = world(rules("runbookd_no_data: ok"))
    it.run(2, hot)
    assert it.run(3, silent) == []
    assert it.states() == {"Hot": "firing"}
    assert it.run(1, gone) == [(5, "Hot", "resolved")]


@pytest.mark.parametrize(
    ("policy", "unseen", "expression", "sight", "reason"),
    [
        ("no_data", gone, "temperature > 30", "no_data", "no series match temperature"),
        ("error", failing, LIMIT, "error", "found duplicate series"),
    ],
)
def test_not_seeing_alerts_where_the_rule_says_so(
    world: Make, policy: str, unseen: Callable[[float], Any], expression: str, sight: str, reason: str
) -> None:
    """After three intervals an alert of the rule's own labels says what is not seen; it ends when it is seen again."""
    it = world(rules(f"runbookd_{policy}: alerting", expression))
    assert it.run(6, unseen) == [(0, "Hot", "pending"), (3, "Hot", "firing")]
    alert = it.alert("Hot")
    assert alert.labels == {"alertname": "Hot", "severity": "critical", "sight": sight}
    assert alert.blind.startswith(f"{sight}: {reason}")
    assert alert.annotations["summary"].startswith(f"Hot can't be judged: {sight}: {reason}")
    assert alert.annotations["runbook_url"] == "page.md"
    assert it.run(1, lambda _: {"temperature": 20, "limit": 30}) == [(6, "Hot", "resolved")]


def test_silence_alerts_beside_the_alert_that_it_leaves_in_the_dark(world: Make) -> None:
    """The firing alert keeps its state; the other one says why nothing more is known."""
    it = world(rules("runbookd_blind: alerting"))
    it.run(2, hot)
    assert [state for _, _, state in it.run(8, silent)] == ["pending", "firing"]
    marks = {alert.labels.get("sight", ""): alert.blind for alert in it.evaluator.active()}
    assert set(marks) == {"", "blind"}
    assert all(mark.startswith("blind: nothing has delivered temperature") for mark in marks.values())
    assert it.run(1, hot) == [(10, "Hot", "resolved")]
    assert it.states() == {"Hot": "firing"}


def test_an_alert_about_sight_survives_a_kill(world: Make) -> None:
    """It is in the state file like any other, and is not told twice."""
    it = world(rules("runbookd_no_data: alerting"))
    it.run(6, gone)
    it.kill()
    assert it.run(6, gone) == []
    assert it.states() == {"Hot": "firing"}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("runbookd_no_data: ignore", "runbookd_no_data is one of keep, ok, alerting, not 'ignore'"),
        ("runbookd_blind: ok", "runbookd_blind is one of keep, alerting, not 'ok'; what can't be seen is not well"),
        ("runbookd_error: ok", "runbookd_error is one of keep, alerting, not 'ok'; what can't be seen is not well"),
    ],
)
def test_a_policy_that_is_none_is_refused_at_load(tmp_path: Path, policy: str, message: str) -> None:
    """With its place; a failure that counts as health is nothing that can be asked for."""
    path = tmp_path / "rules.yaml"
    path.write_text(rules(policy))
    with pytest.raises(Misconfigured) as caught:
        load_rules([path])
    assert message in str(caught.value)


def test_one_of_several_that_falls_silent_is_blind_alone(world: Make) -> None:
    """Two sources, two alerts: the one whose source is silent keeps its state, the other is judged as ever."""
    it = world(rules())
    for _ in range(5):
        at = it.clock.now().timestamp()
        it.feed("one", at, {"temperature{room=attic}": 40})
        it.feed("two", at, {"temperature{room=hall}": 40})
        it.tick()
        it.clock.advance(1)
    it.store.stale("one", it.clock.now().timestamp())
    for _ in range(5):
        it.feed("two", it.clock.now().timestamp(), {"temperature{room=hall}": 20})
        it.tick()
        it.clock.advance(1)
    (left,) = it.evaluator.active()
    assert left.blind == "blind: nothing has delivered temperature since 00:00:05 UTC"
