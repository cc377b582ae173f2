"""Whatever an answers file, a label or a judge's server holds: it is graded, or refused by an error of ours."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import evaluate
from helpers.judge_server import Reply, endpoint, serving, some_pairs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gapbridge.errors import GapbridgeError
from gapbridge.evaluation.answer_extraction import bare_answer, marked_answer
from gapbridge.evaluation.asserted_text import asserted, own_parts
from gapbridge.evaluation.grading import _CURRENCY
from gapbridge.evaluation.judge.prompt_templates import read_verdict
from gapbridge.evaluation.judge.winrate import judge_pairs
from gapbridge.evaluation.math import decided_without_parser, same_answer
from gapbridge.generation.completion_files import read_answers


pytestmark = pytest.mark.nightly  # thousands of files: minutes

BOUNDED = settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))

PIECES = st.sampled_from(
    ["<think>", "</think>", "#### ", r"\boxed{", "}", "{", "$", "$1 ", "72", "7,2", "1/0", " or ", " to ",
     "not ", "n't ",
     "between ", "The answer is ", "A: ", "Question: ", "User: ", "Assistant: ", "\nuser\n", "<|im_end|>",
     "<|im_start|>",
     "analysis", "assistantfinal", "<|channel|>", "?", ".", "\n", "\u2028", "\x85", "\x1b[2J", "\x00", "猫", "é",
     "e\u0301",
     r"\frac", r"\text{", "^", "_", "=", "(", ")", "than ", "if ", "½", "²", "٣", "\ud800", "\U0001f600", " "]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)
SAFE = TEXTS.map(lambda text: text.encode(errors="replace").decode())
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**20), True, 2, 0.5])
VALUES = st.recursive(
    st.none() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
ROWS = st.dictionaries(st.sampled_from(["id", "prompt", "reference", "answer", "mark"]), TEXTS | VALUES)
GOOD = st.fixed_dictionaries({"reference": TEXTS, "answer": TEXTS}, optional={"id": TEXTS | NUMBERS, "prompt": VALUES})
LINES = (
    st.builds(lambda row, plain: json.dumps(row, ensure_ascii=plain), ROWS | GOOD | VALUES, st.booleans())
    | st.text(max_size=20)
    | st.sampled_from(
        ["[" * 9999, '{"a":' * 3000 + "1" + "}" * 3000, "9" * 5000, "\ufeff{}", "NaN", "1e999", '{"id": 1']
    )
)
FILES = st.lists(LINES, max_size=4).map(lambda lines: "\n".join(lines).encode(errors="surrogatepass"))


@BOUNDED
@given(content=FILES | st.binary(max_size=30))
def test_answers_files(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "completions.jsonl"
        path.write_bytes(content)
        try:
            samples = read_answers(path)
        except GapbridgeError as error:
            assert all(len(message) < 2000 for message in error.errors)
        else:
            json.dumps(samples, ensure_ascii=False).encode()
            assert len({str(sample["id"]) for sample in samples}) == len(samples)


@settings(BOUNDED, max_examples=25)
@given(
    rows=st.lists(GOOD, min_size=1, max_size=3), task=st.sampled_from(["summarization", "copying", "sums", "listing"])
)
def test_evaluations(rows: list[dict[str, Any]], task: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "completions.jsonl"
        path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
        try:
            record = evaluate(task, completions_file=[path], output_dir=Path(folder) / "out")
        except GapbridgeError:
            return
        assert json.loads(record.read_text(encoding="utf-8"))["results"][0]["count"] == len(rows)


@BOUNDED
@given(text=SAFE, other=SAFE, times=st.integers(1, 2000))
def test_grading_ends(text: str, other: str, times: int) -> None:
    text *= times
    start = time.perf_counter()
    parts = own_parts(text)
    asserted("".join(parts[:1])[-20_000:])
    _CURRENCY.sub("", text)
    answer = marked_answer(text) or bare_answer(text) or text
    for pair in ((answer, other), (other, answer)):
        same_answer(*pair)
        decided_without_parser(*pair)
    assert time.perf_counter() - start < 10


@BOUNDED
@given(reply=SAFE, marker=st.sampled_from(["Preferred:", "Verdict:", "verdict :", "**Verdict**:", ""]))
def test_verdicts(reply: str, marker: str) -> None:
    assert read_verdict(f"{reply}{marker}{reply}") in (None, "A", "B", "tie")


@settings(BOUNDED, max_examples=60)
@given(
    status=st.sampled_from([200, 204, 301, 400, 401, 422, 429, 500]),
    body=SAFE | VALUES.map(json.dumps),
    wait=st.sampled_from(["", "0", "-1", "nan", "inf", "1e999", "x", "Mon, 99 Foo 1 0:0:0 GMT"]),
)
def test_servers(status: int, body: str, wait: str) -> None:
    with pytest.MonkeyPatch.context() as patch, serving(patch) as serve, tempfile.TemporaryDirectory() as folder:
        headers = {"Retry-After": wait} if wait else {}
        server = serve(lambda prompt, attempt: Reply(status=status, body=body, headers=headers))
        try:
            judge_pairs(some_pairs(1), endpoint(server, max_retries=0), cache=Path(folder))
        except GapbridgeError:
            pass
