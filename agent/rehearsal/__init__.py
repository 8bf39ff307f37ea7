"""rehearsal: rules, notices, decisions and recoveries played through on a manual clock.

Belongs here: the stage (the daemon's judging half on a folder of its own, which may be killed and started again), the
world outside as a script dictates it, journeys (rule scripts that go on to notices, decisions and recoveries) and
backtests (what would have paged and been rolled back in a recorded history). Does not belong here: any judgement; that
is the daemon's own code, and the reason for this room is that it runs unchanged.
"""

from agent.rehearsal.backtests import Backtest, Migration, backtest
from agent.rehearsal.journeys import is_journey, run_journey, thresholds_of

__all__ = ["Backtest", "Migration", "backtest", "is_journey", "run_journey", "thresholds_of"]
