"""Hypothesis strategies for whatever a document can hold."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from agent.firestore import GeoPoint, Opaque, Reference, Timestamp, Vector

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
KEYS = st.text(min_size=1, max_size=8)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    FLOATS,
    st.text(max_size=20),
    st.binary(max_size=20),
    st.builds(Timestamp, st.integers(-62_135_596_800, 253_402_300_799).map(lambda seconds: seconds * 10**9 + 123)),
    st.builds(GeoPoint, st.floats(-90, 90), st.floats(-180, 180)),
    st.builds(Reference, st.just("projects/p/databases/(default)/documents/a/b")),
    st.builds(Vector, st.lists(FLOATS, max_size=5).map(tuple)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
FIELDS = st.dictionaries(KEYS, VALUES, max_size=6)

OPAQUE = Opaque(bytes.fromhex("c23e03616263"))
"""Field 1000 of a value, length-delimited: no such kind exists today."""
