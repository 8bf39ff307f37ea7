"""Text whose encoding was damaged on its way here, made whole again; lines keep their numbers.

The usual damage: UTF-8 was read as Windows-1252 and saved as UTF-8 once more, so that a tick of three bytes became
three characters (U+00E2 U+0153 U+2026). That is recognised by what it spells: characters that, put back into
Windows-1252 bytes, are valid UTF-8. The reader of pages calls :func:`decode_page`; it never fails on any bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Windows-1252 leaves five bytes undefined; programs pass them through as the control character of the same number.
_UNDEFINED = (0x81, 0x8D, 0x8F, 0x90, 0x9D)
_BYTE_OF = {bytes([byte]).decode("cp1252"): byte for byte in range(0x80, 0x100) if byte not in _UNDEFINED} | {
    chr(byte): byte for byte in range(0x80, 0xA0)
}
_RUN = re.compile(f"[{''.join(map(re.escape, _BYTE_OF))}]{{2,}}")
# Control characters, and the marks that decoders leave for what they could not read: nothing a page can mean.
_REFUSE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffc\ufffd]")


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page as text.

    Args:
        text: lines separated by ``\\n``, as many as the file has.
        repaired_lines: numbers (from 1) of the lines where something was mended or stripped.
    """

    text: str
    repaired_lines: tuple[int, ...]


def decode_page(data: bytes) -> Page:
    """Decode ``data``, mend what double encoding broke, strip what can't be mended. Never raises."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.decode("utf-16", errors="replace").encode("utf-8", errors="replace")
    lines = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    mended = [_mend_line(line) for line in lines]
    return Page(
        text="\n".join(text for text, _ in mended),
        repaired_lines=tuple(number for number, (_, repaired) in enumerate(mended, start=1) if repaired),
    )


def _mend_line(line: bytes) -> tuple[str, bool]:
    """One line as text, and whether it had to be mended."""
    try:
        written = line.decode("utf-8")
        whole = True
    except UnicodeDecodeError:
        # A line of another program's encoding; Latin letters are by far the likeliest thing in it.
        written = "".join(_CHARACTER[byte] for byte in line)
        whole = False
    text = _RUN.sub(lambda match: _respell(match[0]), written)
    text = _REFUSE.sub("", text)
    return text, not whole or text != written


_CHARACTER = [chr(byte) for byte in range(0x80)] + [
    chr(byte) if byte in _UNDEFINED else bytes([byte]).decode("cp1252") for byte in range(0x80, 0x100)
]


def _respell(run: str) -> str:
    """``run`` with every stretch that spells a UTF-8 sequence replaced by the character that it spells."""
    data = bytes(_BYTE_OF[character] for character in run)
    out: list[str] = []
    at = 0
    while at < len(data):
        length = _sequence_length(data[at])
        try:
            out.append(data[at : at + length].decode("utf-8"))
            at += length
        except UnicodeDecodeError:
            out.append(run[at])
            at += 1
    return "".join(out)


def _sequence_length(lead: int) -> int:
    """Bytes in the UTF-8 sequence that starts with ``lead``."""
    if lead >= 0xF0:
        return 4
    return 3 if lead >= 0xE0 else 2
