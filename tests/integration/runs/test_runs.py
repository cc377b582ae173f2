"""What commands leave, show and refuse, through the command line. Bad input: see `test_bad_input.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import recipe, refused, rows_with

from gapbridge import cli


def test_output_directory_of_another_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["bash", *recipe(tmp_path)])
    run = tmp_path / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    said = refused(capsys, "bash", *recipe(tmp_path, learning_rate=1e-3, mixture_coefficient=0.4))
    assert "mixture_coefficient: got 0.4, expected None, as in the run there" in said
    assert "learning_rate" in said
    said = refused(capsys, "sft", *recipe(tmp_path, method="sft"))
    assert "method: got 'sft', expected 'bash', as in the run there" in said
    cli.main(["bash", *recipe(tmp_path, generation_batch_size=8)])
    assert "this run is complete" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_output_directory_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    assert "run: got thesis.txt, but no run.json, expected an empty directory" in refused(
        capsys, "bash", *recipe(tmp_path)
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("")
    assert "got a file" in refused(capsys, "bash", *recipe(tmp_path, output_dir=str(tmp_path / "file")))


def test_damaged_shard_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = recipe(tmp_path)
    cli.main(["prepare", *arguments])
    shard = next((tmp_path / "run" / "round_1" / "_contexts").glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:-20])
    assert "sha256: got another hash" in refused(capsys, "bash", *arguments)


def test_a_run_leaves_what_the_docs_promise(tmp_path: Path) -> None:
    cli.main(["bash", *recipe(tmp_path, logging_steps=1)])
    run = tmp_path / "run"
    present = {str(path.relative_to(run)) for path in run.rglob("*")}
    assert present >= {
        "config.resolved.yaml", "environment.json", "run.json", "data.json", "report.md", "loss.png",
        "samples/first_rows.txt", "round_1/metrics.jsonl", "round_1/_contexts/manifest.json",
        "round_1/model/model.safetensors", "model.safetensors", "tokenizer.json", "README.md",
    }  # fmt: skip
    again = tmp_path / "again"
    cli.main(["bash", "--config", str(run / "config.resolved.yaml"), "--output_dir", str(again)])
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert "arXiv" in (run / "README.md").read_text() or "2410.14655" in (run / "README.md").read_text()


def test_preview_shows_replaced_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["preview", *recipe(tmp_path, mixture_coefficient=1.0, temperature=2.0), "--num_rows", "2"])
    said = capsys.readouterr().out
    assert "id train-0-0" in said and "id train-0-1" in said and "id train-0-2" not in said
    assert "→" in said and "⟦" in said and "replaced" in said and "####" in said
    assert not (tmp_path / "run").exists()
    cli.main(["bash", *recipe(tmp_path, mixture_coefficient=1.0, temperature=2.0)])
    samples = (tmp_path / "run" / "samples" / "first_rows.txt").read_text()
    assert samples.split("\n\n")[0] in said.replace("\r", "")


def test_preview_of_an_sft_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["preview", *recipe(tmp_path, method="sft")])
    said = capsys.readouterr().out
    assert "with loss" in said and "replaced" not in said.split("\n", 2)[2]


def test_validate_reports_every_fault_of_every_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, first = recipe(tmp_path / "a", learning_rte=1, num_rounds="x")
    bad_row = rows_with({"prompt": "one", "completion": None})(tmp_path / "b")
    _, second = recipe(tmp_path / "b", **bad_row, max_length=5000, load_in_4bit=True)
    said = refused(capsys, "validate", "--config", first, second)
    for words in (
        "learning_rte",
        "num_rounds: got 'x'",
        "completion: got null",
        "max_length: got 5000, expected at most 2048, the positions of the model",
        "use_peft",
    ):
        assert words in said
    cli.main(["validate", *recipe(tmp_path)])
    assert "good. BASH, mixture_coefficient 0.2, 1 round(s)" in capsys.readouterr().out


def test_two_rounds_of_lora_from_an_adapter(tmp_path: Path) -> None:
    """SFT makes an adapter; BASH goes on training it for two rounds; the result loads on the base model."""
    lora = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}
    cli.main(["sft", *recipe(tmp_path, method="sft", output_dir=str(tmp_path / "sft"), **lora)])
    cli.main(
        ["bash", *recipe(tmp_path, model_name_or_path=str(tmp_path / "sft"), num_rounds=2, learning_rate=1e-2, **lora)]
    )
    adapters = [tmp_path / "sft", *(tmp_path / "run" / f"round_{k}" / "model" for k in (1, 2)), tmp_path / "run"]
    weights = [(path / "adapter_model.safetensors").read_bytes() for path in adapters]
    assert len(set(weights)) == 3 and weights[2] == weights[3]


GSM8K = ROOT.parent / "shared" / "data" / "gsm8k"


@pytest.mark.skipif(not GSM8K.is_dir(), reason="the GSM8K files are not beside the repository")
def test_real_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """GSM8K through the recipe alone: columns mapped, as chat, with the tiny base."""
    options = recipe(
        tmp_path,
        datasets=[{"path": "json", "data_files": str(GSM8K / "train.jsonl")}],
        prompt_column="question", completion_column="answer", convert_to_chat=True, max_length=1024,
        max_train_examples=24,
    )  # fmt: skip
    cli.main(["preview", *options, "--num_rows", "1", "--num_probe_examples", "6"])
    said = capsys.readouterr().out
    assert "<|user|>Natalia sold clips to 48 of her friends" in said and "⟦" in said
    cli.main(["bash", *options])
    assert json.loads((tmp_path / "run" / "data.json").read_text())["train"]["examples"] == 24
