"""Let a model answer prompts with transformers' `generate`, in padded batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..decoding.mode import generation_mode
from ..examples import stop_tokens


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_completion_length: int,
    temperature: float = 0.0,
    batch_size: int = 64,
    seed: int = 0,
    description: str = "answering",
) -> list[str]:
    """The text of an answer to each prompt (token ids, from `Example.prompt`). A temperature of 0 is greedy."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    answers = [""] * len(prompts)
    with generation_mode(model), torch.random.fork_rng(), tqdm(total=len(prompts), desc=description, delay=1) as bar:
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            width = max(len(prompts[i]) for i in batch)
            ids = torch.tensor(
                [[pad] * (width - len(prompts[i])) + list(prompts[i]) for i in batch], device=model.device
            )
            mask = torch.tensor(
                [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch], device=model.device
            )
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_completion_length,
                pad_token_id=pad,
                eos_token_id=stop_tokens(tokenizer, model),
                **sampling,
            )
            for i, row in zip(batch, output[:, width:], strict=True):
                answers[i] = tokenizer.decode(row, skip_special_tokens=True)
            bar.update(len(batch))
    return answers
