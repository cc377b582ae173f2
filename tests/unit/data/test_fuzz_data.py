"""Data files that hold any JSON: what comes of them is rows, listed bad rows, or a named error.

Nightly, since each file is read as a run reads it: about 0.1 s of CPU each.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers import load_data
from helpers.templates import tokenizer_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trl import ScriptArguments

from gapbridge import build_examples
from gapbridge.data.json_files import unreadable_lines
from gapbridge.data.preferences import build_preferences
from gapbridge.data.sources import DataConfig
from gapbridge.errors import GapbridgeError


STAND_INS = {"5,000 digits": "1" * 5000, "deep": "[" * 3000 + "]" * 3000}  # hypothesis could not show these
TEXT = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", " ", "a", "\ud800", "\udfffx", "<|im_end|>\n", "\x00", "\u2028", "user", "[", "null", "{}"]),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 300), st.floats(width=32), TEXT, st.sampled_from([-(10**30), *STAND_INS])
)
KEYS = ("role", "content", "from", "value", "name", "weight", "train", "tool_calls", "function", "arguments",
        "reasoning_content", "tools", "x")  # fmt: skip
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.sampled_from(KEYS), TEXT), inner, max_size=4)
    ),
    max_leaves=12,
)
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt"])
TURNS = st.lists(
    st.one_of(
        ANYTHING,
        st.fixed_dictionaries({"role": ROLES, "content": TEXT}, optional=dict.fromkeys(KEYS[4:], ANYTHING)),
        st.fixed_dictionaries({"from": ROLES, "value": TEXT}),
    ),
    max_size=4,
)
COLUMNS = ("messages", "conversations", "prompt", "completion", "chosen", "rejected", "text", "tools", "id",
           "chat_template_kwargs", "input_ids", "labels", "completion_mask", "assistant_masks")  # fmt: skip
IDS = st.lists(st.integers(-101, 60), max_size=5)
ROWS = st.lists(
    st.one_of(
        ANYTHING,
        st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, st.one_of(TURNS, TEXT, ANYTHING, IDS))),
        st.fixed_dictionaries({"messages": TURNS}, optional=dict.fromkeys(COLUMNS[7:10], ANYTHING)),
        st.fixed_dictionaries({"prompt": TURNS, "completion": TURNS}),
        st.fixed_dictionaries({"prompt": TEXT, "completion": TEXT}, optional={"id": ANYTHING}),
        st.fixed_dictionaries({"chosen": TURNS, "rejected": TURNS}, optional={"prompt": st.one_of(TEXT, TURNS)}),
        st.fixed_dictionaries({"input_ids": IDS, "labels": IDS}),
    ),
    min_size=1,
    max_size=3,
)


def outcome(rows: list[Any], folder: Path, **keys: Any) -> str:
    path = folder / f"{len(list(folder.iterdir()))}.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for name, value in STAND_INS.items():
        text = text.replace(f'"{name}"', value)
    path.write_text(text, encoding="utf-8")
    return outcome_of(path, **keys)


def outcome_of(path: Path, on_invalid_example: str = "skip", **keys: Any) -> str:
    tokenizer, stops = tokenizer_of("qwen3")
    config = DataConfig(datasets=[{"path": "json", "data_files": str(path)}], **keys)
    try:
        data = load_data(config, ScriptArguments(dataset_name=None), needs_eval=False).train
        build = build_preferences if "chosen" in data.column_names else build_examples
        examples = build(
            data, tokenizer, stops=stops, max_length=64, on_invalid_example=on_invalid_example, source=str(path)
        )
        assert [example.reference_row() for example in examples]
    except GapbridgeError as error:
        assert str(error).encode() and str(path) in str(error)
        return str(error)
    return "rows"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


FILES = {
    "null row": ('{"prompt": "a", "completion": "b"}\nnull\n', "line 2: got null"),
    "null alone": ("\nnull\n", "line 2: got null"),
    "deep": (
        '{"prompt": "a", "completion": "b", "x": ' + "[" * 3000 + "]" * 3000 + "}\n", "line 1: .*deeper than 200",
    ),
    "half a surrogate": ('{"prompt": "a\\ud800", "completion": "b"}\n', "cannot be loaded.*surrogate"),
    "turn that is no mapping": ('{"messages": [[1, "user"]]}\n', "turn 0: got no role, expected a role"),
    "turns that are numbers": ('{"messages": 5}\n', "messages: got int"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_files_that_no_row_can_be_read_from_are_named(kind: str, cache: Path) -> None:
    """A null or deep nesting would end the process itself."""
    content, reason = FILES[kind]
    path = cache / "rows.jsonl"
    path.write_text(content)
    for system in (None, "Be brief."):
        if system is None or "messages" in content:
            assert re.search(reason, outcome_of(path, "raise", system_prompt=system)), kind


def test_brackets_in_texts_are_no_nesting(cache: Path) -> None:
    row = {"prompt": "[" * 500, "completion": '{"[\\"' * 100, "x": [[i] for i in range(300)]}
    assert outcome([row], cache) != "" and unreadable_lines([str(cache / "*.jsonl")]) == []
    (cache / "pretty.json").write_text(json.dumps([{"a": [None, [None]]}], indent=1))
    assert unreadable_lines([str(cache / "pretty.json"), "https://host/rows.jsonl"]) == []


@pytest.mark.nightly
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows=ROWS, system=st.sampled_from([None, "Be brief."]), convert_to_chat=st.booleans())
def test_any_json_becomes_rows_or_a_named_error(
    cache: Path, rows: Any, system: str | None, convert_to_chat: bool
) -> None:
    outcome(rows, cache, system_prompt=system, convert_to_chat=convert_to_chat)
