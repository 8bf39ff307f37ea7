"""alerting: rule files in Prometheus's format, the alert state machine, and the evaluation of rule groups.

Belongs here: loading and checking rules, templates of labels and annotations, states and their persistence, rule
scripts (promtool's unit-test format), what people said of alerts (silences, acknowledgements). Does not belong here:
the query language (``promql``), who is told of an alert (``notifications``), what is done about it (``decisions``).
"""

from agent.alerting.alert import Alert, AlertState
from agent.alerting.durations import parse_duration
from agent.alerting.evaluator import RuleEvaluator
from agent.alerting.exemplars import Exemplars, StoredExemplars, no_exemplars
from agent.alerting.files import load_rules
from agent.alerting.rules import AlertRule, RecordingRule, Rule, RuleGroup, RuleSet
from agent.alerting.sight import Lack, Policies, Unseen
from agent.alerting.sight import Policy as SightPolicy
from agent.alerting.silences import Acknowledgement, Silence, SilenceBook, parse_matcher
from agent.alerting.states import Observation, Patience, Reason, Sight, Timer, Transition, transition
from agent.alerting.status import GroupStatus, Health, RuleStatus, TickResult

__all__ = [
    "Acknowledgement",
    "Alert",
    "AlertRule",
    "AlertState",
    "Exemplars",
    "GroupStatus",
    "Health",
    "Lack",
    "Observation",
    "Patience",
    "Policies",
    "Reason",
    "RecordingRule",
    "Rule",
    "RuleEvaluator",
    "RuleGroup",
    "RuleSet",
    "RuleStatus",
    "Sight",
    "SightPolicy",
    "Silence",
    "SilenceBook",
    "StoredExemplars",
    "TickResult",
    "Timer",
    "Transition",
    "Unseen",
    "load_rules",
    "no_exemplars",
    "parse_duration",
    "parse_matcher",
    "transition",
]
