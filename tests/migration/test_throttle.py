"""The throttle: what slows a run down, what stops it, and how it comes back; at times of our choosing."""

from __future__ import annotations

import pytest

from agent.migration.throttle import RECHECK_SECONDS, Action, Band, Load, LoadLimits, Throttle, throttle
from agent.migration.vitals import error_share, p95, worse

LIMITS = LoadLimits(latency=Band(warning=0.2, critical=0.5), errors=Band(warning=0.005, critical=0.01))


def rule(loads: list[Load], *, rate: float = 1000.0, every: float = 1.0) -> list[Throttle]:
    """Rulings on one load after the other, ``every`` seconds apart; the run goes as fast as it may, up to ``rate``."""
    rulings: list[Throttle] = []
    now, state = 0.0, Throttle()
    for load in loads:
        going = 0.0 if state.action is Action.HALT else min(rate, state.rate or rate)
        state = throttle(state, load, LIMITS, rate=going, now=now)
        rulings.append(state)
        now += every
    return rulings


@pytest.mark.parametrize("load", [Load(), Load(latency=0.159, errors=0.0039), Load(errors=0.0), Load(latency=0.0)])
def test_below_the_limits_and_blind_it_goes_on(load: Load) -> None:
    """80 % of a warning is where it begins; what is not known slows nothing down and says nothing."""
    (ruling,) = rule([load])
    assert ruling == Throttle()


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (Load(latency=0.165), "queries take 165 ms (p95); the page's warning is 200 ms"),
        (Load(errors=0.004), "0.4% of operations fail; the page's warning is 0.5%"),
        (Load(latency=0.3, errors=0.006), "queries take 300 ms"),
    ],
)
def test_near_a_warning_it_halves_its_rate_and_says_why(load: Load, words: str) -> None:
    """It acts before the page's rule may: at 80 % of the warning, with the figures in its reason."""
    (ruling,) = rule([load])
    assert (ruling.action, ruling.rate) == (Action.SLOW, 500.0)
    assert words in ruling.reason


def test_it_halves_again_only_after_the_last_time_could_show() -> None:
    """A window of seconds lags behind: not at every look, and never below one twentieth, or ten a second."""
    rates = [ruling.rate for ruling in rule([Load(latency=0.19)] * 31)]
    assert rates[:5] == [500.0] * 5
    assert rates[5:10] == [250.0] * 5
    assert rates[10] == 125.0
    assert rates[-1] == 50.0
    assert rule([Load(latency=0.19)] * 40, rate=20.0)[-1].rate == 10.0


def test_when_it_is_calm_it_grows_back_to_full_speed() -> None:
    """A quarter more at each look, until it was as fast as before; then there is no ceiling."""
    rulings = rule([Load(latency=0.19), *[Load(latency=0.1)] * 5])
    assert [ruling.rate for ruling in rulings] == [500.0, 625.0, 781.25, 976.5625, None, None]
    assert [ruling.action for ruling in rulings][-3:] == [Action.SLOW, Action.GO, Action.GO]


def test_a_critical_figure_stops_it_at_once_and_is_looked_at_again() -> None:
    """One look that is critical halts it; if the next is not, it goes on slowly, and nothing was given up."""
    rulings = rule([Load(latency=0.5), Load(latency=0.1), Load(latency=0.1)])
    assert [ruling.action for ruling in rulings] == [Action.HALT, Action.SLOW, Action.SLOW]
    assert rulings[1].rate == pytest.approx(62.5)


def test_critical_at_the_second_look_it_gives_up() -> None:
    """Only when it is still critical after longer than the rules' windows; a calm look in between begins anew."""
    critical, calm = Load(errors=0.02), Load(errors=0.0)
    looks = int(RECHECK_SECONDS)
    assert [ruling.action for ruling in rule([critical] * (looks + 1))] == [Action.HALT] * looks + [Action.GIVE_UP]
    assert rule([critical] * looks + [calm] + [critical] * looks)[-1].action is Action.HALT


def test_what_would_have_it_rolled_back_stops_it() -> None:
    """A row of the matrix has no warning: while it holds nothing is written, in the words of the row's alert."""
    limits = LoadLimits(matrix=True)
    slower = Load(reversal="user_lookup is slower than before the migration")
    ruling = throttle(Throttle(), slower, limits, rate=100.0, now=0.0)
    assert ruling.action is Action.HALT
    assert ruling.reason == "user_lookup is slower than before the migration, for which the page's matrix rolls back"
    assert throttle(ruling, Load(), limits, rate=0.0, now=1.0).action is Action.SLOW
    assert throttle(Throttle(), slower, LIMITS, rate=100.0, now=0.0) == Throttle()


def test_going_blind_lifts_a_halt_but_not_the_caution() -> None:
    """What is no longer known is not critical; the run goes on at a twentieth of its speed, not at all of it."""
    rulings = rule([Load(latency=0.9), Load()])
    assert rulings[1].action is Action.SLOW
    assert rulings[1].rate is not None
    assert rulings[1].rate < 100


def test_a_page_without_a_row_sets_no_limit() -> None:
    """A figure that the page has no threshold for is nobody's business."""
    assert throttle(Throttle(), Load(latency=9.0, errors=1.0), LoadLimits(), rate=1.0, now=0.0) == Throttle()


def test_figures_of_too_little_are_none() -> None:
    """Four answers make no percentile, nine operations no share, two errors among many are bad luck."""
    assert p95([0.1] * 4) is None
    assert p95([0.01] * 18 + [0.3, 0.4]) == 0.3
    assert error_share([(0, 0), (9, 9)]) is None
    assert error_share([(0, 0)]) is None
    assert error_share([(100, 5), (120, 7)]) == 0.0
    assert error_share([(100, 5), (120, 8)]) == 0.15
    assert worse(None, 0.2) == 0.2
    assert worse(None, None) is None
