"""BASH's contexts at the 1 B shape: against one teacher-forced pass over the same rows, and token by token."""

from __future__ import annotations

import torch
from common import Setup, host_waits, seconds_of
from mixing import Rows, reference_as_draft, teacher_forced, timed, token_by_token


def run(setup: Setup) -> None:
    (shape,) = setup.shapes("1b")
    batch, prompt, answer = setup.choose(64, 4), setup.choose(64, 8), setup.choose(448, 24)
    model = setup.model(shape)
    generator = torch.Generator().manual_seed(0)
    prompts, references = (
        torch.randint(2, model.config.vocab_size, (batch, length), generator=generator).tolist()
        for length in (prompt, answer)
    )
    forward = 1.0
    with setup.case("teacher-forced forward") as found:
        rows = Rows(prompts, references, 0.0)
        found |= seconds_of(setup, lambda: teacher_forced(model, rows, batch))
        forward = found["seconds"]
    for beta in (0.1, 0.5):
        rows = Rows(prompts, references, beta)
        with setup.case(f"mixed contexts, β = {beta}") as found:
            found |= seconds_of(setup, lambda rows=rows: reference_as_draft(model, rows, batch, 16))
            _, passes, _ = timed(model, lambda rows=rows: reference_as_draft(model, rows, batch, 16))
            found |= {"passes": passes, "times_forward": found["seconds"] / forward}
            found["host_waits"] = host_waits(setup, lambda rows=rows: reference_as_draft(model, rows, batch, 16))
    with setup.case("token by token, β = 0.5") as found:
        found |= seconds_of(setup, lambda: token_by_token(model, rows, batch), repeats=1, warm_up=False)
        found["times_forward"] = found["seconds"] / forward
