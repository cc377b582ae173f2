"""The judge and the comparisons that the options of `gapbridge eval` ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...reporting.samples import prompt_text
from ...tasks.task import task_named
from ..aggregate import Group, answer_text
from .judges import EndpointJudge, Judge, LocalJudge
from .winrate import Pair, judge_pairs


def make_judge(args: argparse.Namespace) -> Judge:
    """The judge that the options name. Raises ConfigError with all errors of the options."""
    if args.judge_url:
        names = ("api_key_env", "temperature", "max_tokens", "token_limit_field", "timeout", "concurrency")
        return EndpointJudge(args.judge_url, args.judge, **{name: vars(args)[f"judge_{name}"] for name in names})
    if args.judge_temperature is None:
        place, got = "command line, --judge_temperature", "none without --judge_url"
        raise ConfigError(place, got, "a number, since a local judge has no other default", "Give a temperature")
    from trl import ModelConfig, SFTConfig

    from ...compat import backfill_trust_remote_code
    from ...decoding.model_state import move_to_device
    from ...training.loading import load_model, load_tokenizer

    config = SFTConfig(output_dir="outputs", bf16=False, report_to="none")
    backfill_trust_remote_code(config, ModelConfig(model_name_or_path=args.judge))
    model = load_model(args.judge, config, dtype="auto")
    move_to_device(model, config)
    return LocalJudge(
        model,
        load_tokenizer(args.judge, config),
        temperature=args.judge_temperature,
        max_tokens=args.judge_max_tokens,
        batch_size=max(1, args.batch_size // 4),  # a judge prompt holds two answers and the question
    )


def judge_groups(groups: Sequence[Group], args: argparse.Namespace, cache: Path) -> list[dict[str, Any]]:
    """Each group's win rate against the references, and against the first group where there are several. Raises
    ConfigError where two groups have no example in common."""
    judge = make_judge(args)
    template = args.judge_prompt or task_named(args.task).judge_prompt
    rates = []
    for at, group in enumerate(groups):
        rivals = {"the reference": {s["id"]: s["reference"] for s in group.samples}}
        if at:
            rivals[groups[0].name] = {s["id"]: answer_text(s) for s in groups[0].samples}
        for rival, texts in rivals.items():
            pairs = [
                Pair(str(s["id"]), prompt_text(s["prompt"]), answer_text(s).strip(), texts[s["id"]].strip())
                for s in group.samples
                if s["id"] in texts
            ]
            if not pairs:
                got = f"no example in common with {rival}"
                raise ConfigError(group.name, got, "the same ids", "Evaluate both on the same examples")
            rate = judge_pairs(pairs, judge, cache=cache, template=template)
            record = asdict(rate)
            record |= {"first": group.name, "second": rival, "text": f"{group.name} against {rival}: {rate}"}
            rates.append(record)
    return rates
