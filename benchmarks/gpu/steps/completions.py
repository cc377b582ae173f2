"""Free-running answers: `generate_completions` against `generate`, plain and with a static cache."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from common import Setup, host_waits, seconds_of
from drafting import ours as drafted

from gapbridge.decoding.model_state import generation_mode


def run(setup: Setup) -> None:
    for shape in setup.shapes("135m", "1b"):
        measure(setup, shape)


def measure(setup: Setup, shape: str) -> None:
    count, prompt, limit = setup.choose(64, 4), setup.choose(64, 8), setup.choose(128, 12)
    model = setup.model(shape)
    prompts = torch.randint(2, 500, (count, prompt), generator=torch.Generator().manual_seed(0))

    ours = partial(drafted, model, prompts.tolist(), limit, [], count)

    def theirs(**options: Any) -> list[list[int]]:
        given = prompts.to(setup.device)
        with generation_mode(model):
            output = model.generate(
                input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=limit, min_new_tokens=limit,
                do_sample=False, pad_token_id=0, **options,
            )  # fmt: skip
        tokens: list[list[int]] = output[:, prompt:].tolist()
        return tokens

    ways: dict[str, Any] = {
        "generate": theirs,
        "generate, static cache, compiled": lambda: theirs(cache_implementation="static"),
        "generate_completions": ours,
    }
    expected, slow = ours(), 1.0
    for name, way in ways.items():
        with setup.case(f"{shape}: {name}") as found:
            started = time.perf_counter()
            tokens = way()
            found["first_call_seconds"] = time.perf_counter() - started
            found |= seconds_of(setup, way)
            slow = found["seconds"] if name == "generate" else slow
            equal = sum(a == b for row, other in zip(tokens, expected, strict=True) for a, b in zip(row, other))
            found |= {
                "tokens_per_second": count * limit / found["seconds"], "times_generate": found["seconds"] / slow,
                "equal_tokens_share": equal / (count * limit), "host_waits": host_waits(setup, way), "passes": limit,
            }  # fmt: skip
