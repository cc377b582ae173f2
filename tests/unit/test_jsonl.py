"""JSON lines: where a line ends, and what no line may hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gapbridge.jsonl import parse_json, read_json_lines


SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"  # where str.splitlines() breaks a line, and JSON lines do not


def test_lines_end_at_the_line_feed_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"a{sign}b"} for sign in SEPARATORS]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    for end in ("\n", "\r\n"):
        for last in (end, ""):
            path.write_bytes((end.join(lines) + last).encode())
            assert list(read_json_lines(path)) == list(enumerate(rows, start=1))
    path.write_bytes(b"\n  \n1\n\r\n2")
    assert list(read_json_lines(path)) == [(3, 1), (5, 2)]
    path.write_bytes(b"")
    assert list(read_json_lines(path)) == []


def test_a_bad_line_is_told_beside_the_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf1\n2\n\xff\n4\n{")
    found = list(read_json_lines(path))
    assert [number for number, _ in found] == [1, 2, 3, 4, 5]
    assert [isinstance(value, ValueError) for _, value in found] == [True, False, True, False, True]


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000 + "]" * 100_000, "[" * 101 + "]" * 101, '{"a":' * 5_000 + "1" + "}" * 5_000, "9" * 5_000,
     "NaN", "[-Infinity]", "1e999", r'"\ud800"', r'{"\udc00": 1}', r'[["\udc00\ud800"]]', "{", ""],
)  # fmt: skip
def test_what_cannot_be_read_or_written_again_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_what_is_read() -> None:
    assert parse_json(r'"\ud83d\ude00"') == "😀" and parse_json(r'"\\ud800"') == r"\ud800"
    assert parse_json("[" * 100 + "]" * 100) and parse_json("1e300") == 1e300
    assert parse_json("[NaN]", finite=False)[0] != 0
