"""A paused model behind vLLM: prompts as ids and as text, the chat template, and the evaluation's mode."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import recipe
from helpers.commands import evaluate
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm_process import VLLM, serving

from gapbridge import cli
from gapbridge.data.pauses import pause_id
from gapbridge.methods.pause.inference import completion_request, generate, paused_template
from gapbridge.tasks.word_problems import problems


pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not VLLM.is_file(), reason=f"{VLLM} is not there: tests/vllm_env.sh makes the environment"),
]
LENGTH = 32
CHATS = [problem.row()["prompt"] for problem in problems("test", count=6, steps=(1, 2))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paused")
    cli.main(["pause", *recipe(folder, method="pause", num_pause_tokens=3, max_steps=2, learning_rate=1e-3)])
    return folder / "run"


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    template = folder / "paused.jinja"
    template.write_text(paused_template(AutoTokenizer.from_pretrained(model)))
    with serving(model, folder, "--max-model-len", "1024", "--chat-template", str(template)) as address:
        yield address


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def post(url: str, path: str, model: Path, **body: Any) -> dict[str, Any]:
    body = {"model": str(model), "max_tokens": LENGTH, "temperature": 0, "return_token_ids": True, **body}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return dict(json.loads(response.read()))


@pytest.mark.parametrize("count", [None, 5])
def test_every_way_to_ask_gives_the_same_completions(count: int | None, url: str, model: Path) -> None:
    """Ids (`completion_request`), and messages through the template: with M pauses, and with another number."""
    tokenizer, loaded = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    wanted = generate(loaded, tokenizer, CHATS, num_pause_tokens=count, max_completion_length=LENGTH)
    chosen = {} if count is None else {"chat_template_kwargs": {"num_pause_tokens": count}}
    for chat, text in zip(CHATS, wanted, strict=True):
        request = completion_request(tokenizer, chat, count)
        prompt, bias = request["prompt"], {"logit_bias": request["logit_bias"]}
        replies = [
            post(url, "/v1/completions", model, **request),
            post(url, "/v1/chat/completions", model, messages=chat, **chosen, **bias),
        ]
        assert replies[0]["choices"][0]["text"] == replies[1]["choices"][0]["message"]["content"] == text
        assert replies[0]["choices"][0]["prompt_token_ids"] == prompt == replies[1]["prompt_token_ids"]
        assert prompt.count(pause_id(tokenizer)) == (3 if count is None else count)


def test_evaluation(url: str, model: Path, tmp_path: Path) -> None:
    """Single-pass completions have the pauses of training; the mode `paused` has others."""
    options: dict[str, Any] = {"max_examples": 6, "max_completion_length": LENGTH, "model": [str(model)]}
    options |= {"decoding_mode": ["single_pass", "pause"]}
    records = []
    for name, servers in (("ours", None), ("theirs", [url])):
        path = evaluate(
            "word_problems", "--num_pause_tokens", "0", **options, vllm_server_base_url=servers,
            output_dir=tmp_path / name,
        )  # fmt: skip
        records.append(json.loads(path.read_text())["results"])
    assert records[0] == records[1] and [row["decoding_mode"] for row in records[0]] == ["single_pass", "pause"]
