"""Drafts: greedy equals transformers' `generate`, sampling follows the model, nothing depends on the schedule."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from conftest import VOCAB, sharpen, tiny_llama
from scipy import stats
from test_mixing import CACHED, UNCACHED
from transformers import LlamaForCausalLM

from gapbridge import ConfigError, DataError
from gapbridge.decoding import Completion, generate_completions


STOP = 5


def prompts_of(count: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(VOCAB) for _ in range(rng.randint(1, 20))] for _ in range(count)]


def greedy(model: Any, prompt: list[int], limit: int) -> Completion:
    with torch.no_grad():
        output = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=STOP,
            pad_token_id=0,
            use_cache=False,
        )
    tokens = output[0, len(prompt) :].tolist()
    return Completion(tokens, tokens[-1] == STOP)


@pytest.mark.parametrize("name", [*CACHED, *UNCACHED])
def test_greedy_equals_generate(name: str) -> None:
    torch.manual_seed(0)
    model = sharpen({**CACHED, **UNCACHED}[name](), 3.0)
    prompts = prompts_of(14)
    completions = generate_completions(
        model,
        prompts,
        ids=list(range(14)),
        max_completion_length=12,
        temperature=0.0,
        stop_tokens=[STOP],
        batch_size=4,
    )
    assert completions == [greedy(model, prompt, 12) for prompt in prompts]


def test_drafts_do_not_depend_on_batch_or_order(llama: LlamaForCausalLM) -> None:
    prompts, ids = prompts_of(40), list(range(40))
    options: dict[str, Any] = {"max_completion_length": 20, "stop_tokens": [STOP, 6, 7, 8], "seed": 3}
    expected = dict(zip(ids, generate_completions(llama, prompts, ids=ids, **options), strict=True))
    assert len({len(completion.tokens) for completion in expected.values()}) > 5, "ragged lengths"
    shuffled = random.Random(1).sample(ids, 40)
    for batch_size in (1, 5, 16, 64):
        completions = generate_completions(
            llama, [prompts[i] for i in shuffled], ids=shuffled, batch_size=batch_size, **options
        )
        assert dict(zip(shuffled, completions, strict=True)) == expected


def test_drafts_end_where_they_should(llama: LlamaForCausalLM) -> None:
    stops = [STOP, 6, 7]
    completions = generate_completions(
        llama, prompts_of(60), ids=list(range(60)), max_completion_length=15, stop_tokens=stops
    )
    assert {completion.finished for completion in completions} == {True, False}
    for completion in completions:
        assert completion.finished == (completion.tokens[-1] in stops)
        assert not set(stops) & set(completion.tokens[:-1])
        assert completion.finished or len(completion.tokens) == 15


def test_prompts_are_fed_in_portions(llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[tuple[int, int]] = []
    options: dict[str, Any] = {"ids": list(range(14)), "max_completion_length": 8, "stop_tokens": [STOP]}
    expected = generate_completions(llama, prompts_of(14), **options)
    monkeypatch.setattr("gapbridge.decoding.engine.PROMPT_COLUMNS", 6)
    llama.model.register_forward_pre_hook(
        lambda module, _, inputs: fed.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    assert generate_completions(llama, prompts_of(14), **options) == expected
    lengths = [len(prompt) for prompt in prompts_of(14)]
    portions = [(sum(length > begin for length in lengths), min(6, max(lengths) - begin)) for begin in (0, 6, 12, 18)]
    begin = fed.index(portions[0])
    assert fed[begin : begin + 4] == portions


def test_first_token_follows_the_model() -> None:
    model = tiny_llama(vocab_size=6, sharpness=1.5)
    count = 4000
    completions = generate_completions(
        model, [[1, 2]] * count, ids=list(range(count)), max_completion_length=1, stop_tokens=[], batch_size=500
    )
    with torch.no_grad():
        expected = model(torch.tensor([[1, 2]])).logits[0, -1].double().softmax(-1)
    observed = torch.bincount(torch.tensor([completion.tokens[0] for completion in completions]), minlength=6)
    assert stats.chisquare(observed.numpy(), expected.numpy() * count).pvalue > 1e-4


def test_suppressed_tokens_are_not_drawn(llama: LlamaForCausalLM) -> None:
    banned = list(range(40))
    completions = generate_completions(
        llama, prompts_of(10), ids=list(range(10)), max_completion_length=10, stop_tokens=[], suppress_tokens=banned
    )
    assert not {token for completion in completions for token in completion.tokens} & set(banned)


def test_progress_and_no_prompts(llama: LlamaForCausalLM) -> None:
    finished: list[int] = []
    generate_completions(
        llama, prompts_of(30), ids=list(range(30)), max_completion_length=6, stop_tokens=[STOP], batch_size=7,
        on_finished=finished.append,
    )  # fmt: skip
    assert sum(finished) == 30
    finished.clear()
    generate_completions(
        llama, prompts_of(3), ids=list(range(3)), max_completion_length=6, stop_tokens=[], on_finished=finished.append
    )
    assert finished == [0, 0, 0, 0, 0, 3], "a large model needs minutes until the first is finished"
    assert generate_completions(llama, [], ids=[], max_completion_length=6, stop_tokens=[STOP]) == []


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"max_completion_length": 0, "batch_size": 0}, ConfigError, "2 errors"),
        ({"temperature": -1.0}, ConfigError, "temperature"),
        ({"prompts": [[], [1]]}, DataError, "prompt: got no token"),
        ({"ids": ["a", "a"]}, DataError, "expected unique ids"),
        ({"ids": ["a"]}, DataError, "expected one id a prompt"),
        ({"prompts": [[VOCAB], [1]]}, DataError, "vocabulary"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, Any], error: type, words: str, llama: LlamaForCausalLM) -> None:
    arguments = {"prompts": [[1], [2]], "ids": ["a", "b"], "max_completion_length": 4, "stop_tokens": [STOP], **change}
    with pytest.raises(error, match=words):
        generate_completions(llama, **arguments)
