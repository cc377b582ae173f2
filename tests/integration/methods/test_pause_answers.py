"""What a paused model says: saved and loaded, served, in the contexts and drafts of other methods, in evaluation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE
from datasets import Dataset
from helpers.paused import COMMON, chats, examples_of, pause, prompts, texts, trainer_of, untied
from helpers.small_runs import MakeBase
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from gapbridge import BASHConfig, BASHTrainer, ConfigError, RACConfig, RACTrainer
from gapbridge.data.pauses import pauses_after_prompt
from gapbridge.decoding import Completion, SamplingParams, generate_completions
from gapbridge.decoding.mtp_heads import add_heads
from gapbridge.generation.decoding_modes import read_modes
from gapbridge.methods.mtp import speculative
from gapbridge.methods.pause.inference import generate, paused_answers, paused_prompt, paused_template
from gapbridge.methods.rac.correct import correct, corrected_answers
from gapbridge.tasks.word_problems import problems
from gapbridge.training.decoding_mode import AnswerRequest


def test_saved_and_loaded_it_answers_with_the_same_tokens(
    own_tokenizer: Any, make_base: MakeBase, tmp_path: Path
) -> None:
    """And `transformers` alone gives them too: model, tokenizer, and M times the token's text behind the prompt."""
    trainer = trainer_of(tmp_path, make_base(), own_tokenizer)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    wanted = generate(trainer.model, own_tokenizer, prompts(), max_completion_length=12)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert generate(model, tokenizer, prompts(), max_completion_length=12) == wanted
    for prompt, answer in zip(prompts(), wanted, strict=True):
        asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False) + "<|pause|>" * 3
        ids = tokenizer(asked, return_tensors="pt")
        said = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert tokenizer.decode(said, skip_special_tokens=True) == answer


def test_prompts_for_servers(own_tokenizer: Any) -> None:
    index = pause(None, own_tokenizer, 3)
    chat = [{"role": "user", "content": "How many?"}]
    asked = own_tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert paused_prompt(own_tokenizer, chat) == [*asked, index, index, index] == paused_prompt(own_tokenizer, asked)
    assert paused_prompt(own_tokenizer, chat, 0) == asked
    text = "A text,\n"
    assert paused_prompt(own_tokenizer, text, 2) == [*own_tokenizer(text)["input_ids"], index, index]
    served = paused_template(own_tokenizer)
    render = {"chat_template": served, "tokenize": False}
    plain = own_tokenizer.apply_chat_template(chat, tokenize=False)
    assert own_tokenizer.apply_chat_template(chat, **render) == plain, "a conversation that asks nothing"
    for options, count in (({}, 3), ({"num_pause_tokens": 5}, 5), ({"num_pause_tokens": 0}, 0)):
        text = own_tokenizer.apply_chat_template(chat, add_generation_prompt=True, **render, **options)
        assert own_tokenizer(text)["input_ids"] == [*asked, *[index] * count]
    for wrong in (-1, 1.5, True):
        with pytest.raises(ConfigError, match="an integer"):
            paused_prompt(own_tokenizer, chat, wrong)  # type: ignore[arg-type]


def test_no_answer_holds_a_pause(own_tokenizer: Any, make_base: MakeBase) -> None:
    """Not even of a model that would write nothing else; here and with `transformers`' own `generate`."""
    model = untied(make_base())
    index = pause(model, own_tokenizer)
    last = torch.tensor([paused_prompt(own_tokenizer, prompts(1)[0])])
    hidden = model.model(last).last_hidden_state[0, -1]
    with torch.no_grad():
        model.get_output_embeddings().weight[index] = 100 * hidden / hidden.norm() ** 2
    assert model(last).logits[0, -1].argmax() == index
    for options in ({}, {"temperature": 1.0}):
        (answer,) = generate(model, own_tokenizer, prompts(1), max_completion_length=8, **options)
        assert answer
    args = RACConfig("unused", use_cpu=True, bf16=False, report_to="none", max_completion_length=8)
    contexts = RACTrainer.generation_spec(model, own_tokenizer, examples_of(chats(2), own_tokenizer), args)
    assert contexts is not None
    sampled = contexts.generate(list(examples_of(chats(2), own_tokenizer)), lambda _: None)
    assert not any(index in tokens for tokens in sampled["tokens"])
    assert index not in model.generate(last, max_new_tokens=8, do_sample=False)[0, last.shape[1] :]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("barred", ["pause", "padding"])
def test_nobody_who_knows_the_tokenizer_writes_what_no_answer_holds(
    barred: str, temperature: float, own_tokenizer: Any, make_base: MakeBase
) -> None:
    """A model that would write nothing but the pause, or an id of the padded vocabulary."""
    model = untied(make_base())
    index = pause(model, own_tokenizer) if barred == "pause" else len(own_tokenizer) + 3
    if barred == "padding":
        model.resize_token_embeddings(len(own_tokenizer) + 8, mean_resizing=False)
    head = nn.Linear(model.config.hidden_size, model.config.vocab_size)
    head.weight = model.lm_head.weight
    head.bias.data = torch.zeros(model.config.vocab_size)
    head.bias.data[own_tokenizer.all_special_ids] = -1e4
    head.bias.data[index] = 1e4
    model.set_output_embeddings(head)
    asked = [own_tokenizer(text)["input_ids"] for text in ("Ann has 4 apples", "12 + 7 = ")]
    how: dict[str, Any] = {"max_completion_length": 6}
    written: list[Completion] = []
    draw, ids = SamplingParams(temperature=temperature), ["a", "b"]
    first = generate_completions(model, asked, ids=ids, options=draw, stop_tokens=[own_tokenizer.eos_token_id], **how)
    assert all(index in completion.tokens for completion in first), "nothing is barred where no tokenizer is known"
    request = partial(AnswerRequest, asked, first, ids=ids, options=draw, **how)
    correction = {"conversational": False, "settings": {"correction_prompt": "Again?"}}
    written += corrected_answers(model, own_tokenizer, request(**correction))
    if barred == "pause":
        other = {"conversational": False, "settings": {"num_pause_tokens": 1}}
        written += paused_answers(model, own_tokenizer, request(**other))
    add_heads(model, 1)
    for options in ({"options": draw}, {"temperature": temperature, "suppress_tokens": [5]}):
        completions, _ = speculative.generate(model, asked, tokenizer=own_tokenizer, ids=ids, **options, **how)
        written += completions
    assert written and not any(index in completion.tokens for completion in written)
    for pair in correct(model, own_tokenizer, asked, conversational=False, temperature=temperature, **how):
        assert pair.first and pair.corrected


def test_mixed_contexts_of_a_paused_model(own_tokenizer: Any, make_base: MakeBase, tmp_path: Path) -> None:
    """The rows carry the pauses; no coin falls on one, also where the data's own answers hold some."""
    model = make_base()
    index = pause(model, own_tokenizer, 2)
    data = Dataset.from_list(
        [
            {"id": p.id, "prompt": f"{p.prompt}\n", "completion": p.answer[:9] + "<|pause|>" * 2 + p.answer[9:]}
            for p in problems("train", count=4, steps=(1,))
        ]
    )
    args = BASHConfig(str(tmp_path), **COMMON, mixture_coefficient=1.0)
    trainer = BASHTrainer(model=model, args=args, train_dataset=data, processing_class=own_tokenizer)
    assert pauses_after_prompt(own_tokenizer) == [index] * 2, "another method leaves them as they are"
    for row, example in zip(trainer.row_ids, trainer.examples, strict=True):
        assert row["input_ids"][: len(example.prompt)] == example.prompt and example.prompt[-2:] == [index] * 2
        at = [place for place, token in enumerate(row["input_ids"]) if token == index]
        full = [place for place, token in enumerate([*example.prompt, *example.completion_ids]) if token == index]
        assert at == full and len(at) == 4 and not any(row["sampled"][place] for place in at)
        assert sum(row["sampled"]) > 5
    trainer.train()


@pytest.mark.parametrize("data", [chats(3), texts(3)], ids=["chat", "text"])
def test_corrections_of_a_paused_model(data: Dataset, own_tokenizer: Any, make_base: MakeBase, tmp_path: Path) -> None:
    """x, pauses, draft, request, pauses, y; and what is asked for a correction afterwards is what was trained."""
    model = make_base()
    index = pause(model, own_tokenizer, 2)
    args = RACConfig(str(tmp_path), **COMMON, sft_fraction=0.0, max_completion_length=10)
    trainer = RACTrainer(model=model, args=args, train_dataset=data, processing_class=own_tokenizer)
    for row, example in zip(trainer.row_ids, trainer.examples, strict=True):
        start = row["labels"].index(example.completion_ids[0])
        assert (
            row["input_ids"][start:]
            == [*example.completion_ids, *example.template_suffix_ids]
            == row["labels"][start:]
        )
        assert row["input_ids"][start - 2 : start] == [index] * 2
        first = row["sampled"].index(True)
        assert (
            row["input_ids"][:first] == example.generation_prompt_ids
            and row["input_ids"][first - 2 : first] == [index] * 2
        )
        assert row["input_ids"].count(index) == 4 and index not in row["labels"]
    asked = [row["prompt"] for row in data]
    (one, *_), (other, *_) = (
        correct(model, own_tokenizer, some, max_completion_length=6, conversational=isinstance(asked[0], list))
        for some in (asked, [example.generation_prompt_ids for example in trainer.examples])
    )
    assert one == other


def test_the_answer_mode(own_tokenizer: Any, make_base: MakeBase) -> None:
    model, plain = make_base(), AutoTokenizer.from_pretrained(BASE)
    pause(model, own_tokenizer, 3)
    asked = [example.generation_prompt_ids for example in examples_of(chats(2, "test"), own_tokenizer)]
    first = [Completion([5, 1], True)] * 2
    how: dict[str, Any] = {"ids": [0, 1], "conversational": True, "max_completion_length": 8}
    how["options"] = SamplingParams(temperature=0, suppress_tokens=(512,))
    for same in (None, 3):
        request = AnswerRequest(asked, first, settings={"num_pause_tokens": same}, **how)
        assert paused_answers(model, own_tokenizer, request) == first
    for count in (0, 5):
        request = AnswerRequest(asked, first, settings={"num_pause_tokens": count}, **how)
        completions = paused_answers(model, own_tokenizer, request)
        bare = [ids[:-3] for ids in asked]
        said = generate(model, own_tokenizer, bare, num_pause_tokens=count, max_completion_length=8)
        assert [
            own_tokenizer.decode(completion.tokens, skip_special_tokens=True) for completion in completions
        ] == said
    with pytest.raises(ConfigError, match="no pause token"):
        paused_answers(make_base(), plain, AnswerRequest(asked, first, settings={"num_pause_tokens": None}, **how))


def test_both_modes_are_those_that_any_model_can_take() -> None:
    from argparse import Namespace

    told, _ = read_modes(Namespace(decoding_mode=["all"]), [])
    assert "pause" not in told and {"single_pass", "self_correct"} <= set(told)
    told, rest = read_modes(
        Namespace(decoding_mode=["single_pass", "pause"]), ["--num_pause_tokens", "4", "--seed", "1"]
    )
    assert told["pause"] == {"num_pause_tokens": "4"} and rest == ["--seed", "1"]
