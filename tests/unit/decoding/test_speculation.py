"""Answers with proposals of future heads are those without, token for token, and take fewer passes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_llama
from helpers.shapes import SHAPES, model_of
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from gapbridge.decoding import SamplingParams, generate_completions
from gapbridge.decoding.keyed_sampler import KeyedSampler
from gapbridge.decoding.mtp_heads import (
    MTPHeads,
    add_heads,
    capture_hidden_states,
    find_decoder_parts,
    find_heads,
    head_states,
    load_adjacent_heads,
    save_heads,
)
from gapbridge.decoding.noise import example_keys
from gapbridge.decoding.speculative_decoding import SpeculativeStats


STOPS = [3, 4, 5]
PROMPTS = [[7 + (3 * row + 5 * at) % 80 for at in range(2 + 4 * row % 13)] for row in range(9)]


def answers(model: PreTrainedModel, speculation: SpeculativeStats | None = None, **options: Any) -> list[Any]:
    settings: dict[str, Any] = {"max_completion_length": 17, "stop_tokens": STOPS, "batch_size": 4, **options}
    return generate_completions(model, PROMPTS, ids=list(range(len(PROMPTS))), speculation=speculation, **settings)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", SHAPES)
def test_the_same_tokens_as_without(name: str, temperature: float) -> None:
    """Ragged prompts, rows that end at stop tokens and at the limit, and more prompts than rows."""
    model = model_of(name)
    plain = answers(model, temperature=temperature)
    heads = add_heads(model, 3)
    for weight in heads.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    speculation = SpeculativeStats(heads)
    assert answers(model, speculation, temperature=temperature) == plain
    assert {completion.finished for completion in plain} == {True, False} or name != "llama"
    assert speculation.tokens == sum(len(completion.tokens) for completion in plain)
    assert 0.25 <= speculation.passes_per_token <= 1


def repeating() -> tuple[PreTrainedModel, int]:
    """A model to which all tokens are alike, so that it says one token for ever, and that token."""
    model = tiny_llama()
    with torch.no_grad():
        model.model.embed_tokens.weight[:] = model.model.embed_tokens.weight[0].clone()
        return model, int(model(torch.tensor([[7, 8]])).logits[0, -1].argmax())


@pytest.mark.parametrize("length", [1, 2, 3, 16])
def test_heads_that_are_right_give_all_their_tokens(length: int) -> None:
    """A model that repeats one token, and heads that know it: n tokens a pass, whatever the limit."""
    model, token = repeating()
    speculation = SpeculativeStats(add_heads(model, 3))
    made = answers(model, speculation, temperature=0.0, max_completion_length=length, stop_tokens=[])
    assert [completion.tokens for completion in made] == [[token] * length] * len(PROMPTS)
    # The prompt's pass gives one token, each further one up to four.
    assert speculation.row_passes == len(PROMPTS) * (1 + -(-(length - 1) // 4))
    assert speculation.accepted == speculation.proposed and (length < 5 or speculation.acceptance == [1.0] * 3)


def test_a_proposal_behind_a_stop_token_counts_for_nothing() -> None:
    """All heads say the stop token: every answer is that token alone."""
    model, token = repeating()
    speculation = SpeculativeStats(add_heads(model, 2))
    made = answers(model, speculation, temperature=0.0, stop_tokens=[token])
    assert [completion.tokens for completion in made] == [[token]] * len(PROMPTS) and all(
        completion.finished for completion in made
    )
    assert speculation.row_passes == speculation.tokens == len(PROMPTS)


def test_rows_that_move_take_their_proposals_along() -> None:
    """With one row a pass nothing moves: the same answers, and as many passes a token."""
    model = model_of("llama")
    heads = add_heads(model, 3)
    found = []
    for batch_size in (1, 4, 9):
        speculation = SpeculativeStats(heads)
        found.append((answers(model, speculation, temperature=1.0, batch_size=batch_size), speculation.row_passes))
    assert found[0] == found[1] == found[2]


LIMIT = 17


def with_alike_tokens(name: str, spread: float, **options: Any) -> tuple[PreTrainedModel, MTPHeads]:
    """A model whose answers depend little on the tokens before them, so that its heads are often right, not always."""
    model = model_of(name) if not options else tiny_llama(**options)
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[:] = weight.mean(0) + spread * (weight - weight.mean(0))
    heads = add_heads(model, 3)
    torch.manual_seed(1)
    for parameter in heads.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model, heads


def proposals_by_position(
    model: PreTrainedModel, heads: MTPHeads, tokens: list[int], prompt_length: int, key: torch.Tensor, how: Any
) -> dict[int, list[int]]:
    """What the heads propose once c answer tokens are known, by c: from one plain pass over the finished row."""
    sampler = KeyedSampler(how, torch.device("cpu"))
    with torch.no_grad(), capture_hidden_states(find_decoder_parts(model)) as captured:
        model(torch.tensor([tokens]), use_cache=False)
        assert captured.states is not None
        logits = [
            captured.parts.unembedding(head_states(heads, at, captured, captured.states))[0]
            for at in range(len(heads))
        ]
    found = {}
    for known in range(1, len(tokens) - prompt_length + 1):
        at = prompt_length + known - 2  # the newest token is the next pass's: the heads stand one place before it
        positions = [torch.tensor([known + head]) for head in range(len(heads))]
        found[known] = [
            int(sampler(logits[head][at][None], key[None], position)) for head, position in enumerate(positions)
        ]
    return found


@pytest.mark.parametrize(("temperature", "spread"), [(0.0, 0.15), (1.0, 0.5)])
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_proposals_and_acceptances_are_those_of_full_passes(name: str, temperature: float, spread: float) -> None:
    """Counts of a simulation without any cache: the heads' cache survives rejections, rows that move and refills."""
    model, heads = with_alike_tokens(name, spread)
    speculation = SpeculativeStats(heads)
    completions = answers(model, speculation, temperature=temperature, max_completion_length=LIMIT)
    how = SamplingParams(temperature=temperature)
    keys = example_keys(list(range(len(PROMPTS))), seed=how.seed, round_index=how.round_index)
    proposed, accepted, passes = [0] * 3, [0] * 3, 0
    for prompt, completion, key in zip(PROMPTS, completions, keys, strict=True):
        answer = completion.tokens
        said = proposals_by_position(model, heads, [*prompt, *answer], len(prompt), key, how)
        known, passes = 1, passes + 1  # the prompt's pass
        while known < len(answer):
            passes, right = passes + 1, 0
            for head in range(3):
                place = known + head
                if place + 1 >= LIMIT or answer[place] in STOPS:
                    break  # the proposal could give no further token
                proposed[head] += 1
                if said[known][head] != answer[place]:
                    break
                accepted[head] += 1
                right += 1
            known += 1 + right
    assert (speculation.proposed, speculation.accepted) == (proposed, accepted)
    assert speculation.row_passes == passes < speculation.tokens
    for head in range(3):
        assert 0 < accepted[head] < proposed[head], "both outcomes are tried"
    assert temperature == 0 or any(completion.finished for completion in completions)


def without_slot_masks(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
    """An attention that takes the masks of flash attention alone."""
    assert mask is None or mask.dim() == 2
    return sdpa_attention_forward(module, query, key, value, None, **options)


@pytest.mark.parametrize("name", SHAPES)
def test_heads_attend_as_the_model_does(name: str, tmp_path: Path) -> None:
    """An attention that the slot cache's mask cannot be given to is exchanged in the heads, too."""
    AttentionInterface.register("without_slot_masks", without_slot_masks)
    model = model_of(name)
    plain = answers(model, temperature=0.0)
    add_heads(model, 2)
    model.save_pretrained(tmp_path)
    save_heads(tmp_path, find_heads(model))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for found in (model, copy.deepcopy(model), loaded):
        found.set_attn_implementation("without_slot_masks")
        assert answers(found, SpeculativeStats(load_adjacent_heads(found)), temperature=0.0) == plain
        assert found.config._attn_implementation == "without_slot_masks"


def test_heads_on_disk_draft_alike_for_a_model_in_training(tmp_path: Path) -> None:
    """Nothing is dropped out in them."""
    model, heads = with_alike_tokens("llama", 0.5, attention_dropout=0.5)
    save_heads(tmp_path, heads)
    del model.future_heads
    model.name_or_path = str(tmp_path)
    found = []
    for training in (False, True):
        beside = load_adjacent_heads(model.train(training))
        assert beside is not None
        speculation = SpeculativeStats(beside)
        completions = answers(model, speculation, temperature=1.0)
        found.append((completions, speculation.proposed, speculation.accepted))
    assert found[0] == found[1] and model.training
