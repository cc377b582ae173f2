"""Every key of TRL and transformers is supported, implied or refused, as docs/reference/trl-keys.md says.

This module writes the page's table: GAPBRIDGE_WRITE_DOCS=1 python -m pytest FILE
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from datasets import Dataset
from transformers import PreTrainedModel, TrainingArguments
from trl import SFTConfig

from gapbridge import BASHConfig, BASHTrainer, ConfigError, DataError
from gapbridge.errors import GapbridgeError


PAGE = ROOT / "docs" / "reference" / "trl-keys.md"
SUPPORTED, IMPLIED, REFUSED = "supported", "implied", "refused"

# SFTConfig's own keys: what becomes of each, and in which form.
OWN: dict[str, tuple[str, str]] = {
    "model_init_kwargs": (
        SUPPORTED,
        "in recipes together with the keys of the model; refused with a loaded model",
    ),
    "trust_remote_code": (SUPPORTED, ""),
    "router_aux_loss_coef": (SUPPORTED, "TRL refuses it for a model without a mixture of experts"),
    "chat_template_path": (SUPPORTED, "applied before any text is tokenised; not together with `chat_template`"),
    "dataset_text_field": (SUPPORTED, "plain text, of which all tokens carry loss; RAC and SPIN refuse it"),
    "dataset_kwargs": (REFUSED, "`skip_prepare_dataset: true` and unknown keys, because the method prepares the data"),
    "dataset_num_proc": (SUPPORTED, ""),
    "eos_token": (SUPPORTED, ""),
    "max_length": (SUPPORTED, "longer rows are truncated; invalid with `truncate_overlong: false`"),
    "truncation_mode": (REFUSED, "`keep_end`: a long row loses the end of its answer, never its prompt"),
    "shuffle_dataset": (SUPPORTED, "after the contexts are generated, which do not depend on the order"),
    "packing": (SUPPORTED, "refused without `max_length`"),
    "packing_strategy": (SUPPORTED, "RAC and scheduled sampling refuse `wrapped`"),
    "padding_free": (SUPPORTED, "with `packing`, or with `max_length` unset; else TRL refuses it"),
    "pad_to_multiple_of": (SUPPORTED, ""),
    "eval_packing": (SUPPORTED, "for reference contexts and generated contexts"),
    "completion_only_loss": (SUPPORTED, "default `true`; `false` trains prompts as well, which RAC refuses"),
    "assistant_only_loss": (SUPPORTED, "default `true`; `false` trains full conversations, which RAC refuses"),
    "loss_type": (SUPPORTED, "`nll` and `dft`, on the labels of the rows"),
    "activation_offloading": (SUPPORTED, "refused on the CPU"),
    "pad_token": (SUPPORTED, "deprecated in TRL"),
}

# The other keys, which transformers has as well, in groups.
INHERITED: list[tuple[str, str, str]] = [
    ("output_dir", SUPPORTED, "in recipes: the directory of the run, with a folder for each round"),
    ("per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps", SUPPORTED,
     "at least 1; `eval_loss` does not depend on the batch size"),
    ("num_train_epochs max_steps", SUPPORTED, "for each round; 0 is refused"),
    ("learning_rate weight_decay adam_beta1 adam_beta2 adam_epsilon optim optim_args optim_target_modules "
     "lr_scheduler_type lr_scheduler_kwargs warmup_steps max_grad_norm", SUPPORTED,
     "checked before anything is generated: a missing package, an unknown argument, a value out of range"),
    ("label_smoothing_factor neftune_noise_alpha", SUPPORTED,
     "contexts are generated without them; `eval_loss` has the smoothing, too"),
    ("bf16 fp16 tf32 bf16_full_eval fp16_full_eval", SUPPORTED, "contexts have the precision of training"),
    ("activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs",
     SUPPORTED, "refused for a model without gradient checkpointing"),
    ("torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps use_cache "
     "average_tokens_across_devices auto_find_batch_size full_determinism skip_memory_metrics debug", SUPPORTED,
     "as in transformers, in training only"),
    ("use_liger_kernel liger_kernel_config", SUPPORTED, "refused without the package, and for the fused loss"),
    ("seed data_seed", SUPPORTED, "`seed` is also used for the contexts"),
    ("use_cpu accelerator_config parallelism_config fsdp fsdp_config deepspeed local_rank ddp_find_unused_parameters "
     "ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout", SUPPORTED,
     "compared with the processes that run: [multi-GPU](../how-to/multi-gpu.md)"),
    ("dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
     "dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order train_sampling_strategy "
     "length_column_name remove_unused_columns label_names", SUPPORTED, "as in transformers"),
    ("eval_strategy eval_steps eval_delay eval_on_start eval_do_concat_batches eval_use_gather_object "
     "eval_accumulation_steps prediction_loss_only include_for_metrics batch_eval_metrics", SUPPORTED,
     "`eval_loss` on references, `eval_generated_loss` on generated contexts; refused without held-out data, but "
     "`eval_on_start`"),
    ("load_best_model_at_end metric_for_best_model greater_is_better", SUPPORTED,
     "each metric that `evaluate` returns, `NAME_…` for several data sets; others only with `compute_metrics`"),
    ("save_strategy save_steps save_total_limit save_on_each_node save_only_model ignore_data_skip "
     "restore_callback_states_from_checkpoint", SUPPORTED, "[resuming](../how-to/resume.md)"),
    ("enable_jit_checkpoint", REFUSED, "a signal already saves a full checkpoint"),
    ("resume_from_checkpoint", REFUSED,
     "in recipes, because the same command resumes a run; scripts give it to `train`"),
    ("logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter log_level "
     "log_level_replica disable_tqdm include_num_input_tokens_seen", SUPPORTED, ""),
    ("report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id", SUPPORTED,
     "a tracker whose package is missing is refused"),
    ("push_to_hub hub_model_id hub_token hub_private_repo hub_revision hub_always_push hub_strategy", SUPPORTED,
     "a recipe's run uploads its final model when it is complete, and refuses `checkpoint` and `all_checkpoints`"),
    ("do_train do_eval", IMPLIED, "the command and `eval_strategy` decide; `do_train: false` is refused in recipes"),
    ("do_predict", REFUSED, "in recipes, because they have no test set"),
]  # fmt: skip

# What is given to the trainer rather than to its configuration.
ARGUMENTS = {
    "compute_loss_func, compute_metrics, data_collator, optimizers, callbacks": (SUPPORTED, "as in TRL"),
    "formatting_func": (SUPPORTED, "its text is trained as plain text; rows of ids are not changed"),
    "train_dataset": (SUPPORTED, "a `Dataset`; streaming (`IterableDataset`) is refused"),
    "eval_dataset": (
        SUPPORTED,
        "a `Dataset`, a stream (read into memory) or a dict of them, also for `evaluate` and `predict`",
    ),
    "args": (SUPPORTED, "`TrainingArguments` are converted to the method's configuration"),
    "peft_config": (SUPPORTED, "contexts are generated without the new adapter; an adapter on `lm_head` is refused"),
}

OPTIONS = {"use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 1, "logging_steps": 1, "max_length": 64}
WORDS = ["two", "three apples", "four apples and a pear", "five"]
ROWS = [{"prompt": f"{word}\n", "completion": f"{word} or {word}"} for word in WORDS * 2]
CHAT = [{"messages": [{"role": role, "content": word} for role in ("user", "assistant")] * 2} for word in WORDS]


def table() -> str:
    lines = [(f"`{name}`", *what) for name, what in OWN.items()]
    lines += [(", ".join(f"`{name}`" for name in names.split()), *what) for names, *what in INHERITED]
    lines += [(", ".join(f"`{name}`" for name in names.split(", ")), *what) for names, what in ARGUMENTS.items()]
    return "".join(
        f"| {' | '.join(line)} |\n" for line in [("key or argument", "group", "notes"), ("---",) * 3, *lines]
    )


def test_every_key_has_its_line() -> None:
    inherited = [name for names, *_ in INHERITED for name in names.split()]
    assert len(inherited) == len(set(inherited))
    of_transformers = {field.name for field in fields(TrainingArguments)}
    assert set(inherited) == of_transformers
    assert set(OWN) == {field.name for field in fields(SFTConfig)} - of_transformers


def test_the_documented_table_is_this_one() -> None:
    text = PAGE.read_text(encoding="utf-8")
    wanted = f"{text.split('| key or argument |')[0].rstrip()}\n\n{table()}"
    if os.environ.get("GAPBRIDGE_WRITE_DOCS"):
        PAGE.write_text(wanted, encoding="utf-8")
        text = wanted
    again = f"GAPBRIDGE_WRITE_DOCS=1 python -m pytest {__file__}"
    assert text == wanted, f"the table in {PAGE} is not that of this module: write it again with {again}"


Make = Callable[..., BASHTrainer]


@pytest.fixture
def make(tmp_path: Path, make_base: Callable[[], PreTrainedModel], tokenizer: Any) -> Make:
    """A trainer on eight small rows, with options of its configuration and arguments of its own."""

    def build(rows: list[Any] = ROWS, arguments: dict[str, Any] | None = None, **options: Any) -> BASHTrainer:
        count = len(list(tmp_path.iterdir()))
        args = BASHConfig(str(tmp_path / str(count)), **{**OPTIONS, **options})
        data = Dataset.from_list(rows)
        given = {"train_dataset": data, "eval_dataset": data, "processing_class": tokenizer, **(arguments or {})}
        return BASHTrainer(make_base(), args, **given)

    return build


def outcome(trainer: BASHTrainer) -> tuple[Any, ...]:
    """The first batch, the prepared rows, and the loss of the first step."""
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.train()
    loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return batch["input_ids"].tolist(), trainer.train_dataset[:], trainer.eval_dataset[:], loss


def own_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    return outputs.logits.float().square().mean()


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing_factor": 0.1}, {"loss_type": "dft"}, {"neftune_noise_alpha": 5.0}, {"shuffle_dataset": True},
        {"train_sampling_strategy": "group_by_length"}, {"pad_to_multiple_of": 64}, {"packing": True},
        {"packing": True, "packing_strategy": "bfd_split"}, {"padding_free": True, "max_length": None},
        {"eval_packing": True}, {"arguments": {"compute_loss_func": own_loss}},
    ],
    ids=lambda options: "-".join(options),
)  # fmt: skip
def test_supported_options_have_an_effect(options: dict[str, Any], make: Make) -> None:
    assert outcome(make(**options)) != outcome(make())


@pytest.mark.parametrize(
    "options",
    [
        {"completion_only_loss": True}, {"assistant_only_loss": True}, {"dataset_kwargs": {}},
        {"dataset_kwargs": {"skip_prepare_dataset": False}}, {"activation_checkpointing": False},
        {"remove_unused_columns": False}, {"eval_on_start": True},
    ],
    ids=lambda options: "-".join(options),
)  # fmt: skip
@pytest.mark.parametrize("rows", [ROWS, CHAT], ids=["pairs", "chat"])
def test_implied_options_change_nothing(rows: list[Any], options: dict[str, Any], make: Make) -> None:
    assert outcome(make(rows, **options)) == outcome(make(rows))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"eval_dataset": {"a": ROWS}}, DataError, r"eval_dataset\['a'\]: got a list, expected a datasets.Dataset"),
        ({"train_dataset": Dataset.from_list(ROWS).to_iterable_dataset()}, DataError, "train_dataset: got Iterable"),
    ],
)
def test_refused_arguments(
    arguments: dict[str, Any], error: type[GapbridgeError], words: str, make: Make, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        make(arguments=arguments)
    with pytest.raises(ConfigError, match="got options for a loaded model"):
        make(model_init_kwargs={"attn_implementation": "eager"})
    assert not list(tmp_path.iterdir())


def test_best_model_by_generated_loss(make: Make) -> None:
    strategies = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = make(load_best_model_at_end=True, metric_for_best_model="generated_loss", **strategies)
    trainer.train()
    assert trainer.state.best_model_checkpoint and trainer.state.best_metric > 0


def test_eval_on_start_without_held_out_data(make: Make) -> None:
    trainer = make(arguments={"eval_dataset": None}, eval_on_start=True)
    trainer.train()
    assert trainer.state.global_step == 1
