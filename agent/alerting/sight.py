"""What a rule does when it can't see: three ways of not seeing, each with a reason and a policy.

*No data*: the expression was evaluated and has no answer: nothing of that name, too little traffic, NaN. *Blind*: what
it reads is known, and whoever delivers it has fallen silent. *Error*: the evaluation failed, or took too long.

The policy is an annotation of the rule (``runbookd_no_data``, ``runbookd_blind``, ``runbookd_error``), so that the same
file loads in Prometheus, where it is one annotation more. The evaluator asks; nothing here keeps state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from agent.promql import Engine, Select
from agent.samples import Labels, Matcher, MatchOperator, Selection, SeriesStore, selector_text


class Unseen(StrEnum):
    """How a rule does not see; the value of the label ``sight`` of an alert about it."""

    NO_DATA = "no_data"
    BLIND = "blind"
    ERROR = "error"


class Policy(StrEnum):
    """What not seeing means to a rule."""

    KEEP = "keep"
    """Alerts keep their state, none begins and none ends."""
    OK = "ok"
    """It counts as seen and false: alerts end. Only for want of data: silence and failure are no all-clear."""
    ALERTING = "alerting"
    """Alerts keep their state, and an alert that says what can't be seen begins."""


ANNOTATIONS: Mapping[str, Unseen] = {f"runbookd_{unseen}": unseen for unseen in Unseen}
SIGHT_LABEL = "sight"
# The alerts about a rule that can't see, beside those about what it sees: no series has a label without a name.
SIGHTLESS: Mapping[Unseen, Labels] = {unseen: (("", str(unseen)),) for unseen in Unseen}
_CHOICES: Mapping[Unseen, tuple[Policy, ...]] = {
    Unseen.NO_DATA: (Policy.KEEP, Policy.OK, Policy.ALERTING),
    Unseen.BLIND: (Policy.KEEP, Policy.ALERTING),
    Unseen.ERROR: (Policy.KEEP, Policy.ALERTING),
}


@dataclass(frozen=True, kw_only=True)
class Policies:
    """A rule's three policies."""

    no_data: Policy = Policy.KEEP
    blind: Policy = Policy.KEEP
    error: Policy = Policy.KEEP

    def of(self, unseen: Unseen) -> Policy:
        return {Unseen.NO_DATA: self.no_data, Unseen.BLIND: self.blind, Unseen.ERROR: self.error}[unseen]


KEEP_STATE = Policies()


def policies_of(annotations: Mapping[str, str]) -> Policies:
    """The policies among a rule's annotations.

    Raises:
        ValueError: a value that is no policy for that way of not seeing.
    """
    found = {}
    for name, unseen in ANNOTATIONS.items():
        text = annotations.get(name, Policy.KEEP)
        if text not in _CHOICES[unseen]:
            why = "; what can't be seen is not well" if text == Policy.OK else ""
            raise ValueError(f"{name} is one of {', '.join(_CHOICES[unseen])}, not {text!r}{why}")
        found[str(unseen)] = Policy(text)
    return Policies(**found)


@dataclass(frozen=True, kw_only=True)
class Lack:
    """Why a rule did not see.

    Args:
        reason: in words, without a full stop.
    """

    unseen: Unseen
    reason: str

    @property
    def mark(self) -> str:
        """What :attr:`agent.alerting.Alert.blind` says: ``no_data: ...``, ``blind: ...``, ``error: ...``."""
        return f"{self.unseen}: {self.reason}"


def lack_of(
    selectors: Iterable[Select],
    engine: Engine,
    at: float,
    *,
    element: Labels = (),
    undefined: bool = False,
) -> Lack:
    """Why an expression that reads ``selectors`` had no answer at ``at`` (unix seconds).

    Args:
        element: the alert that has no answer while others of its rule may have; of all the rule's, if left out.
        undefined: there was a result, and it was NaN.
    """
    absent = ""
    for select in selectors:
        whole = engine.selected(select.matchers).selection
        if not whole.labels:
            absent = absent or f"no series match {selector_text(select.matchers)}"
            continue
        own = _narrowed(engine.store, select, element) if element else whole
        moments = [engine.store.silent_since(part.source.name, at, engine.lookback / 1000) for part in own.parts]
        silent = [moment for moment in moments if moment is not None]
        if silent and len(silent) == len(moments):
            since = datetime.fromtimestamp(max(silent), UTC)
            return Lack(
                unseen=Unseen.BLIND,
                reason=f"nothing has delivered {selector_text(select.matchers)} since {since:%H:%M:%S} UTC",
            )
    if absent:
        return Lack(unseen=Unseen.NO_DATA, reason=absent)
    if undefined:
        return Lack(unseen=Unseen.NO_DATA, reason="the result is NaN")
    return Lack(unseen=Unseen.NO_DATA, reason="the expression has no result")


def _narrowed(store: SeriesStore, select: Select, element: Labels) -> Selection:
    """The series behind one alert, as far as their labels tell."""
    equal = (Matcher(MatchOperator.EQUAL, name, value) for name, value in element)
    return store.select((*select.matchers, *equal))
