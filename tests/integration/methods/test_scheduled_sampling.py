"""Scheduled sampling: contexts against the definition, and what a step must not disturb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers.small_runs import SMALL_RUN, MakeBase
from peft import LoraConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from gapbridge import ConfigError, ScheduledSamplingConfig, ScheduledSamplingTrainer, TrainingError, mix_contexts
from gapbridge.data.example import Example
from gapbridge.data.special_tokens import never_sampled_mask, special_token_ids, suppressed_tokens
from gapbridge.decoding.keyed_sampler import KeyedSampler
from gapbridge.methods.scheduled_sampling.sampling_mask import SamplingMasks, row_id
from gapbridge.runs.run_config import read_job
from gapbridge.tasks.word_problems import problems


COMMON: dict[str, Any] = {
    **SMALL_RUN,
    "max_length": 256,
    "learning_rate": 0.001,
    "max_steps": 1,
    "logging_steps": 1,
    "seed": 7,
    "mixture_coefficient": 0.5,
}


def rows(count: int = 8) -> Dataset:
    """Conversations of two answers, and of one."""
    data = [problem.row() for problem in problems("train", count=2 * count, steps=(1, 2))]
    turns = [row["prompt"] + row["completion"] for row in data]
    return Dataset.from_list([{"messages": turns[at] + (turns[at + count] if at % 2 else [])} for at in range(count)])


def trainer_of(
    folder: Path, model: PreTrainedModel, tokenizer: Any, *, peft_config: Any = None, **options: Any
) -> ScheduledSamplingTrainer:
    args = ScheduledSamplingConfig(str(folder), **{**COMMON, **options})
    return ScheduledSamplingTrainer(
        model, args=args, train_dataset=rows(), processing_class=tokenizer, peft_config=peft_config
    )


def trained_inputs(trainer: ScheduledSamplingTrainer) -> list[tuple[list[int], list[int]]]:
    """(input ids, labels) of every row that the loss was taken over in `train`, without padding."""
    seen = []

    def look(_: nn.Module, __: Any, inputs: dict[str, Any]) -> None:
        if inputs.get("fused_lm_head"):
            for ids, labels, mask in zip(
                *(inputs[key] for key in ("input_ids", "labels", "attention_mask")), strict=True
            ):
                seen.append((ids[mask.bool()].tolist(), labels[mask.bool()].tolist()))

    with trainer.model.register_forward_pre_hook(look, with_kwargs=True):
        trainer.train()
    return seen


def expected_rows(
    model: PreTrainedModel, tokenizer: Any, trainer: ScheduledSamplingTrainer, step: int = 0
) -> dict[tuple[int, ...], list[int]]:
    """The rows with `mix_contexts`' contexts, by their labels."""
    examples = list(trainer.examples)
    control = special_token_ids(tokenizer)
    contexts = mix_contexts(
        model,
        [example.prompt for example in examples],
        [example.completion_ids for example in examples],
        ids=[row_id(example.reference_row()["input_ids"]) for example in examples],
        mixture_coefficient=trainer.args.mixture_coefficient,
        fixed=[never_sampled_mask(example.completion_ids, example.loss_mask, control) for example in examples],
        suppress_tokens=suppressed_tokens(model, tokenizer),
        seed=trainer.args.seed,
        round_index=step,
    )
    return {
        tuple(example.reference_row()["labels"]): [*example.prompt, *context.tokens, *example.template_suffix_ids]
        for example, context in zip(examples, contexts, strict=True)
    }


def shares(trainer: ScheduledSamplingTrainer) -> list[tuple[float, float]]:
    names = ("sampling/sampled_frac", "sampling/replaced_frac")
    return [(entry[names[0]], entry[names[1]]) for entry in trainer.state.log_history if names[0] in entry]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_exact_is_the_definition(accumulate: int, make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """Whatever the batch: two answers in a row, the user's words between, and end-of-turn marks stay."""
    options = {"per_device_train_batch_size": 8 // accumulate, "gradient_accumulation_steps": accumulate}
    trainer = trainer_of(tmp_path, make_base(), tokenizer, num_sampling_passes="exact", **options)
    found = trained_inputs(trainer)
    expected = expected_rows(make_base(), tokenizer, trainer)
    assert {tuple(labels): ids for ids, labels in found} == expected and len(found) == 8
    references = {tuple(example.reference_row()["labels"]): example.reference_row() for example in trainer.examples}
    replaced = sum(
        a != b for labels, ids in expected.items() for a, b in zip(ids, references[labels]["input_ids"], strict=True)
    )
    tokens = sum(sum(example.loss_mask) for example in trainer.examples)
    if accumulate == 1:
        assert shares(trainer)[0][1] == pytest.approx(replaced / tokens) and replaced > 5
        assert shares(trainer)[0][0] == pytest.approx(0.5, abs=0.05)


def test_the_last_token_of_a_cut_row_is_never_drawn(make_base: MakeBase, tokenizer: Any) -> None:
    """It is nobody's context; that of a whole row is a stop token, which no coin falls on anyway."""
    prompt, answer = tokenizer("How many?")["input_ids"], tokenizer("3+4=7, and then some more")["input_ids"]
    ids = torch.tensor([[*prompt, *answer]])
    labels = torch.tensor([[*[-100] * len(prompt), *answer]])
    places = SamplingMasks(tokenizer, make_base())
    sampled = places.step(ids, labels, torch.tensor([ids.shape[1]]), 1.0, seed=0, step=0)
    assert sampled.sampling_mask[0].tolist() == [False] * len(prompt) + [True] * (len(answer) - 1) + [False]


def test_passes(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """One pass draws behind the reference, two behind the first pass's draws; many are exact."""
    found = {
        passes: {
            tuple(y): x
            for x, y in trained_inputs(trainer_of(tmp_path, make_base(), tokenizer, num_sampling_passes=passes))
        }
        for passes in (1, 2, 40, "exact")
    }
    assert found[40] == found["exact"] != found[2] != found[1]
    model, sampler = make_base(), None
    trainer = trainer_of(tmp_path, model, tokenizer)
    options = trainer.args.sampling_params(suppressed_tokens(model, tokenizer))
    sampler = KeyedSampler(options, torch.device("cpu"))
    examples = {tuple(example.reference_row()["labels"]): example for example in trainer.examples}
    for labels, once in found[1].items():
        example = examples[labels]
        assert once == _pass_by_hand(model, sampler, trainer, example, example.reference_row()["input_ids"], once)
        assert found[2][labels] == _pass_by_hand(model, sampler, trainer, example, once, found["exact"][labels])


@torch.no_grad()
def _pass_by_hand(
    model: PreTrainedModel, sampler: KeyedSampler, trainer: Any, example: Example, fed: list[int], sampled: list[int]
) -> list[int]:
    """Every position of `fed` at which a coin fell, drawn behind `fed`."""
    from gapbridge.decoding.noise import bernoulli_mask, example_keys

    row, start, length = example.reference_row()["input_ids"], len(example.prompt), len(example.completion_ids)
    key = example_keys([row_id(row)], seed=trainer.args.seed, round_index=0)
    sampling_mask = bernoulli_mask(key.expand(length, 2), torch.arange(length), 0.5)
    fixed = never_sampled_mask(example.completion_ids, example.loss_mask, special_token_ids(trainer.processing_class))
    logits: Tensor = model(torch.tensor([fed])).logits[0]
    made = list(row)
    for t in range(length - 1):
        if sampling_mask[t] and not fixed[t]:
            made[start + t] = int(sampler(logits[start + t - 1][None], key, torch.tensor([t])))
    return made


def test_the_weights_of_the_step_draw(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """The second step's contexts are those of the weights after the first, with noise of their own."""
    options = {"per_device_train_batch_size": 8, "num_sampling_passes": "exact", "lr_scheduler_type": "constant"}
    first = trainer_of(tmp_path, make_base(), tokenizer, **options)
    first.train()
    trainer = trainer_of(tmp_path, make_base(), tokenizer, max_steps=2, **options)
    found = trained_inputs(trainer)
    expected = expected_rows(first.model, tokenizer, trainer, step=1)
    assert {tuple(labels): ids for ids, labels in found[8:]} == expected
    assert {tuple(labels): ids for ids, labels in found[:8]} != expected


@pytest.mark.parametrize("options", [{"bf16": True}, {"gradient_checkpointing": True}, {"peft": True}])
def test_a_step_is_not_disturbed(options: dict[str, Any], make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """Gradients flow as without the drawing, dropout is off while drawing and on in the step."""
    peft = LoraConfig(r=4, lora_dropout=0.3, target_modules=["q_proj"]) if options.pop("peft", False) else None
    model = make_base()
    model.config.attention_dropout = 0.3
    modes: list[tuple[bool, bool]] = []
    trainer = trainer_of(tmp_path, model, tokenizer, peft_config=peft, learning_rate=0.01, **options)
    before = {name: value.clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    layer = trainer.model.get_base_model().model.layers[0] if peft else trainer.model.model.layers[0]
    with layer.register_forward_pre_hook(lambda *_: modes.append((layer.training, torch.is_grad_enabled()))):
        trainer.train()
    assert modes[0] == (False, False) and modes[-1][0] and (False, True) not in modes
    assert shares(trainer)[0][0] > 0.3
    changed = [
        name for name, value in trainer.model.named_parameters() if name in before and not value.equal(before[name])
    ]
    assert set(changed) == ({name for name in before if "lora_B" in name} if peft else set(before))


def test_schedule_over_training(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path, make_base(), tokenizer, mixture_schedule="linear", max_steps=4, mixture_coefficient=1.0
    )
    trainer.train()
    sampled = [share for share, _ in shares(trainer)]
    assert sampled[0] == 0 and sampled == sorted(sampled)
    assert sampled == pytest.approx([0, 0.25, 0.5, 0.75], abs=0.1)
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] > 0


def test_evaluation_is_on_references(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    """Whatever the coefficient: the mean of -log π(y_t | x, y_<t), as in SFT."""
    trainer = trainer_of(
        tmp_path, make_base(), tokenizer, mixture_coefficient=1.0, temperature=2.0, per_device_eval_batch_size=8
    )
    model, sums, count = make_base(), 0.0, 0
    with torch.no_grad():
        for example in trainer.examples:
            row = example.reference_row()
            labels = torch.tensor(row["labels"][1:])
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
            sums += float(nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-100))
            count += int((labels != -100).sum())
    found = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    assert found == pytest.approx(sums / count, rel=1e-4)
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] == found


def test_non_finite_weights_name_the_rows(make_base: MakeBase, tokenizer: Any, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, make_base(), tokenizer, num_sampling_passes="exact")
    with torch.no_grad():
        trainer.model.get_input_embeddings().weight[:] = float("nan")
    with pytest.raises(TrainingError, match="step 1, a batch with rows [0-9a-f]{16}.*: got a loss of nan"):
        trainer.train()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"packing": True}, "packing: got true"),
        ({"padding_free": True, "max_length": None}, "padding_free: got true"),
        ({"num_sampling_passes": 0}, "num_sampling_passes: got 0"),
        ({"num_sampling_passes": "all"}, "num_sampling_passes: got 'all'"),
        ({"mixture_schedule": "cosine"}, "mixture_schedule: got 'cosine'"),
        ({"mixture_coefficient": 1.5}, "mixture_coefficient: got 1.5"),
        ({"temperature": -1.0}, "temperature: got -1.0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        ScheduledSamplingConfig(str(tmp_path), **{**COMMON, **options})


@pytest.mark.parametrize(("given", "expected"), [("2", 2), ("exact", "exact")])
def test_num_passes_on_the_command_line(given: str, expected: int | str) -> None:
    recipe = "recipes/tiny/scheduled_sampling/config_full.yaml"
    job = read_job(["--config", recipe, "--num_sampling_passes", given], "scheduled_sampling")
    assert job.args.num_sampling_passes == expected
    assert read_job(["--config", recipe], "scheduled_sampling").args.num_sampling_passes == 1
