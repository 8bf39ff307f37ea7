"""Gathering what a plan rests on: from the database, from this machine's run records, and from other rooms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from agent.clock import Clock
from agent.firestore import CollectionGroup, RateLimit
from agent.migration.database import Database
from agent.migration.definition import Definition
from agent.migration.facts import Facts, History, Preconditions, RunbookPolicy, Sampled
from agent.migration.plan import Plan, in_order, make_plan
from agent.migration.revisions import read_revision
from agent.migration.runs import RunRecord, Runs
from agent.migration.sampling import Rates, probe, take_sample


class Survey:
    """What is known about migrations of one database.

    Args:
        rate_limit: documents/s at which runs are capped.
        ramp: how fast they create documents in new collections.
    """

    def __init__(
        self,
        *,
        database: Database,
        runs: Runs,
        rates: Rates,
        policy: RunbookPolicy,
        preconditions: Preconditions,
        rate_limit: float | None,
        ramp: RateLimit,
        clock: Clock,
    ) -> None:
        self._database = database
        self._runs = runs
        self._rates = rates
        self._policy = policy
        self._preconditions = preconditions
        self._rate_limit = rate_limit
        self._ramp = ramp
        self._clock = clock

    def plan(self, definition: Definition, *, again: bool, measure: bool, disarmed: str = "") -> Plan:
        """Ask everybody, then plan; see :meth:`agent.migration.facade.Migrations.plan`."""
        names = in_order(definition, tuple(self._policy.order))
        sample = take_sample(definition, self._database, names)
        undo_rate = self._rates.read("undo")
        if undo_rate is None and measure:
            undo_rate = probe(self._database, sample.bodies, self._clock)
        point = self._preconditions.restore_point
        counts = {name: self._database.count(CollectionGroup(id=name)) for name in names}
        facts = Facts(
            now=self._clock.now(),
            counts=counts,
            order=tuple(self._policy.order),
            priorities=self._policy.order,
            rate=self._rates.read("migration") or undo_rate,
            undo_rate=undo_rate,
            rate_limit=self._rate_limit,
            undo_budget=self._policy.undo_budget,
            restore_point=point() if point else None,
            restore_point_max_age=self._preconditions.max_age,
            maintenance=self._preconditions.maintenance(),
            history=self.history(definition.revision),
            sampled=sample.found,
            again=again,
            disarmed=disarmed,
            fresh=self._fresh(sample.found, counts),
            ramp=self._ramp,
        )
        return make_plan(definition, facts)

    def history(self, revision: str) -> History:
        """The database's word, corrected by this machine's record of the same or a later run (after ``kill -9``)."""
        known = read_revision(self._database, revision)
        latest = self.latest(revision)
        if latest is not None and (known is None or known.run == latest.id or latest.started > known.changed):
            return History(
                state=latest.state,
                run=latest.id,
                checksum=latest.checksum,
                alive=self._runs.alive(latest),
            )
        if known is None:
            return History()
        return History(state=known.state, run=known.run, checksum=known.checksum)

    def latest(self, revision: str) -> RunRecord | None:
        """This machine's newest run of the revision on this database."""
        root = self._database.address.root
        own = [r for r in self._runs.all() if r.revision == revision and r.database == root]
        return own[-1] if own else None

    def _fresh(self, tried: Sampled, counts: Mapping[str, int]) -> dict[str, float]:
        """Empty collections that the migration creates documents in, with how many the sample lets expect."""
        expected: Counter[str] = Counter()
        for source, targets in tried.creates.items():
            for target, found in targets.items():
                expected[target] += found * counts[source] / tried.seen[source]  # type: ignore[assignment]  # a share
        return {name: many for name, many in expected.items() if not self._database.count(CollectionGroup(id=name))}
