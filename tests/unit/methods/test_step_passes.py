"""`forward_equivalents_per_token`, by which variants are compared at equal compute, against the passes that a step
makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import PreTrainedModel

from gapbridge import methods
from gapbridge.tasks.word_problems import problems


OPTIONS: dict[str, dict[str, Any]] = {
    "sft": {}, "scheduled_sampling": {"mixture_coefficient": 0.5, "num_sampling_passes": 2},
    "spin": {"max_completion_length": 8},
    "dpo": {},
}  # fmt: skip


@pytest.mark.parametrize(("name", "adapter"), [*((name, False) for name in OPTIONS), ("dpo", True)])
def test_a_step_makes_as_many_passes_as_are_counted(
    name: str, adapter: bool, make_base: Callable[[], PreTrainedModel], tokenizer: Any, tmp_path: Path
) -> None:
    """Its forward passes, the reference model's and those that draw among them, and two for the backward pass."""
    method = methods.get_method(name)
    args = method.config_class(
        str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", max_length=300,
        per_device_train_batch_size=4, max_steps=1, save_strategy="no", eval_strategy="no", disable_tqdm=True,
        **OPTIONS[name],
    )  # fmt: skip
    found = problems("train", count=4, steps=(1,))
    data = Dataset.from_list([p.preference_row() if name == "dpo" else p.row() for p in found])
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]) if adapter else None
    trainer = method(make_base(), args=args, train_dataset=data, processing_class=tokenizer, peft_config=lora)
    trainer.prepare_dataset()  # its passes are not those of a step
    passes = []

    def count(module: torch.nn.Module, _: Any) -> None:
        if isinstance(module, PreTrainedModel) and module.get_output_embeddings() is not None:
            passes.append(module)

    with register_module_forward_pre_hook(count):
        trainer.train()
    assert method.forward_equivalents_per_token(trainer.args) == len(passes) + 2
