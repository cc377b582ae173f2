"""RAC through a server: `correct_with_server` asks and gives what `correct` does. tests/with_vllm asks vLLM itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import BASE
from helpers.vllm_server import Served, running
from transformers import PreTrainedModel

from gapbridge import correct
from gapbridge.methods.rac.serve import correct_with_server
from gapbridge.tasks.word_problems import problems


openai = pytest.importorskip("openai", reason="openai is not installed: pip install -e '.[serve]'")
PROMPTS = [problem.row()["prompt"] for problem in problems("train", count=2, steps=(1, 2))]
REQUEST = "Check your answer and write the correct one."


@pytest.fixture
def served(make_base: Callable[[], PreTrainedModel], monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("no_proxy", "*")
    with running(Served(make_base(), str(BASE), "rac")) as value:
        yield value


def ask(served: Served, *arguments: Any, **options: Any) -> Any:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        return correct_with_server(client, "rac", *arguments, correction_prompt=REQUEST, **options)


def test_it_asks_and_gives_what_correct_does(
    served: Served, make_base: Callable[[], PreTrainedModel], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages and strings, finished completions and cut ones."""
    for prompts, limit in ((PROMPTS, 64), (["Tom has 3 apples.\n"], 8)):
        expected = correct(make_base(), tokenizer, prompts, correction_prompt=REQUEST, max_completion_length=limit)
        assert ask(served, tokenizer, prompts, max_completion_length=limit) == expected
    reasons = [choice["finish_reason"] for choice in served.choices]
    assert set(reasons) == {"stop", "length"}
    seeds = [body["seed"] for body in served.requests[:4]]
    assert sorted(seeds) == list(range(4)) and ask(served, tokenizer, []) == []


def test_a_server_that_returns_text_alone(
    served: Served, make_base: Callable[[], PreTrainedModel], tokenizer: Any
) -> None:
    """The stop token, which is no text, still closes the turn."""

    def as_text(choice: dict[str, Any]) -> None:
        choice["text"] = tokenizer.decode(choice.pop("token_ids"), skip_special_tokens=True)

    expected = ask(served, tokenizer, PROMPTS, max_completion_length=64)
    contexts = {tuple(body["prompt"]) for body in served.requests}
    served.spoil = as_text
    assert ask(served, tokenizer, PROMPTS, max_completion_length=64, extra_body={}) == expected
    assert {tuple(body["prompt"]) for body in served.requests} == contexts
    assert "return_token_ids" not in served.requests[-1]


def test_the_servers_refusal_is_shown(served: Served, tokenizer: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="400"):
        ask(served, tokenizer, PROMPTS[:1], extra_body={"sideways": 1})
