"""What can be evaluated: each task's grader, its data as a recipe, and its usual answer length."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..errors import ConfigError
from ..files import write_text_atomic
from ..recipe.type_checks import closest_match
from .word_problems import problems


PROBLEMS = 400  # of a task that is made on the spot
GENERATED = "word_problems"


@dataclass(frozen=True)
class EvalTask:
    """A task of `gapbridge eval`.

    grader: `math`, `rouge`, or `none`: the win rate alone.
    has_data: whether it brings its data set; the others need `--config RECIPE` or `--completions_file FILE`.
    max_completion_length: the most tokens of an answer.
    temperature: 0.01 where the paper samples for the win rate, else greedy.
    judge_prompt: what a judge is asked, see `evaluation/judge/prompts`.
    """

    name: str
    grader: str
    has_data: bool
    max_completion_length: int
    temperature: float = 0.0
    judge_prompt: str = "general_qa"


TASKS = {
    task.name: task
    for task in (
        EvalTask("math", "math", False, 512),
        EvalTask("gsm8k", "math", True, 512),
        EvalTask("math500", "math", True, 1024),
        EvalTask(GENERATED, "math", True, 128),
        EvalTask("summarization", "rouge", False, 128, judge_prompt="tldr"),
        # 53 tokens: the length of the reference summaries in the literature's TL;DR set-up.
        EvalTask("tldr", "rouge", True, 53, temperature=0.01, judge_prompt="tldr"),
        EvalTask("winrate", "none", False, 1024, temperature=0.01),
    )
}


def task_named(name: str) -> EvalTask:
    """The task. Raises ConfigError if there is none of that name."""
    if name not in TASKS:
        known = [*TASKS, "lm_eval"]
        got = f"{name}{closest_match(name, known)}"
        raise ConfigError("--task", got, f"one of {', '.join(known)}", "Choose one of them")
    return TASKS[name]


def task_recipe(task: EvalTask, directory: Path) -> Path:
    """The recipe with the task's data. Data that are made on the spot go to `directory`, with their recipe. Raises
    ConfigError where the task brings no data."""
    if not task.has_data:
        advice = "Give --config RECIPE, or --completions_file FILE.jsonl"
        raise ConfigError(f"--task {task.name}", "no data", "a recipe, or completions of a file", advice)
    recipes = Path(__file__).with_name("recipes")
    if task.name != GENERATED:
        return recipes / f"{task.name}.yaml"
    data = directory / f"{task.name}.data.jsonl"
    made = problems("test", count=PROBLEMS)
    _keep(data, "".join(json.dumps(problem.row(), ensure_ascii=False) + "\n" for problem in made))
    settings = yaml.safe_load((recipes / "procedural.yaml").read_text(encoding="utf-8"))
    settings["datasets"][0]["data_files"] = str(data)
    _keep(data.with_suffix(".yaml"), yaml.safe_dump(settings, sort_keys=False))
    return data.with_suffix(".yaml")


def _keep(path: Path, text: str) -> None:
    """Write a file, unless it holds the text already: a start that is refused leaves the directory as it is."""
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text_atomic(path, text)
