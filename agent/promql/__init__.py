"""promql: the query language, evaluated in the process over ``samples`` with Prometheus 3's semantics.

Belongs here: bounding and parsing text, the expression tree, the engine, what values look like. Does not belong
here: rules and alerts (``alerting``), HTTP (``api``), any metric's name. What the engine can't evaluate is refused
when an expression is compiled, never when it runs.
"""

from agent.promql.engine import Engine
from agent.promql.evaluation import Evaluation
from agent.promql.expressions import Kind, Node, Select
from agent.promql.plan import Plan, compile_expression
from agent.promql.remarks import Answer
from agent.promql.values import Element, Matrix, Scalar, Series, Text, Value, Vector, format_exponent, format_value

__all__ = [
    "Answer",
    "Element",
    "Engine",
    "Evaluation",
    "Kind",
    "Matrix",
    "Node",
    "Plan",
    "Scalar",
    "Select",
    "Series",
    "Text",
    "Value",
    "Vector",
    "compile_expression",
    "format_exponent",
    "format_value",
]
