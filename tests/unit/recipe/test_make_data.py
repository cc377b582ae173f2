"""`recipes/smollm2-135m/make_data.py`: published rows → folders that the recipes read."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import write_rows

from gapbridge.runs.load_inputs import load_examples
from gapbridge.runs.run_config import read_job


SCRIPT = ROOT / "recipes" / "smollm2-135m" / "make_data.py"
PROBLEM = {"question": "How many?", "answer": "2+2 = <<2+2=4>>4\nand 1 is 5\n#### 5"}
PAPERS = [
    {"paper_id": "p0", "source": ["We look.", "We find."], "target": ["A find.", "Another."]},
    {"id": "p1", "abstract": "We try.", "summaries": ["A try."]},
]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for split in ("train", "test"):
        for name, rows in (("math", [PROBLEM]), ("papers", PAPERS)):
            (tmp_path / name).mkdir(exist_ok=True)
            write_rows(tmp_path / name / f"{split}.jsonl", rows)
    places = ["--gsm8k", str(tmp_path / "math"), "--scitldr", str(tmp_path / "papers"), "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *places])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return tmp_path


def test_rows(data: Path) -> None:
    (first,) = map(json.loads, (data / "gsm8k-answer-first" / "train.jsonl").read_text().splitlines())
    assert first["completion"] == "#### 5\n2+2 = <<2+2=4>>4\nand 1 is 5" and first["prompt"] == "How many?"
    summaries = [json.loads(line) for line in (data / "scitldr" / "test.jsonl").read_text().splitlines()]
    assert [row["completion"] for row in summaries] == ["A find.", "A try."], "the authors' own, which stands first"
    assert [row["id"] for row in summaries] == ["p0", "p1"]
    assert summaries[0]["prompt"].endswith("\n\nWe look. We find.")
    with pytest.raises(SystemExit, match="no line '#### RESULT'"):
        runpy.run_path(str(SCRIPT))["put_answer_first"]("no result")


@pytest.mark.parametrize("task", ["gsm8k", "gsm8k-answer-first", "scitldr"])
def test_recipes_read_the_folders_by_one_option(
    data: Path, task: str, tokenizer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"recipes/smollm2-135m/{task}/sft/config_full.yaml"
    job = read_job(["--config", path, "--dataset_name", str(data / task), "--max_length", "4096"])
    examples = load_examples(job, tokenizer, None)  # type: ignore[arg-type]
    assert len(examples["train"]) == len(examples["eval"]) == (2 if task == "scitldr" else 1)
