"""Drafts through a vLLM server: the requests, what is refused, and rows equal to those of local drafts.

The server is a real HTTP server on this machine (`vllm_server.py`); tests/with_vllm starts vLLM itself.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import BASE
from datasets import Dataset
from helpers.small_runs import SMALL_RUN, MakeBase
from helpers.vllm_server import Served, running
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from gapbridge import ConfigError, DataError, RACConfig, RACTrainer, StoreError
from gapbridge.decoding import Completion, SamplingParams, generate_completions
from gapbridge.decoding.vllm_generation import ServerEngine, check_weights, generate_completions_vllm
from gapbridge.errors import RunError
from gapbridge.runs.rounds import run_rounds
from gapbridge.runs.run_config import read_job
from gapbridge.tasks.word_problems import problems


EOS = 1
COMMON: dict[str, Any] = {
    **SMALL_RUN,
    "max_length": 300,
    "max_steps": 1,
    "max_completion_length": 24,
    "temperature": 0.0,
}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def served(make_base: MakeBase) -> Iterator[Served]:
    with running(Served(make_base(), str(BASE), str(BASE))) as value:
        yield value


@pytest.fixture
def prompts(tokenizer: Any) -> list[list[int]]:
    rows = chat_rows(4)["prompt"]
    return [
        tokenizer.apply_chat_template(row, add_generation_prompt=True, return_dict=True)["input_ids"] for row in rows
    ]


def chat_rows(count: int) -> Dataset:
    return Dataset.from_list([problem.row() for problem in problems("train", count=count, steps=(1, 2))])


def config(folder: Path, url: str | None = None, **options: Any) -> RACConfig:
    engine = {} if url is None else {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": url}
    return RACConfig(str(folder), **{**COMMON, **engine, "vllm_server_timeout": 0.0, **options})


def trainer(
    folder: Path, model: PreTrainedModel, tokenizer: Any, url: str | None = None, **options: Any
) -> RACTrainer:
    return RACTrainer(
        model, args=config(folder, url, **options), train_dataset=chat_rows(6), processing_class=tokenizer
    )


def connect(served: Served, model: str = str(BASE), timeout: float = 0.0) -> ServerEngine:
    return ServerEngine(served.url, model=model, timeout=timeout, concurrency=4)


def drafts(
    served: Served, prompts: Sequence[Sequence[int]], options: SamplingParams | None = None, **others: Any
) -> list[Completion]:
    others = {"ids": range(len(prompts)), "max_completion_length": 24, "stop_tokens": [EOS], **others}
    return generate_completions_vllm(connect(served), prompts, options=options or SamplingParams(), **others)


def test_rows_are_those_of_local_drafts(served: Served, make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    ours = trainer(tmp_path / "local", make_base(), tokenizer, max_completion_length=64)
    theirs = trainer(
        tmp_path / "vllm", make_base(), tokenizer, served.url, max_completion_length=64, generation_shard_size=4
    )
    assert theirs.train_dataset[:] == ours.train_dataset[:] and theirs.stats == ours.stats
    assert 0 < theirs.stats.truncated < 6, "both kinds of drafts"
    theirs.train()
    manifests = [
        json.loads((tmp_path / name / "_contexts" / "manifest.json").read_text())["identity"]
        for name in ("local", "vllm")
    ]
    assert "engine" not in manifests[0] and manifests[1].pop("engine") == "vllm"
    assert {key for key in manifests[0] if manifests[0][key] != manifests[1][key]} == {"shard_size"}


def test_what_is_asked(served: Served, prompts: list[list[int]]) -> None:
    drafts(served, prompts, SamplingParams(0.7, top_k=5, min_p=0.1, suppress_tokens=[9, 8], seed=3, round_index=1))
    assert sorted(map(tuple, prompts)) == sorted(tuple(body["prompt"]) for body in served.requests)
    body = served.requests[0]
    assert (body["temperature"], body["top_k"], body["top_p"], body["min_p"]) == (0.7, 5, 1.0, 0.1)
    assert body["stop_token_ids"] == [EOS] and body["ignore_eos"] and body["logit_bias"] == {"8": -100, "9": -100}
    assert body["repetition_penalty"] == 1, "a model's generation config must not add a penalty"
    seeds = {body["seed"] for body in served.requests}
    assert len(seeds) == len(prompts), "prompts must not share their noise"
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_depend_on_seed_round_and_id_alone(served: Served, prompts: list[list[int]]) -> None:
    both = drafts(served, prompts[:2], SamplingParams(seed=1, round_index=1), ids=["a", "b"])
    assert drafts(served, prompts[1:2], SamplingParams(seed=1, round_index=1), ids=["b"]) == both[1:]
    assert drafts(served, prompts[1:2], SamplingParams(seed=2, round_index=1), ids=["b"]) != both[1:]
    assert drafts(served, prompts[1:2], SamplingParams(seed=1, round_index=2), ids=["b"]) != both[1:]


def test_drafts_end_or_are_capped(served: Served, make_base: MakeBase, prompts: list[list[int]]) -> None:
    counts: list[int] = []
    options = SamplingParams(temperature=0.0)
    greedy: dict[str, Any] = {"options": options, "max_completion_length": 64, "stop_tokens": [EOS]}
    found = drafts(served, prompts, **greedy, on_finished=counts.append)
    assert found == generate_completions(make_base(), prompts, ids=range(4), **greedy)
    assert sum(counts) == 4
    for completion in found:
        assert completion.finished == (completion.tokens[-1] == EOS) and (
            completion.finished or len(completion.tokens) == 64
        )
    assert {len(completion.tokens) for completion in drafts(served, prompts, max_completion_length=2)} == {2}
    with pytest.raises(DataError, match="ids: got 1 for 4 prompts, expected one id a prompt"):
        drafts(served, prompts, ids=["a"])


def shorten(choice: dict[str, Any]) -> None:
    choice.update(token_ids=choice["token_ids"][:3], finish_reason="length")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shorten, "after 3 of 24 tokens .'length'., expected room for prompt"),
        (lambda choice: choice.update(token_ids=[7, 8], finish_reason="stop"), "expected one of the stop_token_ids"),
        (
            lambda choice: choice.update(token_ids=[7, EOS, 8] * 8, finish_reason="length"),
            "expected one of the stop_token_ids",
        ),
        (lambda choice: choice.update(token_ids=[7] * 25, finish_reason="length"), "25 of 24 tokens"),
        (lambda choice: choice.update(token_ids=[9, EOS]), "a token that the tokenizer cannot decode"),
        (lambda choice: choice.pop("token_ids"), "expected the reply of vLLM 0.22 or later"),
        (lambda choice: choice.update(logprobs=None), "expected the reply of vLLM 0.22 or later"),
    ],
)
def test_answers_are_checked(
    spoil: Callable[[dict[str, Any]], object], words: str, served: Served, prompts: list[list[int]]
) -> None:
    served.spoil = spoil
    with pytest.raises(RunError, match=words):
        drafts(served, prompts[:1], SamplingParams(suppress_tokens=[9]))


def test_a_refused_request_shows_the_servers_reason(served: Served) -> None:
    with pytest.raises(RunError, match="v1/completions: got status 400 .*no prompt"):
        drafts(served, [[]])


def test_no_server(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = time.monotonic()
    options = {"use_vllm": True, "vllm_mode": "server", "vllm_server_host": "127.0.0.1", "vllm_server_port": port}
    with pytest.raises(RunError, match=f":{port}: got no vLLM server after 0.3 s") as caught:
        trainer(tmp_path, make_base(), tokenizer, **options, vllm_server_timeout=0.3)
    assert "vllm_server_timeout" in str(caught.value) and f"vllm serve {BASE}" in str(caught.value)
    assert 0.3 <= time.monotonic() - started < 10
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_server_that_is_still_loading_is_waited_for(served: Served) -> None:
    served.starting = 1
    with pytest.raises(RunError, match="Error 503"):
        connect(served)
    served.starting = 1
    connect(served, timeout=20)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ("<html>", "v1/models: got a reply that is not JSON"),
        ("", "no list of models"),
        ('{"models": []}', "no list of models"),
        ('{"data": [1]}', "no list of models"),
    ],
)
def test_something_else_on_the_port(models: str, words: str, served: Served) -> None:
    served.models = models
    with pytest.raises(RunError, match=words):
        connect(served)


def test_another_model_is_refused_by_its_name(served: Served, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="model: got .*recipes/tiny/base, expected out/round_1/model") as caught:
        connect(served, "out/round_1/model")
    assert "--served-model-name out/round_1/model" in str(caught.value)
    (tmp_path / "link").symlink_to(BASE)
    connect(served, str(tmp_path / "link"))
    served.name = "org/model"
    connect(served, "org/model")


def test_other_weights_under_the_same_name_are_refused(
    served: Served, make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    changed = make_base()
    torch.manual_seed(0)
    for parameter in changed.parameters():
        parameter.data += 0.2 * parameter.data.std() * torch.randn_like(parameter)
    other = trainer(tmp_path, changed, tokenizer, served.url)
    with pytest.raises(RunError, match="log-probabilities that differ"):
        other.prepare_dataset()
    with pytest.raises(RunError, match="log-probabilities that differ"):
        other.train()
    assert not list(tmp_path.rglob("*.*")), "nothing is written, and the next call asks again"
    served.spoil = lambda choice: choice.update(token_ids=[700, EOS])
    with pytest.raises(RunError, match="outside the vocabulary of 512"):
        trainer(tmp_path, make_base(), tokenizer, served.url).prepare_dataset()


def test_rounding_is_no_difference_and_training_is(
    served: Served, make_base: MakeBase, prompts: list[list[int]], tokenizer: Any, tmp_path: Path
) -> None:
    model = make_base()
    assert check_weights(connect(served), model, prompts, [EOS]) < 1e-4
    assert check_weights(connect(served), model.to(torch.bfloat16), prompts, [EOS]) < 0.05
    trained = trainer(tmp_path, make_base(), tokenizer, max_steps=8, learning_rate=2e-4)
    trained.train()
    with pytest.raises(RunError, match="log-probabilities that differ"):
        check_weights(connect(served), trained.model.eval(), prompts, [EOS])


def test_each_round_needs_its_own_weights(served: Served, make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """A server left from round 1 is refused in round 2; once it serves round 1's model, the run goes on."""

    def make(start: Path | None, args: Any) -> RACTrainer:
        model = make_base() if start is None else make_base().from_pretrained(start)
        return RACTrainer(model, args=args, train_dataset=chat_rows(4), processing_class=tokenizer)

    args = config(tmp_path, served.url, num_rounds=2)
    with pytest.raises(RunError, match=f"expected {tmp_path}/round_1/model. Start `vllm serve"):
        run_rounds(args, make)
    served.root = served.name = str(tmp_path / "round_1" / "model")
    served.model = make_base().from_pretrained(served.root).eval()
    run_rounds(args, make)
    assert (tmp_path / "model.safetensors").is_file()


def test_stores_of_the_engines_are_told_apart(
    served: Served, make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    trainer(tmp_path, make_base(), tokenizer).prepare_dataset()
    with pytest.raises(StoreError, match="engine: got contexts that were made with None, expected 'vllm'"):
        trainer(tmp_path, make_base(), tokenizer, served.url)
    trainer(tmp_path / "b", make_base(), tokenizer, served.url, generation_shard_size=4).prepare_dataset()
    asked = len(served.requests)
    trainer(tmp_path / "b", make_base(), tokenizer, served.url, generation_shard_size=4).prepare_dataset()
    assert len(served.requests) == asked, "a complete store asks nobody"
    (tmp_path / "b" / "_contexts" / "manifest.json").unlink()
    (tmp_path / "b" / "_contexts" / "shard-00001-of-00002.parquet").unlink()
    trainer(tmp_path / "b", make_base(), tokenizer, served.url, generation_shard_size=4).prepare_dataset()
    assert len(served.requests) == asked + 2 + 2, "the check, on the shard's prompts, and one shard"


def test_what_vllm_cannot_load_is_refused(served: Served, make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="starts from an adapter.*merge_and_unload"):
        trainer(tmp_path, get_peft_model(make_base(), LoraConfig(task_type="CAUSAL_LM")), tokenizer, served.url)
    nameless = make_base()
    nameless.config._name_or_path = nameless.name_or_path = ""
    with pytest.raises(ConfigError, match="use_vllm: got true for a model without a path"):
        trainer(tmp_path, nameless, tokenizer, served.url)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_colocate_needs_vllm(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'pip install "gapbridge\[vllm\]"'):
        config(tmp_path / "run", use_vllm=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vllm_server_base_url": "host:8000"}, "expected http://HOST:PORT"),
        ({"temperature": 0.001}, "expected 0 .greedy. or 0.01 to 2 with vLLM"),
        ({"temperature": 1.0, "min_p": 0.1, "top_p": 0.9}, "with vLLM, which applies min_p first"),
        ({"vllm_mode": "colocate", "vllm_gpu_memory_utilization": 1.5}, "expected a"),
        ({"vllm_mode": "colocate", "vllm_max_model_length": 24}, "expected more than max_completion_length .24"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        config(tmp_path, "http://127.0.0.1:8000", **options)
    config(tmp_path, **{**options, "use_vllm": False})


@pytest.mark.parametrize("use_vllm", [True, False])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vllm_mode": "remote"}, "^vllm_mode: got 'remote', expected one of server, colocate"),
        ({"vllm_server_port": 0, "vllm_server_timeout": -1.0}, "^2 errors"),
        (
            {"vllm_mode": "colocate", "vllm_tensor_parallel_size": 0},
            "vllm_tensor_parallel_size: got 0, expected at least 1",
        ),
    ],
)
def test_choices_and_ranges_hold_without_vllm(
    options: dict[str, Any], words: str, use_vllm: bool, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        config(tmp_path, "http://127.0.0.1:8000", **{**options, "use_vllm": use_vllm})


def test_fine_options(tmp_path: Path) -> None:
    args = config(tmp_path, use_vllm=True, vllm_mode="server", temperature=1.0, top_k=5, min_p=0.1)
    assert args.vllm_server_url == "http://0.0.0.0:8000"


@pytest.mark.parametrize("method", ["bash", "rac"])
def test_recipes(method: str, tmp_path: Path) -> None:
    recipe = {
        "method": method, "model_name_or_path": "m", "datasets": [{"path": "json", "data_files": "d.jsonl"}],
        "output_dir": "o", "use_cpu": True, "bf16": False, "use_vllm": True, "vllm_mode": "server",
        "vllm_server_port": 8001,
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    if method == "rac":
        assert read_job(["--config", str(path)]).args.vllm_server_url == "http://0.0.0.0:8001"
        return
    with pytest.raises(ConfigError, match="unknown key 'use_vllm'"):
        read_job(["--config", str(path)])
