"""SPIN: pairs of reference and own draft as ids, the round's start as reference model, TRL's loss and gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE, tiny_llama
from datasets import Dataset
from helpers import built_rows
from helpers.small_runs import SMALL_RUN, MakeBase
from peft import LoraConfig
from transformers import AutoTokenizer, PreTrainedModel
from trl import DPOConfig, DPOTrainer

from gapbridge import ConfigError, DataError, SPINConfig, SPINTrainer, StoreError, build_examples
from gapbridge.data.example import Example, ExampleSet
from gapbridge.decoding import Completion, generate_completions
from gapbridge.methods.spin.rows import spin_pair
from gapbridge.tasks.word_problems import problems


COMMON: dict[str, Any] = {
    **SMALL_RUN,
    "max_length": 400,
    "max_steps": 2,
    "logging_steps": 1,
    "learning_rate": 0.001,
    "max_completion_length": 30,
}


def rows(count: int = 8, split: str = "train") -> Dataset:
    return Dataset.from_list([problem.row() for problem in problems(split, count=count, steps=(1, 2))])


def trainer_of(folder: Path, model: PreTrainedModel, tokenizer: Any, **options: Any) -> SPINTrainer:
    extra = {key: options.pop(key) for key in ("eval_dataset", "peft_config", "ref_model") if key in options}
    args = SPINConfig(str(folder), **{**COMMON, **options})
    return SPINTrainer(model, args, train_dataset=rows(), processing_class=tokenizer, **extra)


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def first_batch(trainer: Any) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = trainer.data_collator(list(trainer.train_dataset.select(range(4))))
    return batch


def answer_log_probability(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> torch.Tensor:
    logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum()


def test_loss_at_the_start_is_log_2_and_gradients_are_by_hand(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    """∇ at π = π_k is -λ/2 · (∇ log π(y|x) - ∇ log π(ŷ|x)), whatever computes the log-probabilities."""
    trainer = trainer_of(tmp_path, make_base(), tokenizer, beta=0.3)
    loss = trainer.compute_loss(trainer.model, first_batch(trainer))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
    plain = make_base()
    margins = [
        answer_log_probability(plain, row["prompt_ids"], row["chosen_ids"])
        - answer_log_probability(plain, row["prompt_ids"], row["rejected_ids"])
        for row in trainer.train_dataset.select(range(4))
    ]
    (torch.stack(margins).mean() * (-0.3 / 2)).backward()
    expected = dict(plain.named_parameters())
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-3, atol=1e-5)


def test_the_reference_is_the_start_in_memory_and_not_what_lies_under_its_name(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    """A model whose weights are others than those on the disk that it names, as in a second round."""
    model = make_base()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.name_or_path == str(BASE)
    trainer = trainer_of(tmp_path, model, tokenizer, max_completion_length=8)
    loss = trainer.compute_loss(trainer.model, first_batch(trainer))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
    reference = trainer.ref_model.state_dict()
    assert all(torch.equal(value, reference[name]) for name, value in start.items())


def test_training_is_trls_dpo_on_the_same_pairs(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    own = trainer_of(tmp_path / "own", make_base(), tokenizer)
    text = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}] * len(own.train_dataset))
    options = {key: value for key, value in COMMON.items() if key != "max_completion_length"}
    theirs = DPOTrainer(
        make_base(), args=DPOConfig(str(tmp_path / "trl"), **options, beta=0.1), train_dataset=text,
        processing_class=tokenizer,
    )  # fmt: skip
    theirs.train_dataset = own.train_dataset  # its constructor takes text only
    own.train()
    theirs.train()
    assert losses(own) == losses(theirs) and losses(own)[1] != losses(own)[0]
    weights = theirs.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in own.model.state_dict().items())


def test_pairs_hold_the_drafts_as_they_were_drawn(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """The prompt of training is the prompt of generation, and no id of a draft is another after training's rows."""
    trainer = trainer_of(tmp_path, make_base(), tokenizer)
    model = make_base().eval()
    for example, row in zip(trainer.examples, trainer.row_ids, strict=True):
        (completion,) = generate_completions(
            model, [example.generation_prompt_ids], ids=[example.id], max_completion_length=30, seed=trainer.args.seed,
            round_index=1,
            stop_tokens=[tokenizer.eos_token_id],
        )  # fmt: skip
        assert row["id"] == example.id and row["prompt_ids"] == example.generation_prompt_ids
        assert row["chosen_ids"] == example.completion_ids and row["chosen_ids"][-1] == tokenizer.eos_token_id
        assert row["rejected_ids"] == completion.tokens and row["sampled"] == [True] * len(completion.tokens)
    assert torch.equal(trainer.ref_model.lm_head.weight, model.lm_head.weight)


def test_with_an_adapter_the_reference_is_the_model_without_it(
    make_base: MakeBase, tokenizer: Any, tmp_path: Path
) -> None:
    full = trainer_of(tmp_path / "whole", make_base(), tokenizer)
    config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    trainer = trainer_of(tmp_path / "lora", make_base(), tokenizer, peft_config=config)
    assert trainer.ref_model is None
    assert trainer.train_dataset[:] == full.train_dataset[:], "drafts are the starting model's"
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=1e-4) and losses(trainer)[1] != losses(trainer)[0]


def made_rows(
    examples: ExampleSet, completions: list[Completion], tokenizer: Any, args: SPINConfig
) -> tuple[list[Any], Any]:
    records = [{"tokens": completion.tokens, "finished": completion.finished} for completion in completions]
    return built_rows(SPINTrainer, zip(examples, records, strict=True), examples, tokenizer, args)


def test_odd_drafts_are_defined_and_counted(tokenizer: Any, tmp_path: Path) -> None:
    eos = tokenizer.eos_token_id
    examples = build_examples(rows(4), tokenizer, stops=[eos], max_length=None)
    references = [example.completion_ids for example in examples]
    completions = [
        Completion([9] * 7, False),
        Completion([eos], True),
        Completion(references[2], True),
        Completion([9] * 500, False),
    ]
    args = SPINConfig(str(tmp_path), **COMMON)
    made, stats = made_rows(examples, completions, tokenizer, args)
    assert stats.counts() == {
        "completions": 4,
        "previous_round_pairs": 0,
        "truncated": 2,
        "exact_match": 1,
        "dropped_overlong": 1,
    }
    assert [row["rejected_ids"] for row in made] == [[9] * 7, [eos]], "nothing is added to a draft at the cap"
    assert "2 truncated; left out: 1 equal to the reference, 1 longer" in stats.summary()
    right = [Completion(reference, True) for reference in references]
    with pytest.raises(DataError, match="got no pair .4 of 4 equal references"):
        made_rows(examples, right, tokenizer, args)


def test_borders(tokenizer: Any) -> None:
    """What a template puts after an answer is in no pair; tokens that merge across the border are in both answers."""
    chatml = AutoTokenizer.from_pretrained(BASE)
    chatml.chat_template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    (example,) = build_examples(rows(1), chatml, stops=[chatml.eos_token_id], max_length=None)
    assert example.template_suffix_ids
    assert spin_pair("a", example, Completion([9], False))["chosen_ids"] == example.completion_ids
    merged = Example("a", [1, 2], [34, 5], [], generation_prompt_ids=[1, 2, 3])
    row = spin_pair("a", merged, Completion([8, 9], False))
    assert row["prompt_ids"] == [1, 2] and row["chosen_ids"] == [34, 5] and row["rejected_ids"] == [3, 8, 9]
    assert row["sampled"] == [False, True, True]


def test_the_round_before_is_trained_along(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    first = trainer_of(tmp_path / "round_1", make_base(), tokenizer)
    first.prepare_dataset()
    second = trainer_of(tmp_path / "round_2", make_base(), tokenizer, round_index=2)
    before = {row["id"]: row["rejected_ids"] for row in first.row_ids}
    again = {row["id"]: row["rejected_ids"] for row in second.row_ids}
    for row_id, completion in before.items():
        assert again[f"{row_id} (round 1)"] == completion
        assert again[row_id] != completion, "another round draws again"
    assert len(again) == 2 * len(before) and second.stats.previous_round_pairs == len(before)
    alone = trainer_of(tmp_path / "round_2", make_base(), tokenizer, round_index=2, include_previous_round_pairs=False)
    assert {row["id"]: row["rejected_ids"] for row in alone.row_ids} == {row_id: again[row_id] for row_id in before}
    assert alone.stats.previous_round_pairs == 0
    with pytest.raises(StoreError, match="Set it to false to train without them"):
        trainer_of(tmp_path / "round_4", make_base(), tokenizer, round_index=4)
    assert not (tmp_path / "round_4").exists(), "nothing is drawn before that is known"
    reordered = replace(first.examples, table=first.examples.table.select(reversed(range(len(first.examples)))))
    completions = [Completion([9], False)] * len(reordered)
    with pytest.raises(StoreError, match="completions of other examples"):
        made_rows(reordered, completions, tokenizer, second.args)


def test_held_out_pairs_are_of_the_rounds_own_drafts(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """Those of the round before are trained along, and not evaluated."""
    options: dict[str, Any] = {"max_completion_length": 4, "eval_dataset": rows(4, "test")}
    trainer_of(tmp_path / "round_1", make_base(), tokenizer, **options).prepare_dataset()
    second = trainer_of(tmp_path / "round_2", make_base(), tokenizer, round_index=2, **options)
    assert len(second.eval_dataset) == 4 and second.eval_stats.previous_round_pairs == 0
    assert second.stats.previous_round_pairs == len(second.examples)


def test_drafts_answer_the_prompt_that_is_asked(tokenizer: Any, tmp_path: Path) -> None:
    """Where a token spans the border, that is not the prompt of training; the pair still begins with both."""
    data = Dataset.from_list([{"id": "a", "prompt": "How man", "completion": "y coins"}])
    (example,) = build_examples(data, tokenizer, stops=[tokenizer.eos_token_id], max_length=None)
    model, args = tiny_llama(len(tokenizer)), SPINConfig(str(tmp_path), **COMMON)
    sampled = SPINTrainer.generation_spec(model, tokenizer, [example], args).generate([example], lambda _: None)
    asked, trained = (
        generate_completions(
            model, [prompt], ids=["a"], max_completion_length=30, seed=args.seed, round_index=1,
            stop_tokens=[tokenizer.eos_token_id],
        )[0]
        for prompt in (example.generation_prompt_ids, example.prompt)
    )  # fmt: skip
    assert sampled["tokens"] == [asked.tokens] and sampled["finished"] == [asked.finished] and asked != trained


def test_held_out_pairs(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, make_base(), tokenizer, eval_dataset=rows(4, "test"))
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert "eval_generated_loss" not in metrics and len(trainer.eval_dataset) == 4
    assert trainer.eval_dataset["chosen_ids"][:] != trainer.eval_dataset["rejected_ids"][:]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beta": -1.0, "max_completion_length": 0}, "2 errors"),
        ({"loss_type": ["hinge"]}, "loss_type: got hinge, expected sigmoid"),
        ({"precompute_ref_log_probs": True}, "precompute_ref_log_probs: got true"),
        (
            {"eval_on_generated_contexts": False, "eval_strategy": "epoch"},
            "eval_on_generated_contexts: got false, so that no held-out pair is left to evaluate",
        ),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        SPINConfig(str(tmp_path), **{**COMMON, **options})


def test_another_reference_model_is_refused(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ref_model: got a model"):
        trainer_of(tmp_path, make_base(), tokenizer, ref_model=make_base())
