"""Every method takes two steps, whole and as an adapter; contexts are those of the definition."""

from __future__ import annotations

import importlib.util
import tempfile
from typing import Any

import torch
from common import Setup, digit_pairs, digit_rows, tokenizer, trainer_options
from peft import LoraConfig

from gapbridge import methods
from gapbridge.decoding import mix_contexts, mix_contexts_sequential


OPTIONS: dict[str, dict[str, Any]] = {
    "rac": {"max_completion_length": 16}, "spin": {"max_completion_length": 16}, "mtp": {"num_future_tokens": 2},
    "pause": {"num_pause_tokens": 4},
}  # fmt: skip


def run(setup: Setup) -> None:
    attentions = ["sdpa"]
    if setup.device == "cuda" and importlib.util.find_spec("flash_attn"):
        attentions.append("flash_attention_2")
    for attention in attentions:
        for name in methods.list_methods() if attention == "sdpa" else ("sft", "bash", "rac"):
            for kind in ("full", "LoRA"):
                with setup.case(f"{name}, {kind}, {attention}") as found:
                    found |= two_steps(setup, name, kind, attention)
    if len(attentions) == 1:
        setup.cases["flash attention"] = {"left out": "flash_attn is not installed, or there is no GPU"}
    for dtype in (torch.float32, torch.bfloat16):
        with setup.case(f"contexts against the definition, {str(dtype).removeprefix('torch.')}") as found:
            found |= differing_tokens(setup, dtype)


def two_steps(setup: Setup, name: str, kind: str, attention: str) -> dict[str, Any]:
    method = methods.get_method(name)
    rows = digit_pairs(8, 12, 24) if name == "dpo" else digit_rows(8, 12, 24)
    adapter = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear") if kind == "LoRA" else None
    with tempfile.TemporaryDirectory() as folder:
        options = trainer_options(setup, folder, max_steps=2, max_length=256, **OPTIONS.get(name, {}))
        model = setup.model("tiny", torch.float32)
        model.set_attn_implementation(attention)
        if attention != "sdpa":
            model.to(torch.bfloat16)
        trainer: Any = method(
            model, args=method.config_class(**options), train_dataset=rows, processing_class=tokenizer(),
            peft_config=adapter,
        )  # fmt: skip
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if len(losses) != 2 or not torch.tensor(losses).isfinite().all():
        raise ValueError(f"got losses {losses}, expected two finite ones")
    return {"losses": losses}


def differing_tokens(setup: Setup, dtype: torch.dtype) -> dict[str, Any]:
    """The share of context tokens that differ from those of one full pass a token."""
    model = setup.model("tiny", dtype)
    count, length = setup.choose(16, 4), setup.choose(64, 16)
    generator = torch.Generator().manual_seed(0)
    prompts, references = (torch.randint(2, 500, (count, n), generator=generator).tolist() for n in (12, length))
    how: dict[str, Any] = {"ids": list(range(count)), "mixture_coefficient": 0.5}
    found = mix_contexts(model, prompts, references, **how)
    expected = mix_contexts_sequential(model, prompts, references, **how)
    pairs = [(a, b) for x, y in zip(found, expected, strict=True) for a, b in zip(x.tokens, y.tokens, strict=True)]
    differing = sum(a != b for a, b in pairs)
    if dtype == torch.float32 and differing:
        raise ValueError(f"got {differing} of {len(pairs)} tokens that differ, expected none in float32")
    return {"tokens": len(pairs), "differing_share": differing / len(pairs)}
