"""What becomes of each key of the alignment-handbook's recipes (0.4.0.dev0, commit 925acdf: 22 recipes, 70 keys).

The parser reads it for the keys that are taken and have no effect here: it says so. `old_keys` translates.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from .deprecated_keys import DROPPED, RENAMED


KeySupport = Literal["taken", "translated", "no effect", "refused"]


class HandbookKey(NamedTuple):
    """`detail` is the key that it becomes, or why it has no effect or is refused; `preferences`: what becomes of it in
    methods that learn from preferences, where that is another fate."""

    fate: KeySupport
    detail: str = ""
    preferences: KeySupport | None = None


_TAKEN = """
    attn_implementation average_tokens_across_devices bf16 chat_template dataset_config dataset_mixture dataset_name
    dataset_num_proc dataset_test_split dataset_train_split ddp_timeout eos_token eval_steps eval_strategy
    gradient_accumulation_steps gradient_checkpointing gradient_checkpointing_kwargs hub_model_id hub_private_repo
    learning_rate load_in_4bit log_level logging_steps logging_strategy lora_alpha lora_dropout lora_r
    lora_target_modules lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_length max_steps model_name_or_path
    model_revision num_train_epochs optim output_dir packing padding_free per_device_eval_batch_size
    per_device_train_batch_size push_to_hub remove_unused_columns report_to run_name save_steps save_strategy
    save_total_limit seed trust_remote_code use_liger_kernel use_peft warmup_steps
""".split()
_PREFERENCES = "preferences' own: `start from the SFT recipe`"

HANDBOOK_KEYS: dict[str, HandbookKey] = {
    **{key: HandbookKey("taken") for key in _TAKEN},
    **{key: HandbookKey("translated", RENAMED[key]) for key in (
        "hub_model_revision", "max_seq_length", "torch_dtype", "warmup_ratio"
    )},
    "dataset_mixer": HandbookKey("translated", "datasets"),
    "dataset_splits": HandbookKey("translated", "eval_datasets"),
    "packing_strategy": HandbookKey("translated", "packing_strategy"),
    "assistant_only_loss": HandbookKey("taken"),
    "dataset_kwargs": HandbookKey("no effect", "a chat is tokenised as its template writes it"),
    "do_eval": HandbookKey("no effect", "eval_strategy says when is evaluated"),
    "do_train": HandbookKey("no effect", "a recipe always trains"),
    "hub_strategy": HandbookKey("no effect", "a run uploads its final model, once, when it is complete"),
    "overwrite_output_dir": HandbookKey("no effect", DROPPED["overwrite_output_dir"]),
    "beta": HandbookKey("refused", _PREFERENCES, preferences="taken"),
    "loss_type": HandbookKey("refused", _PREFERENCES, preferences="taken"),
    "max_prompt_length": HandbookKey("refused", DROPPED["max_prompt_length"], preferences="no effect"),
}  # fmt: skip


def without_effect(key: str) -> str | None:
    """Why a key that the parser knows changes nothing here; None where it does."""
    known = HANDBOOK_KEYS.get(key)
    return known.detail if known is not None and known.fate == "no effect" else None


def preference_marks(values: dict[str, Any], known: set[str]) -> list[str]:
    """What in a recipe shows that it is for a preference method, of which `known` are not the keys."""
    marks: list[str] = [key for key in ("beta", "max_prompt_length") if key in values and key not in known]
    mixture = values.get("dataset_mixture")
    entries = mixture.get("datasets") if isinstance(mixture, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        columns = entry.get("columns") if isinstance(entry, dict) else None
        if isinstance(columns, list) and "chosen" in columns and "messages" not in columns:
            return [*marks, "columns chosen and rejected"]
    return marks
