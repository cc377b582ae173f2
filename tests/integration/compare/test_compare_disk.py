"""`gapbridge compare` with a bound on disk, and with the gap after the same completions for all variants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import tiny_llama
from helpers import recipe, refused, write_rows

from gapbridge import cli
from gapbridge.tasks.word_problems import problems


pytestmark = [pytest.mark.slow, pytest.mark.nightly]  # three runs and seven measurements


def test_models_are_deleted_when_no_variant_needs_them(
    tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the gap after the same completions, which the start model generates once."""
    tiny_llama(len(tokenizer), max_position_embeddings=256).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = write_rows(tmp_path / "test.jsonl", [p.row() for p in problems("test", count=3, steps=(1,))])
    held_out = [{"path": "json", "data_files": rows}]
    own = recipe(tmp_path, eval_datasets=held_out, model_name_or_path=str(tmp_path / "model"))[1]
    settings: dict[str, Any] = {
        "name": "small", "recipe": own, "seeds": [1], "overrides": {"max_steps": 1},
        "start": {"method": "sft"}, "variants": {"bash": {"method": "bash"}},
        "evaluation": {
            "task": "summarization", "temperatures": [0], "max_examples": 3, "max_completion_length": 6,
            "prefix_lengths": [2],
            "same_completions": True,
        },
    }  # fmt: skip
    path, output = tmp_path / "small.yaml", tmp_path / "deleted"
    path.write_text(yaml.safe_dump(settings))
    words = ["compare", "--experiment_config", str(path), "--output_dir", str(output), "--delete_models"]
    cli.run(words)
    cells = json.loads((output / "compare.json").read_text())["cells"]
    figures = {cell["variant"]: cell["figures"] for cell in cells}
    assert list(figures) == ["start", "sft", "bash"]
    loss = "losses.overall.temperature_1.after_generated"
    assert figures["start"][loss] == figures["start"][f"same_completions.{loss}"]
    assert not any("by_prefix_length" in name for name in figures["bash"])
    runs = [output / "seed_1" / name for name in figures]
    assert not [file for run in runs for file in run.rglob("*.safetensors")] and (runs[2] / "report.md").exists()
    assert not list(output.rglob("checkpoint-*"))
    stores = [json.loads(file.read_text()) for file in (runs[2] / "same_completions").rglob("manifest.json")]
    assert len(stores) == 1, "the completions of the start model are copied"
    before = (output / "seed_1" / "_results" / "bash.json").stat().st_mtime_ns
    cli.run(words)
    assert (output / "seed_1" / "_results" / "bash.json").stat().st_mtime_ns == before
    settings["variants"] = {"late": {"method": "bash"}}
    path.write_text(yaml.safe_dump(settings))
    said = refused(capsys, *words)
    assert "seed_1/start, model: got a deleted model, expected the one that variant late starts from" in said
