"""From columns as they come to TRL's columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import load_data
from helpers.templates import assistant, user
from trl import ScriptArguments

from gapbridge import ConfigError
from gapbridge.data.sources import DataConfig


TURNS = [user("a"), assistant("b"), user("c"), assistant("d")]
SYSTEM = {"role": "system", "content": "Be brief."}


def load(rows: list[dict[str, Any]], folder: Path, **options: Any) -> list[dict[str, Any]]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = DataConfig(datasets=[{"path": "json", "data_files": str(file)}], **options)
    return list(load_data(config, ScriptArguments(dataset_name=None), needs_eval=False).train)


def test_ultrachats_columns_are_a_conversation(tmp_path: Path) -> None:
    (row,) = load([{"prompt": "a", "prompt_id": "7", "messages": TURNS}], tmp_path, id_column="prompt_id")
    assert row == {"id": "7", "messages": TURNS}
    assert load([{"prompt": "a", "completion": "b", "messages": TURNS}], tmp_path)[0]["completion"] == "b"


def test_a_system_prompt_goes_before_every_conversation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = {"role": "system", "content": "Be kind."}
    rows = load([{"messages": TURNS}, {"messages": [own, *TURNS]}], tmp_path, system_prompt="Be brief.")
    assert [row["messages"] for row in rows] == [[SYSTEM, *TURNS], [own, *TURNS]]
    assert "1 of 2 rows keep their system turn" in caplog.text
    (row,) = load([{"prompt": TURNS[:1], "completion": TURNS[1:2]}], tmp_path, system_prompt="Be brief.")
    assert row["prompt"] == [SYSTEM, TURNS[0]]
    (row,) = load([{"prompt": "a", "completion": "b"}], tmp_path, system_prompt="Be brief.", convert_to_chat=True)
    assert row == {"prompt": [SYSTEM, TURNS[0]], "completion": TURNS[1:2]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "completion": "b"}, "Set convert_to_chat"),
        ({"input_ids": [1], "labels": [1]}, "rows of token ids"),
    ],
)
def test_a_system_prompt_that_has_no_place_is_refused(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        load([row], tmp_path, system_prompt="Be brief.")
