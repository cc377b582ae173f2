"""The commands as functions, with the options that a user leaves out."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from gapbridge.evaluation.command import run_eval
from gapbridge.generation.command import run_generate


JUDGE = {
    "judge": None, "judge_url": None, "judge_prompt": None, "judge_api_key_env": "OPENAI_API_KEY",
    "judge_temperature": 0.01, "judge_max_tokens": 512, "judge_timeout": 120.0, "judge_concurrency": 8,
    "judge_token_limit_field": "max_tokens",
}  # fmt: skip
SHARED = {
    "config": None, "max_examples": None, "seed": 0, "batch_size": 64, "decoding_mode": [],
    "vllm_server_base_url": None, "vllm_server_timeout": 0.0,
}  # fmt: skip
EVAL = {
    **SHARED, **JUDGE, "model": [], "completions_file": [], "output_dir": None,
    "max_completion_length": None,
    "temperature": None, "top_p": 1.0, "top_k": 0, "grading_timeout": 10.0, "grading_workers": 2,
}  # fmt: skip
ANSWER = {**SHARED, "model": None, "output": None, "max_completion_length": 256, "temperature": 0.0}


def evaluate(task: str, *others: str, **options: Any) -> Path:
    """`gapbridge eval --task TASK`; `others` are the options that the command does not know."""
    return run_eval(Namespace(**{**EVAL, "task": task, **options}), list(others))


def answer(*others: str, **options: Any) -> Path:
    """`gapbridge generate`."""
    return run_generate(Namespace(**{**ANSWER, **options}), list(others))
