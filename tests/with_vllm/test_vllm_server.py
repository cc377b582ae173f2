"""vLLM itself, one server for all tests of this file: training, evaluation, judge and deployment. `make test-vllm`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE, ROOT
from datasets import Dataset
from helpers import recipe, write_rows
from helpers.commands import answer, evaluate
from helpers.small_runs import SMALL_RUN, MakeBase
from vllm_process import VLLM, serving

from gapbridge import RACConfig, RACTrainer, SPINConfig, SPINTrainer, cli, correct
from gapbridge.decoding import SamplingParams, generate_completions
from gapbridge.decoding.vllm_generation import ServerEngine, check_weights, generate_completions_vllm
from gapbridge.errors import RunError
from gapbridge.methods.rac.serve import correct_with_server
from gapbridge.tasks.word_problems import problems


pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not VLLM.is_file(), reason=f"{VLLM} is not there: tests/vllm_env.sh makes the environment"),
]
COMMON: dict[str, Any] = {
    **SMALL_RUN,
    "max_length": 400,
    "max_steps": 1,
    "max_completion_length": 32,
    "use_vllm": True,
    "vllm_mode": "server",
    "vllm_server_timeout": 0.0,
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(BASE, tmp_path_factory.mktemp("server"), "--max-model-len", "1024") as address:
        yield address


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def rows(count: int = 8) -> Dataset:
    return Dataset.from_list([problem.row() for problem in problems("train", count=count, steps=(1, 2))])


def asked(tokenizer: Any, count: int) -> list[list[int]]:
    prompts = rows(count)["prompt"]
    return [
        tokenizer.apply_chat_template(row, add_generation_prompt=True, return_dict=True)["input_ids"]
        for row in prompts
    ]


@pytest.mark.parametrize(("trainer", "config"), [(RACTrainer, RACConfig), (SPINTrainer, SPINConfig)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_training(
    trainer: Any, config: Any, temperature: float, url: str, make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    """RAC and SPIN train on the server's completions; greedy ones are those of this package's engine."""
    texts = []
    for use_vllm in (True, False) if temperature == 0 else (True,):
        options = {**COMMON, "use_vllm": use_vllm, "vllm_server_base_url": url, "temperature": temperature}
        folder = tmp_path / str(use_vllm)
        run = trainer(make_base(), config(str(folder), **options), train_dataset=rows(), processing_class=tokenizer)
        run.train()
        texts.append([row["input_ids"] if "input_ids" in row else row["rejected_ids"] for row in run.train_dataset])
        identity = json.loads((folder / "_contexts" / "manifest.json").read_text())["identity"]
        assert identity.get("engine") == ("vllm" if use_vllm else None)
    assert texts[0] == texts[-1] and texts[0]


def test_greedy_completions_are_those_of_this_package(url: str, make_base: MakeBase, tokenizer: Any) -> None:
    """In float32 up to ties, which the tiny model does not have; at temperature 1 they come from the same model."""
    model, prompts = make_base(), asked(tokenizer, 64)
    engine = ServerEngine(url, model=str(BASE), timeout=0.0, concurrency=32)
    assert check_weights(engine, model, prompts, [1]) < 1e-3
    how: dict[str, Any] = {"ids": range(64), "max_completion_length": 64, "stop_tokens": [1]}
    ours = generate_completions(model, prompts, **how, options=SamplingParams(0.0))
    theirs = generate_completions_vllm(engine, prompts, **how, options=SamplingParams(0.0))
    differing = sum(a != b for a, b in zip(ours, theirs, strict=True))
    print(f"{differing} of 64 greedy completions differ")
    assert differing <= 1
    sampled = [
        generate_completions_vllm(engine, prompts, **how, options=SamplingParams(1.0, seed=seed)) for seed in (0, 1)
    ]
    assert sampled[0] != sampled[1]
    for completion in sampled[0]:
        assert completion.finished == (completion.tokens[-1] == 1) and (
            completion.finished or len(completion.tokens) == 64
        )


def test_suppressed_tokens_stay_away_and_long_prompts_are_refused(url: str, tokenizer: Any) -> None:
    engine = ServerEngine(url, model=str(BASE), timeout=0.0, concurrency=8)
    prompts, how = asked(tokenizer, 4), {"ids": range(4), "stop_tokens": [1]}
    (first, *_) = generate_completions_vllm(
        engine, prompts, max_completion_length=8, options=SamplingParams(0.0), **how
    )
    options = SamplingParams(0.0, suppress_tokens=first.tokens[:1])
    (other, *_) = generate_completions_vllm(engine, prompts, max_completion_length=8, options=options, **how)
    assert first.tokens[0] not in other.tokens
    assert engine.max_length == 1024
    with pytest.raises(RunError, match="expected at most 1024"):
        generate_completions_vllm(engine, prompts, max_completion_length=1024, options=SamplingParams(0.0), **how)


def test_another_model_is_refused(url: str, make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    make_base().save_pretrained(tmp_path / "other")
    with pytest.raises(RunError, match=f"model: got {BASE}, expected {tmp_path}/other"):
        ServerEngine(url, model=str(tmp_path / "other"), timeout=0.0, concurrency=8)


def test_evaluation(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both completions have the same figures through the server, and `generate` writes the same file."""
    monkeypatch.setattr("gapbridge.generation.command.OUTPUTS", tmp_path)  # no completions of an earlier test run
    options: dict[str, Any] = {"max_examples": 12, "max_completion_length": 48, "model": [str(BASE)]}
    options |= {"decoding_mode": ["all"]}
    ours = json.loads(evaluate("word_problems", **options, output_dir=tmp_path / "ours").read_text())
    options |= {"vllm_server_base_url": [url], "output_dir": tmp_path / "theirs"}
    theirs = json.loads(evaluate("word_problems", **options).read_text())
    assert [row["decoding_mode"] for row in theirs["results"]] == ["single_pass", "self_correct"]
    assert theirs["results"] == ours["results"] and theirs["settings"]["engine"] == "vllm"

    _, config = recipe(tmp_path)
    how: dict[str, Any] = {"config": config, "model": str(BASE), "max_completion_length": 32}
    written = [
        answer(**how, output=tmp_path / f"{len(server)}.jsonl", vllm_server_base_url=server).read_text()
        for server in ([], [url])
    ]
    assert written[0] == written[1]


def test_gap(url: str, tmp_path: Path) -> None:
    """Sampled completions and those after forced errors, from the command line."""
    line = f"gap recipes/tiny/sft/config_full.yaml --model {BASE} --max_examples 6 --max_completion_length 64"
    cli.main([*line.split(), "--vllm_server_base_url", url, "--output_dir", str(tmp_path), "--prefix_lengths", "4"])
    record = json.loads((tmp_path / "gap" / "gap.json").read_text())
    assert record["settings"]["engine"] == "vllm" and record["models"][0]["forced_errors"]["answers"] > 0


def test_a_judge(url: str, tmp_path: Path) -> None:
    """The tiny model's verdicts cannot be read, and are counted so; a second evaluation asks nothing again."""
    samples = [{"id": i, "prompt": f"What is {i}?", "reference": f"It is {i}.", "answer": f"{i}"} for i in range(3)]
    path = Path(write_rows(tmp_path / "completions.jsonl", samples))
    judge = {"judge": str(BASE), "judge_url": f"{url}/v1", "judge_max_tokens": 16, "judge_temperature": 0.0}
    record = json.loads(evaluate("winrate", completions_file=[path], **judge, output_dir=tmp_path).read_text())
    (rate,) = record["win_rates"]
    assert rate["unparsable"] == 3
    assert list((tmp_path / "eval" / "verdicts").iterdir())


def test_correct_with_server(url: str, make_base: MakeBase, tokenizer: Any) -> None:
    openai = pytest.importorskip("openai")
    prompts = rows(12)["prompt"]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        found = correct_with_server(client, str(BASE), tokenizer, prompts, max_completion_length=64)
        sampled = correct_with_server(client, str(BASE), tokenizer, prompts, max_completion_length=8, temperature=1.0)
    assert found == correct(make_base(), tokenizer, prompts, max_completion_length=64)
    assert len({one.first for one in sampled}) > 6, "prompts do not share their random numbers"


def test_the_page_about_serving(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its code runs as it stands, with the tiny base model in place of a trained one."""
    page = (ROOT / "docs" / "how-to" / "serve-rac.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code.replace("http://127.0.0.1:8000", url).replace("outputs/tiny-rac", str(BASE)), {})
    assert "\n---\n" in capsys.readouterr().out


def test_a_recipe(url: str, tmp_path: Path) -> None:
    """The command, as a user starts it."""
    options = {"use_vllm": True, "vllm_mode": "server", "max_completion_length": 32}
    cli.main(["rac", *recipe(tmp_path, method="rac", max_steps=1, **options), "--vllm_server_base_url", url])
    assert (tmp_path / "run" / "model.safetensors").is_file()
