"""Values read and written by hand are what protobuf reads and writes."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from agent.faults import Permanent
from agent.firestore import decode, encode
from agent.firestore.encoded import canonical_value, decode_value, encode_value
from agent.firestore.protobuf import delimited, read_varint, varint
from agent.firestore.protos import Value
from tests.firestore.field_values import OPAQUE, VALUES

_LONG = st.integers(0, 3).map(lambda more: "ä" * (60 + 2 * more)) | st.sampled_from(
    [127, 128, 16_383, 16_384, 70_000]
).map(lambda length: "x" * length)
_INTEGERS = st.integers(0, 63).flatmap(
    lambda bits: st.sampled_from([2**bits - 1, 2**bits - 2 if bits else 0, -(2**bits)])
)


@given(VALUES | _LONG | _INTEGERS)
@example(OPAQUE)
@example(-(2**63))
def test_values_are_written_as_protobuf_writes_them(value: Any) -> None:
    """Byte for byte, in canonical form, and read back as protobuf reads them."""
    message = encode(value)
    written = encode_value(value)
    assert written == message.SerializeToString(deterministic=True)
    assert repr(decode_value(written)) == repr(decode(message))
    assert canonical_value(written) == written


@given(
    st.binary(max_size=12)
    | st.tuples(
        st.sampled_from([b"\x8a\x01", b"\x8a", b"\x10", b"\x08", b"\x58", b"\x19"]), st.binary(max_size=10)
    ).map(b"".join)
)
@example(b"")
@example(b"\x10")
@example(b"\x10\x82\x00")  # 2, in a byte more than it needs
@example(b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")  # the lowest integer
@example(b"\x10\x81\x80\x80\x80\x80\x80\x80\x80\x80\x02")  # bits beyond the 64th
@example(b"\x10\x01\x10\x02")  # twice: the last one counts
@example(b"\x08\x02")  # true, said oddly
@example(b"\x8a\x01\x83\x00abc")
@example(b"\x8a\x01\x04abc")  # cut off
@example(b"\x8a\x01\x01\xff")  # not UTF-8
@example(b"\x8a\x01\x00")
@example(b"\x8a\x81\x00\x01a")  # the tag in a byte more
@example(b"\x8a\x01" + b"\x80\x01" + b"a" * 127)
@example(b"\x19" + bytes(8))
def test_whatever_comes_is_read_as_protobuf_reads_it(data: bytes) -> None:
    """Odd forms and nonsense included: the same value, the same canonical form, or the same refusal."""
    try:
        message = Value.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode_value(data)
        with pytest.raises(DecodeError):
            canonical_value(data)
        return
    assert repr(decode_value(data)) == repr(decode(message))
    assert canonical_value(data) == message.SerializeToString(deterministic=True)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, object(), {"a": {"b": 2**63}}])
def test_what_has_no_counterpart_is_refused(value: object) -> None:
    """As :func:`agent.firestore.encode` does."""
    with pytest.raises(Permanent):
        encode_value(value)


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_varints_come_back(number: int, before: bytes) -> None:
    """Wherever they stand."""
    data = before + varint(number) + b"\x7f"
    assert read_varint(data, len(before)) == (number, len(data) - 1)


@pytest.mark.parametrize("length", [0, 127, 128, 16_383, 16_384])
def test_length_delimited_fields_are_protobufs(length: int) -> None:
    """Lengths of one, two and three bytes."""
    assert delimited(b"\x92\x01", b"x" * length) == Value(bytes_value=b"x" * length).SerializeToString()
