"""Binary operators: arithmetic, comparisons and sets, between scalars and vectors.

Which elements meet depends on label sets alone, so pairs are found once for two tables and kept. Whether two
elements that must not meet do so is decided step by step, by who is present: a series that ended and its successor
may share a match group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agent.faults import Permanent
from agent.promql.expressions import Binary, Cardinality, Comparison, Matching
from agent.promql.tables import (
    Block,
    Bools,
    Floats,
    Indices,
    Merge,
    SeriesTable,
    apply,
    drop_name,
    empty,
    failed,
    merge_by,
    without_name,
)
from agent.samples import METRIC_NAME, Labels, describe

Operation = Callable[[Floats, Floats], Floats]

_ARITHMETIC: dict[str, Operation] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.float_power,  # np.power takes a square root for an exponent of 0.5, and has NaN for (-Inf)^0.5
    "atan2": np.arctan2,
}
_COMPARISONS: dict[str, Callable[[Floats, Floats], Bools]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def operate(node: Binary, left: Floats, right: Floats) -> tuple[Floats, Bools | None]:
    """The operator on numbers: the results, and for a filter where it holds (the value is then the left one)."""
    with np.errstate(all="ignore"):
        if node.comparison is None:
            return _ARITHMETIC[node.operator](left, right), None
        if node.comparison is Comparison.WITNESS:
            return left, ~(np.isnan(left) | np.isnan(right))
        holds = _COMPARISONS[node.operator](left, right)
    if node.comparison is Comparison.BOOL:
        return holds.astype(np.float64), None
    return left, holds


def with_scalar(node: Binary, vector: Block, scalar: Floats, *, scalar_on_left: bool) -> Block:
    """A vector and a scalar; a filter keeps the vector's own value and name."""
    left, right = (scalar, vector.values) if scalar_on_left else (vector.values, scalar)
    values, holds = operate(node, left, right)
    if holds is None:
        return without_name(Block(vector.table, values, vector.present))
    return Block(vector.table, vector.values, vector.present & holds)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """All pairs of rows with the same signature.

    Args:
        many, one: rows of the two sides, pair by pair.
        group: the signature's number, pair by pair.
        one_groups: the signature's number, row by row of the one side.
        alone: no signature has two rows on the one side.
        single: no signature has two pairs.
        merge: from pairs to rows of the result.
    """

    many: Indices
    one: Indices
    group: Indices
    one_groups: Indices
    alone: bool
    single: bool
    merge: Merge


def between_vectors(node: Binary, left: Block, right: Block) -> Block:
    """Arithmetic or comparison of two vectors.

    Raises:
        Permanent: elements match that must not, as Prometheus says.
    """
    matching = node.matching
    assert matching is not None
    swapped = matching.cardinality is Cardinality.ONE_TO_MANY
    many, one = (right, left) if swapped else (left, right)
    nameless = node.comparison in (None, Comparison.BOOL)
    pairs = many.table.derive(
        ("pairs", matching, nameless, _Identity(one.table)), lambda: _pair(many.table, one.table, matching, nameless)
    )
    if not pairs.alone:
        _refuse_crowded_side(pairs, many, one, matching, swapped=swapped)
    if not len(pairs.many):
        return empty(left.values.shape[1])
    present = many.present[pairs.many] & one.present[pairs.one]
    many_values, one_values = many.values[pairs.many], one.values[pairs.one]
    first, second = (one_values, many_values) if swapped else (many_values, one_values)
    values, holds = operate(node, first, second)
    if holds is not None:
        present = present & holds
    if matching.cardinality is Cardinality.ONE_TO_ONE and not pairs.single and _crowded(pairs.group, present) >= 0:
        raise failed(
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
            "add group_left or group_right, or aggregate the side that has several",
        )
    return apply(pairs.merge, values, present, _ambiguous)


def _pair(many: SeriesTable, one: SeriesTable, matching: Matching, nameless: bool) -> _Pairs:
    signature = _signature(matching)
    by_signature: dict[Labels, list[int]] = {}
    for row, labels in enumerate(one.labels):
        by_signature.setdefault(signature(labels), []).append(row)
    numbers = {key: number for number, key in enumerate(by_signature)}
    found: list[tuple[int, int, int]] = []
    for row, labels in enumerate(many.labels):
        key = signature(labels)
        found.extend((row, member, numbers[key]) for member in by_signature.get(key, ()))
    results = [_result_labels(many.labels[row], one.labels[member], matching, nameless) for row, member, _ in found]
    return _Pairs(
        many=np.array([row for row, _, _ in found], dtype=np.intp),
        one=np.array([member for _, member, _ in found], dtype=np.intp),
        group=np.array([number for _, _, number in found], dtype=np.intp),
        one_groups=np.array([numbers[signature(labels)] for labels in one.labels], dtype=np.intp),
        alone=len(by_signature) == len(one),
        single=len({number for _, _, number in found}) == len(found),
        merge=merge_by(results),
    )


def _signature(matching: Matching) -> Callable[[Labels], Labels]:
    chosen = frozenset(matching.labels)
    if matching.on:
        return lambda labels: tuple(pair for pair in labels if pair[0] in chosen)
    return lambda labels: tuple(pair for pair in labels if pair[0] not in chosen and pair[0] != METRIC_NAME)


def _result_labels(many: Labels, one: Labels, matching: Matching, nameless: bool) -> Labels:
    labels = drop_name(many) if nameless else many
    if matching.cardinality is Cardinality.ONE_TO_ONE:
        chosen = frozenset(matching.labels)
        labels = tuple(pair for pair in labels if (pair[0] in chosen) is matching.on)
    if not matching.include:
        return labels
    values = dict(one)
    changed = {**dict(labels), **{name: values.get(name, "") for name in matching.include}}
    return tuple(sorted(pair for pair in changed.items() if pair[1]))


def _refuse_crowded_side(pairs: _Pairs, many: Block, one: Block, matching: Matching, *, swapped: bool) -> None:
    crowded = _crowded(pairs.one_groups, one.present & many.present.any(axis=0))
    if crowded < 0:
        return
    members = np.flatnonzero(pairs.one_groups == crowded)
    key = _signature(matching)(one.table.labels[members[0]])
    side = "left" if swapped else "right"
    raise failed(
        f"found duplicate series for the match group {describe(key)} on the {side} hand-side of the operation: "
        f"[{one.table.pick(int(members[0]))}, {one.table.pick(int(members[1]))}]; many-to-many matching not allowed: "
        "matching labels must be unique on one side",
        "match on more labels, or aggregate that side",
    )


def _crowded(groups: Indices, present: Bools) -> int:
    """A group with two present rows at one step, or -1."""
    if not len(groups):
        return -1
    count = np.zeros((int(groups.max()) + 1, present.shape[1]), dtype=np.intp)
    np.add.at(count, groups, present)
    found = np.flatnonzero((count > 1).any(axis=1))
    return int(found[0]) if len(found) else -1


def _ambiguous(table: SeriesTable, row: int) -> Permanent:
    return failed(
        f"multiple matches for labels: grouping labels must ensure unique matches: {table.pick(row)}",
        "match on more labels",
    )


@dataclass(frozen=True, slots=True)
class _Shared:
    """Signature numbers of two tables' rows, counted together, and the table of ``or``."""

    left: Indices
    right: Indices
    count: int
    union: Merge


def of_sets(node: Binary, left: Block, right: Block) -> Block:
    """``and``, ``or`` and ``unless``."""
    matching = node.matching
    assert matching is not None
    shared = left.table.derive(
        ("sets", matching, _Identity(right.table)), lambda: _share(left.table, right.table, matching)
    )
    steps = left.values.shape[1]
    if node.operator == "or":
        taken = _any_by_group(shared.left, left.present, shared.count, steps)
        free = right.present & ~taken[shared.right]
        values = np.concatenate([left.values, right.values])
        return apply(shared.union, values, np.concatenate([left.present, free]), _ambiguous)
    other = _any_by_group(shared.right, right.present, shared.count, steps)[shared.left]
    return Block(left.table, left.values, left.present & (other if node.operator == "and" else ~other))


def _share(left: SeriesTable, right: SeriesTable, matching: Matching) -> _Shared:
    signature = _signature(matching)
    numbers: dict[Labels, int] = {}
    left_groups = [numbers.setdefault(signature(labels), len(numbers)) for labels in left.labels]
    right_groups = [numbers.setdefault(signature(labels), len(numbers)) for labels in right.labels]
    return _Shared(
        np.array(left_groups, dtype=np.intp),
        np.array(right_groups, dtype=np.intp),
        len(numbers),
        merge_by([*left.labels, *right.labels]),
    )


def _any_by_group(groups: Indices, present: Bools, count: int, steps: int) -> Bools:
    found = np.zeros((count, steps), dtype=np.bool_)
    np.logical_or.at(found, groups, present)
    return found


class _Identity:
    """A table as part of a key: equal to itself alone, and kept alive by the key."""

    __slots__ = ("_table",)

    def __init__(self, table: SeriesTable) -> None:
        self._table = table

    def __hash__(self) -> int:
        return id(self._table)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other._table is self._table
