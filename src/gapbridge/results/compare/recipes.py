"""Each arm's recipe: the user's keys as far as the arm's method has them, the arm's own over them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from ... import methods
from ...errors import ConfigError, GapbridgeError
from ...evaluation.marks import marked_answer
from ...recipe.old_keys import TRACKING
from ...recipe.secrets import without_secrets
from ...recipe.values import nearest
from ...runs.inputs import load_held_out
from ...runs.job import Job, parser_for, read_job
from ...runs.validate import validate
from ...tasks.task import EvalTask, task_named
from ...training.loading import load_tokenizer, prepare_tokenizer
from .suite import NONE, Arm, Suite, filled


# Keys that say how long an arm trains. An arm that has one of them among its overrides is not matched.
LENGTH_KEYS = ("num_train_epochs", "max_steps", "round_epochs")
_LEFT_OUT = ("output_dir", "run_name", "hub_model_id", "hub_strategy", "hub_revision", "hub_private_repo", "seed")
_LOOKED_AT = 64  # references, to see whether they have marked answers


@dataclass(frozen=True)
class Comparison:
    """A suite with its recipe read: `keys` are the recipe's, `method` is what it is for."""

    suite: Suite
    directory: Path
    method: str
    keys: dict[str, Any]

    def place(self, seed: int) -> Path:
        """The directory of a seed: an ordinary run a directory in it, one for each arm."""
        return self.directory / f"seed_{seed}"

    def start_of(self, arm: Arm, seed: int) -> str:
        """The model that the arm starts from."""
        if arm.start != NONE:
            return str(self.place(seed) / arm.start)
        return self.first_model(seed)

    def first_model(self, seed: int) -> str:
        """The model that the recipe, or the suite's `base`, names for the seed."""
        base = self.suite.base_directory(seed)
        named = {**self.keys, **self.suite.overrides}["model_name_or_path"]
        if base and "model_name_or_path" not in self.suite.overrides:
            return base
        return str(filled(named, seed, base))


def known_keys(method: str) -> set[str]:
    """The keys that a recipe for a method may have."""
    kinds = parser_for(method).dataclass_types
    return {field.name for kind in kinds for field in fields(kind)} | {"env", *TRACKING}


def dropped_keys(comparison: Comparison, arm: Arm) -> list[str]:
    """Keys that the arms share and that the arm's method does not have."""
    shared = {**comparison.keys, **comparison.suite.overrides}
    return sorted(set(shared) - known_keys(arm.method) - {*_LEFT_OUT})


def arm_recipe(comparison: Comparison, arm: Arm, seed: int, max_steps: int | None = None) -> dict[str, Any]:
    """The recipe of an arm and a seed; `max_steps`, of each round, over its own length."""
    suite, known = comparison.suite, known_keys(arm.method)
    shared = {key: value for key, value in {**comparison.keys, **suite.overrides}.items() if key in known}
    own = {key: value for key, value in {**shared, **arm.overrides}.items() if key not in _LEFT_OUT}
    own = filled(own, seed, suite.base_directory(seed))
    fixed: dict[str, Any] = {"model_name_or_path": comparison.start_of(arm, seed), "seed": seed, "push_to_hub": False}
    fixed["output_dir"] = str(comparison.place(seed) / arm.name)
    if max_steps is not None:
        fixed["max_steps"] = max_steps
    return {"method": arm.method, **without_secrets(own), **fixed}


def recipe_text(keys: dict[str, Any]) -> str:
    return yaml.safe_dump(keys, sort_keys=False, allow_unicode=True)


def job_of(keys: dict[str, Any], label: str) -> Job:
    """A recipe's keys parsed as a file of them would be, nothing written.

    Raises:
        ConfigError: listing every fault, under `label`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(recipe_text(keys), encoding="utf-8")
        try:
            return read_job(["--config", str(path)])
        except GapbridgeError as error:
            faults = [fault.removeprefix(f"{path}: ").replace(str(path), label) for fault in error.faults]
            raise ConfigError([f"{label}: {fault}" for fault in faults]) from error


def read_comparison(suite: Suite, directory: Path, options: list[str]) -> Comparison:
    """Read the suite's recipe with recipe options from the command line over it, and look at every arm.

    The arms' recipes are parsed and dry-run on the first rows, with the first seed's first model.

    Raises:
        ConfigError, DataError: listing the faults of the recipe, or of all arms.
    """
    job = read_job(["--config", suite.recipe, "--output_dir", str(directory), *options])
    # As with a recipe, the line wins over the file; what makes an arm this arm stays.
    given = {word.removeprefix("--").split("=")[0] for word in options if word.startswith("--")}
    suite = replace(suite, overrides={key: value for key, value in suite.overrides.items() if key not in given})
    comparison = Comparison(suite, directory, job.name, dict(job.recipe.keys))
    faults = []
    if not (job.data.eval_datasets or job.data.splits_off or job.script.dataset_name):
        faults.append(f"{suite.recipe}: has no held-out data to evaluate on: give eval_datasets or test_split_size")
    everyone = set().union(*(known_keys(name) for name in methods.names()))
    faults += [
        f"overrides: unknown key {key!r}{nearest(key, everyone)}" for key in suite.overrides if key not in everyone
    ]
    faults += _missing_bases(comparison)
    if faults:
        raise ConfigError(faults)
    for arm in suite.arms.values():
        faults += _arm_faults(comparison, arm)
    if faults:
        raise ConfigError(faults)
    return comparison


def _missing_bases(comparison: Comparison) -> list[str]:
    base = comparison.suite.base
    places = {comparison.suite.base_directory(seed) for seed in comparison.suite.seeds} if base else set()
    missing = [place for place in sorted(places) if not (Path(place) / "config.json").is_file()]
    return [f"base: {', '.join(missing)}: not there; benchmarks/evidence/run.py makes them"] if missing else []


def _arm_faults(comparison: Comparison, arm: Arm) -> list[str]:
    seed, label = comparison.suite.seeds[0], f"arm {arm.name}"
    keys = arm_recipe(comparison, arm, seed)
    keys["model_name_or_path"] = comparison.first_model(seed)  # the one it starts from is not trained yet
    with tempfile.TemporaryDirectory() as folder:
        try:
            faults, _ = validate(job_of({**keys, "output_dir": f"{folder}/run"}, label))
        except GapbridgeError as error:
            return error.faults
    return [f"{label}: {fault}" for fault in faults]


def task_of(comparison: Comparison) -> EvalTask:
    """How answers are graded: as asked, or `math` where every one of the first references marks its answer.

    Raises:
        ConfigError: the references do not say.
    """
    suite = comparison.suite
    if suite.evaluation.task is not None:
        return task_named(suite.evaluation.task)
    keys = arm_recipe(comparison, suite.control, suite.seeds[0])
    keys["model_name_or_path"] = comparison.first_model(suite.seeds[0])
    job = job_of(keys, f"arm {suite.control.name}")
    tokenizer = load_tokenizer(keys["model_name_or_path"], job.args, job.model.model_revision)
    prepare_tokenizer(None, tokenizer, job.args, uses_peft=job.uses_peft)
    texts = [
        str(tokenizer.decode(example.reference, skip_special_tokens=True))
        for example in load_held_out(job, tokenizer, None, limit=_LOOKED_AT)
    ]
    unmarked = sum(marked_answer(text) is None for text in texts)
    if unmarked:
        raise ConfigError(
            f"{unmarked} of the first {len(texts)} held-out references mark no final answer (#### 18, a box): say "
            "with --task, or evaluation: task, how answers are graded: math, summarization, …"
        )
    return task_named("math")
