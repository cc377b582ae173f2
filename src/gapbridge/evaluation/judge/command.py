"""The comparisons that the options of `gapbridge eval` ask a judge for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...reporting.samples import prompt_text
from ..aggregate import Group, answer_text
from .judges import EndpointJudge
from .prompt_templates import Template
from .winrate import Pair, judge_pairs


def make_judge(args: argparse.Namespace) -> EndpointJudge:
    """The judge that the options name. Raises ConfigError with all errors of the options."""
    names = ("api_key_env", "temperature", "max_tokens", "token_limit_field", "timeout", "concurrency")
    return EndpointJudge(args.judge_url, args.judge, **{name: vars(args)[f"judge_{name}"] for name in names})


def judge_groups(
    groups: Sequence[Group], judge: EndpointJudge, template: Template, cache: Path
) -> list[dict[str, Any]]:
    """Each group's win rate against the references, and against the first group where there are several. Raises
    ConfigError where two groups have no example in common."""
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
            rates.append({**asdict(rate), "first": group.name, "second": rival})
    return rates
