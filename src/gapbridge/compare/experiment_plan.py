"""Each variant's recipe: the user's keys as far as the variant's method has them, the variant's own over them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from .. import methods
from ..errors import ConfigError, GapbridgeError, describe, require
from ..evaluation.answer_extraction import marked_answer
from ..recipe.deprecated_keys import TRACKING
from ..recipe.secrets import redact
from ..recipe.type_checks import closest_match
from ..runs.load_inputs import load_eval_examples
from ..runs.run_config import RunConfig, read_job, recipe_classes
from ..runs.validate import validate
from ..tasks.task import EvalTask, task_named
from ..training.loading import load_tokenizer, prepare_tokenizer
from .experiment_config import NONE, Experiment, Variant, filled


# Keys that say how long a variant trains. A variant that has one of them among its overrides is not matched.
LENGTH_KEYS = ("num_train_epochs", "max_steps", "num_epochs_per_round")
_LEFT_OUT = ("output_dir", "run_name", "hub_model_id", "hub_strategy", "hub_revision", "hub_private_repo", "seed")
_LOOKED_AT = 64  # references, to see whether they have marked answers


@dataclass(frozen=True)
class ExperimentPlan:
    """An experiment with its recipe read: `keys` are the recipe's, `method` is what it is for."""

    experiment: Experiment
    directory: Path
    method: str
    keys: dict[str, Any]

    def place(self, seed: int) -> Path:
        """The directory of a seed: an ordinary run a directory in it, one for each variant."""
        return self.directory / f"seed_{seed}"

    def result_file(self, seed: int, variant: str) -> Path:
        """A variant's figures; where the file is, the variant is finished."""
        return self.place(seed) / "_results" / f"{variant}.json"

    def start_of(self, variant: Variant, seed: int) -> str:
        """The model that the variant starts from."""
        if variant.init_from != NONE:
            return str(self.place(seed) / variant.init_from)
        return self.first_model(seed)

    def first_model(self, seed: int) -> str:
        """The model that the recipe, or the experiment's `init_model`, names for the seed."""
        base = self.experiment.init_model_directory(seed)
        named = {**self.keys, **self.experiment.overrides}["model_name_or_path"]
        if base and "model_name_or_path" not in self.experiment.overrides:
            return base
        return str(filled(named, seed, base))


def known_keys(method: str) -> set[str]:
    """The keys that a recipe for a method may have."""
    return {field.name for kind in recipe_classes(method) for field in fields(kind)} | {"env", *TRACKING}


def dropped_keys(comparison: ExperimentPlan, variant: Variant) -> list[str]:
    """Keys that the variants share and that the variant's method does not have."""
    shared = {**comparison.keys, **comparison.experiment.overrides}
    return sorted(set(shared) - known_keys(variant.method) - {*_LEFT_OUT})


def variant_recipe(
    comparison: ExperimentPlan, variant: Variant, seed: int, max_steps: int | None = None
) -> dict[str, Any]:
    """The recipe of a variant and a seed; `max_steps`, of each round, over its own length."""
    experiment, known = comparison.experiment, known_keys(variant.method)
    shared = {key: value for key, value in {**comparison.keys, **experiment.overrides}.items() if key in known}
    own = {key: value for key, value in {**shared, **variant.overrides}.items() if key not in _LEFT_OUT}
    own = filled(own, seed, experiment.init_model_directory(seed))
    fixed = {"model_name_or_path": comparison.start_of(variant, seed), "seed": seed, "push_to_hub": False}
    fixed["output_dir"] = str(comparison.place(seed) / variant.name)
    if max_steps is not None:
        fixed["max_steps"] = max_steps
    return {"method": variant.method, **redact(own).keys, **fixed}


def recipe_text(keys: dict[str, Any]) -> str:
    return yaml.safe_dump(keys, sort_keys=False, allow_unicode=True)


def read_run_config(keys: dict[str, Any], label: str) -> RunConfig:
    """A recipe's keys parsed as a file of them would be, nothing written. Raises ConfigError with every error, under
    `label`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(recipe_text(keys), encoding="utf-8")
        try:
            return read_job(["--config", str(path)])
        except GapbridgeError as error:
            errors = [message.replace(str(path), label) for message in error.errors]
            raise ConfigError([text if text.startswith(label) else f"{label}, {text}" for text in errors]) from error


def read_comparison(experiment: Experiment, directory: Path, options: list[str]) -> ExperimentPlan:
    """Read the experiment's recipe with recipe options from the command line over it, and look at every variant: its
    recipe is parsed and dry-run on the first rows, with the first seed's first model.

    Raises:
        ConfigError, DataError: listing the errors of the recipe, or of all variants.
    """
    job = read_job(["--config", experiment.recipe, "--output_dir", str(directory), *options])
    # As with a recipe, the line wins over the file; what makes a variant this variant stays.
    given = {word.removeprefix("--").split("=")[0] for word in options if word.startswith("--")}
    experiment = replace(
        experiment, overrides={key: value for key, value in experiment.overrides.items() if key not in given}
    )
    comparison = ExperimentPlan(experiment, directory, job.name, dict(job.recipe.keys))
    recipe, expected = experiment.recipe, "eval_datasets or test_split_size"
    errors = require(job.has_eval_data, recipe, "no held-out data", expected, "Add one of them")
    everyone = set().union(*(known_keys(name) for name in methods.list_methods()))
    for key in [key for key in experiment.overrides if key not in everyone]:
        got = f"the unknown key {key!r}{closest_match(key, everyone)}"
        errors.append(describe(f"overrides, {key}", got, "a key of one of the methods", "Correct or remove the key"))
    bases = {experiment.init_model_directory(seed) for seed in experiment.seeds} - {""}
    missing = ", ".join(place for place in sorted(bases) if not (Path(place) / "config.json").is_file())
    advice = "Run benchmarks/evidence/run.py, which makes them"
    errors += require(not missing, "init_model", f"no model in {missing}", "the starting models", advice)
    if errors:
        raise ConfigError(errors)
    for variant in experiment.variants.values():
        errors += _variant_errors(comparison, variant)
    if errors:
        raise ConfigError(errors)
    return comparison


def _variant_errors(comparison: ExperimentPlan, variant: Variant) -> list[str]:
    seed, label = comparison.experiment.seeds[0], f"variant {variant.name}"
    keys = variant_recipe(comparison, variant, seed)
    keys["model_name_or_path"] = comparison.first_model(seed)  # the one it starts from is not trained yet
    with tempfile.TemporaryDirectory() as folder:
        try:
            errors, _ = validate(read_run_config({**keys, "output_dir": f"{folder}/run"}, label))
        except GapbridgeError as error:
            return error.errors
    return [f"{label}, {message}" for message in errors]


def experiment_task(comparison: ExperimentPlan) -> EvalTask:
    """How answers are graded: as asked, or `math` where every one of the first references marks its answer, else
    ConfigError."""
    experiment = comparison.experiment
    if experiment.evaluation.task is not None:
        return task_named(experiment.evaluation.task)
    keys = variant_recipe(comparison, experiment.control, experiment.seeds[0])
    keys["model_name_or_path"] = comparison.first_model(experiment.seeds[0])
    job = read_run_config(keys, f"variant {experiment.control.name}")
    tokenizer = load_tokenizer(keys["model_name_or_path"], job.args, job.model.model_revision)
    prepare_tokenizer(None, tokenizer, job.args, uses_peft=job.model.use_peft)
    texts = [
        str(tokenizer.decode(example.completion_ids, skip_special_tokens=True))
        for example in load_eval_examples(job, tokenizer, None, limit=_LOOKED_AT)
    ]
    unmarked = sum(marked_answer(text) is None for text in texts)
    if unmarked:
        got = f"{unmarked} of the first {len(texts)} held-out references without a marked answer (#### 18, a box)"
        advice = "Set --task, or evaluation: task, to math, summarization or another"
        raise ConfigError("task", got, "a task that grades them", advice)
    return task_named("math")
