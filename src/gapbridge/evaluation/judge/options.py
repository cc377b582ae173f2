"""The win-rate options of `gapbridge eval`, and the comparisons they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...tasks.task import task_named
from ...training.config import ExampleConfig
from ..summaries import Group
from .judges import MAX_TOKENS, TEMPERATURE, EndpointJudge, Judge, LocalJudge
from .winrate import Pair, judge_pairs


# Options that change no verdict; an evaluation is the same with other values.
FREE_OPTIONS = ("judge_url", "judge_api_key_env", "judge_timeout", "judge_concurrency")


def add_judge_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("win rate").add_argument
    add("--judge", metavar="MODEL", help="a model that compares answers: a path or hub id, or with --judge_url a name")
    add("--judge_url", metavar="URL", help="an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1")
    add("--judge_prompt", metavar="NAME|FILE", help="tldr, general_qa or a file; default: the task's")
    add("--judge_api_key_env", default="OPENAI_API_KEY", help="the environment variable that holds the endpoint's key")
    add("--judge_temperature", type=float, default=TEMPERATURE)
    add("--judge_max_tokens", type=int, default=MAX_TOKENS, help="longest reply of the judge")
    add("--judge_timeout", type=float, default=120.0, help="seconds for one request")
    add("--judge_concurrency", type=int, default=8, help="requests at the same time")


def make_judge(args: argparse.Namespace) -> Judge:
    """The judge that the options name. Raises ConfigError with all faults of the options."""
    if args.judge_url:
        return EndpointJudge(
            args.judge_url,
            args.judge,
            api_key_env=args.judge_api_key_env,
            temperature=args.judge_temperature,
            max_tokens=args.judge_max_tokens,
            timeout=args.judge_timeout,
            concurrency=args.judge_concurrency,
        )
    from ...contexts.fill import place_for_generation
    from ...training.loading import load_model, load_tokenizer

    config = ExampleConfig(output_dir="outputs", bf16=False, report_to="none")
    model = load_model(args.judge, config, dtype="auto")
    place_for_generation(model, config)
    return LocalJudge(
        model,
        load_tokenizer(args.judge, config),
        temperature=args.judge_temperature,
        max_tokens=args.judge_max_tokens,
        batch_size=max(1, args.batch_size // 4),  # a judge prompt holds two answers and the question
    )


def judge_groups(groups: Sequence[Group], args: argparse.Namespace, cache: Path) -> list[dict[str, Any]]:
    """Each group's win rate against the references, and against the first group where there are several.

    Raises:
        ConfigError: two groups have no example in common; see also `judge_pairs`.
    """
    judge = make_judge(args)
    template = args.judge_prompt or task_named(args.task).judge_prompt
    rates = []
    for at, group in enumerate(groups):
        rivals = {"the reference": {s["id"]: s["reference"] for s in group.samples}}
        if at:
            rivals[_name(groups[0])] = {s["id"]: s["answer"] for s in groups[0].samples}
        for rival, texts in rivals.items():
            pairs = [
                Pair(str(s["id"]), _text(s["prompt"]), s["answer"].strip(), texts[s["id"]].strip())
                for s in group.samples
                if s["id"] in texts
            ]
            if not pairs:
                raise ConfigError(f"{_name(group)} and {rival} have no example in common: their ids differ")
            rate = judge_pairs(pairs, judge, cache=cache, template=template)
            record = asdict(rate)
            record |= {"first": _name(group), "second": rival, "text": f"{_name(group)} against {rival}: {rate}"}
            rates.append(record)
    return rates


def _text(prompt: str | list[dict[str, Any]]) -> str:
    """A prompt as the judge reads it; messages one below the other."""
    return prompt if isinstance(prompt, str) else "\n\n".join(str(turn.get("content", "")) for turn in prompt)


def _name(group: Group) -> str:
    return group.model if group.mode == "direct" else f"{group.model} ({group.mode})"
