"""Damaged encodings: mended or stripped, line numbers kept, never a crash."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.runbook.encoding import decode_page


def _damaged(text: str) -> bytes:
    """``text`` as it comes out when its UTF-8 is taken for Windows-1252 and saved once more."""
    return "".join(
        bytes([byte]).decode("cp1252") if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(byte)
        for byte in text.encode()
    ).encode()


def test_a_tick_read_as_three_letters_is_a_tick_again() -> None:
    """The seed's usual damage is mended and its lines are known."""
    page = decode_page(b"plain\n" + _damaged("\u2705 ready") + b"\nplain")
    assert page.text == "plain\n\u2705 ready\nplain"
    assert page.repaired_lines == (2,)


def test_the_seed_comes_out_without_damage(seed_bytes: bytes) -> None:
    """Of the seed's odd characters, only pictures and box lines are left; no line moves."""
    page = decode_page(seed_bytes)
    assert {char for char in page.text if ord(char) > 0x7F} == set("\u2705\U0001f4ca\U0001f504\U0001f4be\U0001f4da├└─")
    assert page.text.count("\n") == seed_bytes.count(b"\n")
    assert len(page.repaired_lines) == 33


def test_healthy_text_is_left_alone() -> None:
    """Accents, arrows and emoji of a healthy page are nobody's damage."""
    text = "Größe über 5 µs → naïve façade 🔥 „quoted“"
    assert decode_page(text.encode()) == decode_page(b"\xef\xbb\xbf" + text.encode())
    assert decode_page(text.encode()).text == text
    assert decode_page(text.encode()).repaired_lines == ()


def test_a_line_that_is_not_utf8_is_taken_for_windows() -> None:
    """One line of another encoding doesn't spoil the page."""
    page = decode_page("ok ü\n".encode() + b"caf\xe9 \x93x\x94\r\nend")
    assert page.text == "ok ü\ncafé “x”\nend"
    assert page.repaired_lines == (2,)


def test_what_decoders_leave_behind_is_stripped() -> None:
    """Replacement marks and control characters mean nothing and go."""
    page = decode_page("a\ufffdb\x00c\u0081d".encode())
    assert page.text == "abcd"
    assert page.repaired_lines == (1,)


def test_utf16_is_read_too() -> None:
    """A page saved by Notepad as "Unicode" is a page."""
    assert decode_page("Größe\n2".encode("utf-16")).text == "Größe\n2"


@given(st.binary())
def test_no_bytes_crash_it(data: bytes) -> None:
    """Every file gives a text, whatever is in it."""
    page = decode_page(data)
    assert all(1 <= line <= page.text.count("\n") + 1 for line in page.repaired_lines)


@given(st.text(st.characters(min_codepoint=0x2500, max_codepoint=0x2BFF), min_size=1))
def test_every_symbol_survives_the_usual_damage(text: str) -> None:
    """Symbols that were damaged come back as they were."""
    assert decode_page(_damaged(text)).text == text
