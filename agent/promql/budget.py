"""What one query may take of the process: samples and seconds.

The engine asks between the nodes of a plan and inside every loop whose length the data decides. A query that is over
its budget ends with an error of Prometheus's kind and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.faults import Refused, RefusedReason, Transient, TransientReason

MAX_CELLS = 50_000_000
"""Samples read and values computed by one query: Prometheus's own default for samples, some 450 MB."""


class Budget:
    """For one query at a time, in one thread.

    Args:
        timeout: seconds that a query may take.
        monotonic: seconds of a clock that never goes back.
        cells: samples and values that a query may hold.
        give_way: called as often as the budget is asked; may wait for somebody who is in more of a hurry.
    """

    def __init__(
        self,
        *,
        timeout: float,
        monotonic: Callable[[], float],
        cells: int = MAX_CELLS,
        give_way: Callable[[], None] | None = None,
    ) -> None:
        self._timeout = timeout
        self._monotonic = monotonic
        self._cells = cells
        self._give_way = give_way
        self.renew()

    def renew(self) -> None:
        """Begin another query."""
        self._spent = 0
        self._ends = self._monotonic() + self._timeout

    def spend(self, cells: int) -> None:
        """Take ``cells`` samples or values out of the budget.

        Raises:
            Refused: there are not as many left.
            Transient: as :meth:`check`.
        """
        self._spent += cells
        if self._spent > self._cells:
            raise Refused(
                RefusedReason.LIMIT,
                f"query processing would load too many samples into memory: more than {self._cells}",
                hint="select fewer series, a shorter range or a longer step",
            )
        self.check()

    def check(self) -> None:
        """Raises: Transient: the query's time is over."""
        if self._give_way is not None:
            self._give_way()
        if self._monotonic() > self._ends:
            raise Transient(
                TransientReason.DEADLINE_EXCEEDED,
                f"query timed out in expression evaluation after {self._timeout:g} s",
                hint="select fewer series, a shorter range or a longer step",
            )
