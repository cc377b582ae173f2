"""`gapbridge compare` as a user runs it, on a tiny model: killed and resumed, added to, refused, tried dry."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from conftest import tiny_llama
from helpers import gapbridge, kill_when, recipe, refused, write_rows

from gapbridge import cli
from gapbridge.tasks.word_problems import problems


pytestmark = pytest.mark.slow

ANSWERS = ["--max_examples", "6", "--max_completion_length", "6"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A directory with a recipe, a tiny model and a finished comparison of two variants and two seeds."""
    folder = tmp_path_factory.mktemp("compare")
    tiny_llama(len(tokenizer), max_position_embeddings=256).save_pretrained(folder / "init_model")
    tokenizer.save_pretrained(folder / "init_model")
    held_out = write_rows(folder / "test.jsonl", [p.row() for p in problems("test", count=6, steps=(1,))])
    changes = {"eval_datasets": [{"path": "json", "data_files": held_out}], "max_steps": None, "num_train_epochs": 1}
    recipe(folder, method="bash", model_name_or_path=str(folder / "init_model"), mixture_coefficient=0.5, **changes)
    cli.run(command(folder, folder / "whole"))
    return folder


def command(folder: Path, output: Path, *more: str) -> list[str]:
    words = ["compare", str(folder / "recipe.yaml"), "--methods", "bash", "--seeds", "1,2", *ANSWERS]
    return [*words, "--output_dir", str(output), *more]


def record(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "compare.json").read_text()))


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        times = ("environment", "training time (s)", "generation time (s)")
        return {key: without_times(entry) for key, entry in value.items() if key not in times}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


def test_a_comparison(place: Path) -> None:
    found = record(place / "whole")
    cells = {(cell["variant"], cell["seed"]): cell for cell in found["cells"]}
    assert set(cells) == {("sft", 1), ("sft", 2), ("bash", 1), ("bash", 2)}
    control, variant = cells["sft", 1], cells["bash", 1]
    assert control["ignored_keys"] == ["mixture_coefficient"] and variant["ignored_keys"] == []
    assert control["cost"]["steps"] == variant["cost"]["steps"] == 2 and variant["plan"]["budget"] == "steps"
    assert variant["plan"]["load"]["generated_tokens"] > 0 == control["plan"]["load"]["generated_tokens"]
    assert variant["cost"]["forward-token equivalents"] > control["cost"]["forward-token equivalents"]
    scores = [f"{name}, {how}" for how in ("greedy", "T = 1") for name in ("accuracy", "token_f1", "cer")]
    assert sorted(variant["scores"]["single_pass"]) == sorted(scores)
    assert all(len(values) == 6 for values in variant["scores"]["single_pass"].values())
    assert (
        found["settings"]["evaluation"]["task"] == "math" and found["settings"]["keys"]["mixture_coefficient"] == 0.5
    )
    text = (place / "whole" / "compare.md").read_text()
    assert found["conclusion"] in text and "| bash    |     2 |" in text
    assert (place / "whole" / "plots" / "accuracy-greedy.png").read_bytes().startswith(b"\x89PNG")
    html = (place / "whole" / "compare.html").read_text()
    assert found["conclusion"] in html and "plots/" not in html
    # A variant is an ordinary run, which its recipe runs again.
    run = json.loads((place / "whole" / "seed_1" / "bash" / "run.json").read_text())
    assert run["state"] == "complete" and run["settings"]["max_steps"] == 2 and run["settings"]["seed"] == 1


@pytest.mark.nightly  # a minute: variants resume as runs do
def test_killed_and_resumed_is_uninterrupted(place: Path) -> None:
    output = place / "killed"
    first = output / "seed_1" / "_results" / "sft.json"
    kill_when(first.exists, *command(place, output, "--num_parallel_seeds", "2"))
    assert not (output / "compare.json").exists()
    written = first.stat().st_mtime_ns
    cli.run(command(place, output))
    assert without_times(record(output)) == without_times(record(place / "whole"))
    assert first.stat().st_mtime_ns == written


def test_no_seed_starts_after_a_worker_was_killed(place: Path) -> None:
    """As the kernel kills what takes too much memory; the other worker is told to stop, and stops."""
    output = place / "died"
    words = [*command(place, output, "--num_parallel_seeds", "2"), "--seeds", "1,2,3", "--max_steps", "2000"]
    process = subprocess.Popen([sys.executable, "-m", "gapbridge", *words], stderr=subprocess.PIPE, text=True)
    both = [output / f"seed_{seed}" / "sft" / "run.json" for seed in (1, 2)]
    deadline = time.monotonic() + 120
    while not all(path.exists() for path in both):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    workers = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    said = process.communicate(timeout=120)[1]
    assert "worker: got the end of a process, expected a normal exit" in said and process.returncode == 2
    assert not (output / "seed_3").exists()


def test_other_settings_are_refused_and_arms_are_added(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = record(place / "whole")
    changes = ["--learning_rate", "1e-3", "--budget", "tokens"]
    said = refused(capsys, *command(place, place / "whole", *changes, "--max_examples", "5"))
    assert "experiment.json, keys, learning_rate: got None, expected 0.001. Restore the value, or choose" in said
    assert "budget: got 'steps', expected 'tokens'" in said
    assert "experiment.json, evaluation, max_examples: got 6, expected 5" in said and record(place / "whole") == before
    words = [word.replace("bash", "scheduled_sampling") for word in command(place, place / "whole")]
    words[words.index("1,2")] = "1"
    cli.run(words)
    found = record(place / "whole")
    rows = {row["variant"]: row["seeds"] for row in found["rows"]}
    assert rows == {"sft": [1, 2], "bash": [1, 2], "scheduled_sampling": [1]}
    assert set(found["settings"]["variants"]) == set(rows)
    assert [cell for cell in found["cells"] if cell["variant"] != "scheduled_sampling"] == before["cells"]
    (place / "other").mkdir()
    (place / "other" / "file").touch()
    assert "got files but no experiment.json" in refused(capsys, *command(place, place / "other"))


def test_a_dry_run_writes_nothing(place: Path) -> None:
    before = sorted(path for path in place.rglob("*"))
    said = gapbridge(*command(place, place / "dry", "--dry_run", "--budget", "compute")).stdout
    assert "4 runs, about" in said and "would write" in said and "time per run (s)" in said
    assert sorted(path for path in place.rglob("*")) == before


def test_a_dry_run_measures_a_few_tokens(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long completions and data are: a real model takes minutes for either."""
    tokens: list[int] = []

    def count(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Embedding):
            tokens.append(arguments[0].numel())

    many = write_rows(place / "many.jsonl", [p.row() for p in problems("train", count=300, steps=(1,))])
    keys = yaml.safe_load((place / "recipe.yaml").read_text())
    keys |= {"datasets": [{"path": "json", "data_files": many}], "max_length": 256}
    own = place / "many.yaml"
    own.write_text(yaml.safe_dump(keys))
    words = [
        "compare",
        str(own),
        "--methods",
        "bash,rac",
        "--seeds",
        "1",
        "--output_dir",
        str(place / "dry"),
        "--dry_run",
    ]
    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        cli.run([*words, "--max_completion_length", "120"])
    finally:
        handle.remove()
    said = capsys.readouterr()
    assert "3 runs, about" in said.out and "completions are assumed to be as long as the references" in said.out
    assert "measuring" in said.err, "it shows how far it is"
    assert len(tokens) < 300 and sum(tokens) < 20_000
    monkeypatch.setattr("gapbridge.compare.dry_run._PATIENCE", 0.0)
    cli.run(words)
    assert "not measured, because the others took 0 s: sft, bash, rac" in capsys.readouterr().out


def test_a_task_must_be_said_where_references_mark_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_rows(place / "plain.jsonl", [{"prompt": "Say it.\n", "completion": "It is said."}] * 3)
    keys = yaml.safe_load((place / "recipe.yaml").read_text())
    own = place / "plain.yaml"
    own.write_text(yaml.safe_dump({**keys, "eval_datasets": [{"path": "json", "data_files": rows}]}))
    said = refused(capsys, "compare", str(own), *command(place, place / "none")[2:])
    assert "3 of the first 3 held-out references without a marked answer" in said


def test_forced_errors_of_all_and_of_each_go_by_the_same_answers(place: Path) -> None:
    words = [
        word.replace("bash", "sft") for word in command(place, place / "forced_errors", "--error_positions", "0.3,0.6")
    ]
    words[words.index("1,2")] = "1"
    words[words.index("--max_completion_length") + 1] = "48"
    cli.run([*words, "--temperatures", "0"])
    (cell,) = record(place / "forced_errors")["cells"]
    assert cell["variant"] == "sft" and {"forced_errors", "own_forced_errors"} <= {
        name.partition(".")[0] for name in cell["figures"]
    }
    run = place / "forced_errors" / "seed_1" / "sft"
    first, second = (sorted((run / part / "completions").glob("*")) for part in ("gap", "own_forced_errors/gap"))
    completions = [
        store
        for store in first
        if json.loads((store / "manifest.json").read_text())["identity"]["method"] != "forced_errors"
    ]
    assert len(completions) == 1 and {store.name for store in first} <= {store.name for store in second}
    (shard,), (taken,) = (
        [*folder.glob("shard-*")] for folder in (completions[0], second[0].parent / completions[0].name)
    )
    assert shard.stat().st_mtime_ns == taken.stat().st_mtime_ns, "they are not drawn again"
