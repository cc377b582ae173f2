"""RAC: loss on the reference alone, the model's own drafts, and every odd draft defined and counted."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE
from datasets import Dataset
from helpers import built_rows
from helpers.small_runs import SMALL_RUN, MakeBase
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedModel

from gapbridge import ConfigError, DataError, RACConfig, RACTrainer, build_examples
from gapbridge.data.special_tokens import stop_tokens
from gapbridge.decoding import Completion, SamplingParams, generate_completions
from gapbridge.methods.rac.correct import correct, corrected_answers
from gapbridge.methods.rac.rows import CorrectionTemplates, rac_row
from gapbridge.tasks.word_problems import problems
from gapbridge.training.decoding_mode import AnswerRequest


tokens = st.lists(st.integers(0, 96), max_size=8)
COMMON: dict[str, Any] = {
    **SMALL_RUN,
    "max_length": 400,
    "max_steps": 2,
    "logging_steps": 1,
    "max_completion_length": 40,
}


def chat_rows(count: int = 12, split: str = "train") -> Dataset:
    return Dataset.from_list([problem.row() for problem in problems(split, count=count, steps=(1, 2))])


def sft_rows(count: int = 12) -> Dataset:
    rows = [
        {"id": p.id, "prompt": p.prompt + "\n", "completion": p.answer}
        for p in problems("train", count=count, steps=(1,))
    ]
    return Dataset.from_list(rows)


def trainer_of(
    folder: Path, model: PreTrainedModel, tokenizer: Any, data: Dataset | None = None, **options: Any
) -> RACTrainer:
    extra = {key: options.pop(key) for key in ("eval_dataset",) if key in options}
    args = RACConfig(str(folder), **{**COMMON, **options})
    return RACTrainer(
        model, args=args, train_dataset=chat_rows() if data is None else data, processing_class=tokenizer, **extra
    )


@given(x=tokens, y_hat=tokens, cue=tokens, y=st.lists(st.integers(0, 96), min_size=1, max_size=8), tail=tokens)
def test_the_loss_falls_on_the_reference_alone(
    x: list[int], y_hat: list[int], cue: list[int], y: list[int], tail: list[int]
) -> None:
    row = rac_row(x, y_hat, cue, y, tail)
    silent = len(x) + len(y_hat) + len(cue)
    assert row["input_ids"] == [*x, *y_hat, *cue, *y, *tail]
    assert row["labels"] == [-100] * silent + [*y, *tail]
    other = rac_row(x, [token + 1 for token in y_hat], cue, y, tail)
    assert other["labels"] == row["labels"], "a draft token changes no label"


def test_chat_rows_are_what_the_template_renders(tokenizer: Any) -> None:
    _, cue = CorrectionTemplates(tokenizer, "Again?", [tokenizer.eos_token_id], conversational=True).of({})
    assert tokenizer.decode(cue) == "<|user|>Again?<|end|><|assistant|>"
    chatml = AutoTokenizer.from_pretrained(BASE)
    chatml.chat_template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    examples = build_examples(chat_rows(1), chatml, stops=[chatml.eos_token_id], max_length=None)
    (example,) = examples
    completion = chatml("my own answer")["input_ids"]
    templates = CorrectionTemplates(chatml, "Again?", [chatml.eos_token_id], conversational=True)
    own, cue = templates.completion_and_cue(Completion([*completion, chatml.eos_token_id], True), {})
    row = rac_row(example.prompt, own, cue, example.completion_ids, example.template_suffix_ids)
    source = chat_rows(1)[0]
    turns = [
        *source["prompt"],
        {"role": "assistant", "content": "my own answer"},
        {"role": "user", "content": "Again?"},
        *source["completion"],
    ]
    assert row["input_ids"] == chatml.apply_chat_template(turns, return_dict=True)["input_ids"]


def test_templates_that_cannot_carry_a_correction_are_refused(tokenizer: Any) -> None:
    forgetful = AutoTokenizer.from_pretrained(BASE)
    earlier_answers_vanish = "loop.last or m['role'] != 'assistant'"
    forgetful.chat_template = (
        f"{{% for m in messages %}}{{% if {earlier_answers_vanish} %}}{{{{ m['content'] }}}}{{% endif %}}"
        "<|end|>{% endfor %}"
    )
    with pytest.raises(ConfigError, match="an assistant turn that is rendered differently"):
        CorrectionTemplates(forgetful, "Again?", [forgetful.eos_token_id], conversational=True).of({})
    forgetful.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ConfigError, match="no stop token after an assistant turn"):
        CorrectionTemplates(forgetful, "Again?", [forgetful.eos_token_id], conversational=True).of({})


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("form", ["chat", "plain"])
def test_masks_by_hand(form: str, packing: bool, make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """Exactly y and its EOS carry loss, whatever the form and the layout."""
    data = chat_rows() if form == "chat" else sft_rows()
    if form == "plain":
        tokenizer = AutoTokenizer.from_pretrained(BASE)
        tokenizer.chat_template = None
    trainer = trainer_of(tmp_path, make_base(), tokenizer, data, packing=packing, sft_fraction=0.5)
    references = [tuple(example.completion_ids) for example in trainer.examples]
    trained: list[tuple[int, ...]] = []
    for row in trainer.train_dataset:
        piece: list[int] = []
        for token, label in zip(row["input_ids"], row["labels"], strict=True):
            assert label in (-100, token)
            if label != -100:
                piece.append(label)
            elif piece:
                trained.append(tuple(piece))
                piece = []
        trained.append(tuple(piece))
    assert sorted(trained) == sorted(references * 2), "a correction row and a plain row for each example"
    assert all(piece[-1] == tokenizer.eos_token_id for piece in trained)
    trainer.train()


def test_loss_is_the_hand_computed_one(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    model = make_base().eval()
    trainer = trainer_of(tmp_path, make_base(), tokenizer, chat_rows(4), max_steps=1, sft_fraction=0.0)
    total, count = 0.0, 0
    for example in trainer.examples:
        (completion,) = generate_completions(
            model, [example.prompt], ids=[example.id], max_completion_length=40, seed=trainer.args.seed, round_index=1,
            stop_tokens=stop_tokens(tokenizer, model),
        )  # fmt: skip
        context = [*example.prompt, *completion.tokens, *([] if completion.finished else [tokenizer.eos_token_id])]
        context += tokenizer(f"<|user|>{trainer.args.correction_prompt}<|end|><|assistant|>")["input_ids"]
        for label in example.completion_ids:
            with torch.no_grad():
                total -= float(model(torch.tensor([context])).logits[0, -1].log_softmax(-1)[label])
            context.append(label)
            count += 1
    trainer.train()
    assert [e["loss"] for e in trainer.state.log_history if "loss" in e] == [pytest.approx(total / count, rel=1e-4)]


def rows_of(examples: Any, completions: list[Completion], tokenizer: Any, args: RACConfig) -> tuple[list[Any], Any]:
    records = [{"tokens": completion.tokens, "finished": completion.finished} for completion in completions]
    pairs = zip(examples, records, strict=True)
    return built_rows(RACTrainer, pairs, examples, tokenizer, args)


def test_odd_drafts_are_defined_and_counted(tokenizer: Any, tmp_path: Path) -> None:
    eos = tokenizer.eos_token_id
    examples = build_examples(chat_rows(5), tokenizer, stops=[eos], max_length=None)
    references = [example.completion_ids for example in examples]
    completions = [
        Completion([], False),
        Completion([eos], True),
        Completion([9] * 7, False),
        Completion(references[3], True),
        Completion([9] * 500, False),
    ]
    args = RACConfig(str(tmp_path), **{**COMMON, "max_length": 300, "sft_fraction": 0.0})
    _, cue = CorrectionTemplates(tokenizer, args.correction_prompt, [eos], conversational=True).of({})
    dataset, stats = rows_of(examples, completions, tokenizer, args)
    assert stats.counts() == {"completions": 5, "truncated": 3, "exact_match": 1, "dropped_overlong": 1, "sft_rows": 0}
    assert "1 equal to the reference" in stats.summary()
    prompts = {example.id: example.prompt for example in examples}
    drafted = [row["input_ids"][len(prompts[row["id"]]) :] for row in dataset]
    assert drafted[0][: 1 + len(cue)] == [eos, *cue], "an empty draft is an empty turn"
    assert drafted[1][: 1 + len(cue)] == [eos, *cue], "a draft of EOS alone as well"
    assert drafted[2][: 8 + len(cue)] == [9] * 7 + [eos, *cue], "a draft at the cap is closed"
    assert drafted[3][: len(references[3])] == references[3], "a right draft is kept"
    args = RACConfig(str(tmp_path), **{**COMMON, "max_length": 20, "sft_fraction": 0.0})
    with pytest.raises(DataError, match="max_length: got 20, into which none of 5 correction rows"):
        rows_of(examples, completions, tokenizer, args)


def test_plain_text_drafts_lose_their_stop_token(tokenizer: Any) -> None:
    eos = tokenizer.eos_token_id
    templates = CorrectionTemplates(tokenizer, "Again?", [], conversational=False)
    own, cue = templates.completion_and_cue(Completion([7, eos], True), {})
    assert own == [7] and tokenizer.decode(cue) == "\n\nAgain?\n"
    assert templates.completion_and_cue(Completion([7, 8], False), {}) == ([7, 8], cue)


@pytest.mark.parametrize(
    ("share", "plain", "correction"), [(0.0, 0, 300), (0.25, 100, 300), (0.5, 300, 300), (0.75, 300, 100)]
)
def test_share_of_plain_rows(share: float, plain: int, correction: int, tokenizer: Any, tmp_path: Path) -> None:
    eos = tokenizer.eos_token_id
    examples = build_examples(chat_rows(300), tokenizer, stops=[eos], max_length=None)
    args = RACConfig(str(tmp_path), **{**COMMON, "max_length": None, "sft_fraction": share})
    dataset, stats = rows_of(examples, [Completion([9, eos], True)] * 300, tokenizer, args)
    assert stats.sft_rows == pytest.approx(plain, abs=30)
    assert stats.completions == pytest.approx(correction, abs=30)
    assert len(dataset) == stats.sft_rows + stats.completions


def test_evaluation_of_first_answer_and_correction(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, make_base(), tokenizer, eval_dataset=chat_rows(6, "test"))
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] > 0 and metrics["eval_generated_loss"] > 0
    assert len(trainer._generated_eval_dataset) == 6 and trainer.eval_stats.sft_rows == 0


def test_correct_uses_the_layout_of_training(make_base: MakeBase, tokenizer: Any) -> None:
    model = make_base()
    turns = [problem.row()["prompt"] for problem in problems("test", count=3, steps=(1,))]
    ids = [tokenizer.apply_chat_template(t, add_generation_prompt=True, return_dict=True)["input_ids"] for t in turns]
    by_turns = correct(model, tokenizer, turns, max_completion_length=20)
    assert by_turns == correct(model, tokenizer, ids, max_completion_length=20)
    stops = stop_tokens(tokenizer, model)
    (first,) = generate_completions(
        model, [ids[0]], ids=[0], max_completion_length=20, temperature=0.0, stop_tokens=stops
    )
    assert by_turns[0].first == tokenizer.decode(first.tokens, skip_special_tokens=True)
    again = [*turns[0], {"role": "assistant", "content": by_turns[0].first}, {"role": "user", "content": "Again?"}]
    second_prompt = tokenizer.apply_chat_template(again, add_generation_prompt=True, return_dict=True)["input_ids"]
    (second,) = generate_completions(
        model, [second_prompt], ids=[0], max_completion_length=20, temperature=0.0, stop_tokens=stops
    )
    (result,) = correct(model, tokenizer, turns[:1], max_completion_length=20, correction_prompt="Again?")
    if first.finished:  # a closed turn is rendered as it was sampled
        assert result.corrected == tokenizer.decode(second.tokens, skip_special_tokens=True)
    assert len(correct(model, tokenizer, ["Ana has 3 pens.\n"], max_completion_length=4)) == 1
    assert correct(model, tokenizer, []) == []


def test_correct_takes_what_the_template_was_trained_with(make_base: MakeBase, tokenizer: Any) -> None:
    own = copy.deepcopy(tokenizer)
    own.chat_template = own.chat_template.replace(
        "{{ '<|assistant|>' }}", "{{ '<|assistant|>' + strftime_now('%Y') }}{% if brief %}{{ ' brief' }}{% endif %}"
    )
    model, turns = make_base(), [row["prompt"] for row in chat_rows(2)]
    how: dict[str, Any] = {"date": "2031-05-01", "chat_template_kwargs": {"brief": True}}
    text = [own.apply_chat_template(t, tokenize=False) + "<|assistant|>2031 brief" for t in turns]
    ids = [own(t)["input_ids"] for t in text]
    by_turns = correct(model, own, turns, max_completion_length=8, **how)
    assert by_turns == correct(model, own, ids, max_completion_length=8, **how)
    templates = CorrectionTemplates(own, "Again?", stop_tokens(own, model), conversational=True, date=how["date"])
    _, cue = templates.of(how["chat_template_kwargs"])
    assert tokenizer.decode(cue).endswith("<|assistant|>2031 brief")


def test_a_rows_own_arguments_hold_for_its_request(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    own = copy.deepcopy(tokenizer)
    role, ask = "{{ '<|' + message['role'] + '|>' }}", "{{ '<|assistant|>' }}"
    assert role in own.chat_template and ask in own.chat_template
    brief = "{% if brief %}{{ ' brief' }}{% endif %}"
    own.chat_template = own.chat_template.replace(ask, ask + brief).replace(
        role, role + "{% if message['role'] == 'assistant' %}" + brief + "{% endif %}"
    )
    rows = chat_rows(4).add_column("chat_template_kwargs", [{"brief": True}, {"brief": False}] * 2)
    trainer = trainer_of(tmp_path, make_base(), own, rows, sft_fraction=0.0)
    trained = [tokenizer.decode(row["input_ids"]) for row in trainer.row_ids]
    assert [text.count("<|assistant|> brief") for text in trained] == [2, 0, 2, 0]
    examples = trainer.examples
    prompts = [example.generation_prompt_ids for example in examples]
    arguments = [examples.arguments_of(example.template_kwargs_json) for example in examples]
    first = generate_completions(
        make_base(), prompts, ids=range(4), max_completion_length=4, stop_tokens=examples.stops, temperature=0.0
    )
    how: dict[str, Any] = {
        "conversational": True, "settings": {"correction_prompt": "Again?"}, "max_completion_length": 6,
        "options": SamplingParams(temperature=0.0),
    }  # fmt: skip
    request = AnswerRequest(prompts, first, ids=range(4), chat_template_kwargs=arguments, **how)
    together = corrected_answers(make_base(), own, request)
    alone = [
        AnswerRequest([prompts[at]], [first[at]], ids=[at], chat_template_kwargs=[arguments[at]], **how)
        for at in range(4)
    ]
    apart = [corrected_answers(make_base(), own, one)[0] for one in alone]
    assert together == apart


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sft_fraction": 1.1}, "sft_fraction: got 1.1, expected a number from"),
        ({"max_completion_length": 0, "sft_fraction": -0.1}, "2 errors"),
        ({"correction_prompt": " "}, "correction_prompt: got an empty"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        RACConfig(str(tmp_path), **{**COMMON, **options})


def test_drafts_are_recorded_and_found_again(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    first = trainer_of(tmp_path, make_base(), tokenizer)
    first.prepare_dataset()
    manifest = json.loads((tmp_path / "_contexts" / "manifest.json").read_text())
    assert manifest["identity"]["method"] == "rac" and manifest["identity"]["max_completion_length"] == 40
    again = trainer_of(tmp_path, make_base(), tokenizer, generation_batch_size=3, sft_fraction=0.5)
    assert again.train_dataset[:] == first.train_dataset[:]
