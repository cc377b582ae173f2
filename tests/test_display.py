"""Text from data on a terminal."""

from __future__ import annotations

from gapbridge.display import printable


def test_control_characters_are_shown() -> None:
    kept = "a\tb\nß漢😀\xa0\u2028"
    assert printable(kept) == kept
    assert printable("\x1b]0;x\x1b\\\x07\r\x7f\x9b2J\ud800") == r"\x1b]0;x\x1b\\x07\x0d\x7f\x9b2J\ud800"
    controls = {chr(code) for code in (*range(32), *range(127, 160))} - {"\n", "\t"}
    assert not controls & set(printable("".join(map(chr, range(0x300)))))
