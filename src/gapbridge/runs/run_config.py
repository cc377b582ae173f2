"""A job: a parsed recipe with its parts by name, and the method that it is for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trl import ModelConfig, ScriptArguments

from .. import methods
from ..compat import backfill_trust_remote_code
from ..data.sources import DataConfig, LoadedData, find_data
from ..errors import ConfigError, describe
from ..recipe.recipe_parser import Recipe, parse_recipe, split_line
from ..recipe.type_checks import read_yaml
from ..training.method import GapTrainerMixin
from .run_directory import RunDirectory, require_output_dir


@dataclass
class RunConfig:
    """A parsed recipe with its parts by name; `args` is the configuration of the method's trainer."""

    name: str
    method: type[GapTrainerMixin]
    recipe: Recipe
    data: DataConfig
    script: ScriptArguments
    model: ModelConfig
    args: Any
    resume: str = "auto"

    @property
    def evaluates(self) -> bool:
        """Whether the run evaluates while it trains."""
        return str(self.args.eval_strategy.value) != "no"

    @property
    def has_eval_data(self) -> bool:
        return bool(self.data.eval_datasets or self.data.splits_off or self.script.dataset_name)

    def skip_evaluation(self) -> None:
        """Held-out data need not be loaded."""
        self.args.eval_strategy = type(self.args.eval_strategy)("no")

    def find_data(self) -> LoadedData:
        """The rows of the recipe's data. Raises ConfigError or DataError where they cannot be loaded."""
        return find_data(self.data, self.script, needs_eval=self.evaluates)

    def run_directory(self) -> RunDirectory:
        """The run in `output_dir`."""
        return RunDirectory(
            require_output_dir(self.args.output_dir),
            self.name,
            self.recipe.settings,
            free=self.args.runtime_only_keys(),
        )


def recipe_classes(name: str) -> list[type[Any]]:
    """The dataclasses whose fields are the keys of a method's recipes."""
    return [DataConfig, ScriptArguments, methods.get_method(name).config_class, ModelConfig]


def read_job(argv: Sequence[str], method: str | None = None) -> RunConfig:
    """Parse a recipe. The method is the one given, or the recipe's `method` key.

    Raises:
        ConfigError: listing every error.
    """
    path, options = split_line(argv)
    known = methods.list_methods()
    if method is None:
        method = read_yaml(path).get("method")
        if method not in known:
            got = "no value" if method is None else f"{method!r}"
            raise ConfigError(f"{path}, method", got, f"one of {', '.join(known)}", "Set the method of the recipe")
    kind, chosen = methods.get_method(method), method
    recipe = parse_recipe(
        path,
        options,
        recipe_classes(chosen),
        methods=known,
        owners=lambda key: [
            name for name in known if name != chosen and key in methods.method_fields(name).__dataclass_fields__
        ],
    )
    if recipe.method not in (None, chosen):
        advice = f"Run it with `gapbridge {recipe.method}`"
        raise ConfigError(path, f"a recipe for {recipe.method}", "one for this command", advice)
    parts, args, model = recipe.parts, recipe.parts[kind.config_class], recipe.parts[ModelConfig]
    if not model.model_name_or_path:
        raise ConfigError(f"{recipe.path}, model_name_or_path", "no value", "a directory or hub id", "Add the key")
    require_output_dir(recipe.settings.get("output_dir"))
    errors = [f"{recipe.path}, {error}" for error in _unused(recipe.settings)]
    if errors:
        raise ConfigError(errors)
    backfill_trust_remote_code(args, model)
    # TRL makes text of a list of one LoRA target. PEFT takes text for a pattern of whole names, which a name is not.
    targets: Any = model.lora_target_modules
    if isinstance(targets, str) and targets != "all-linear" and re.fullmatch(r"[\w.-]+", targets):
        model.lora_target_modules = [targets]
    return RunConfig(chosen, kind, recipe, parts[DataConfig], parts[ScriptArguments], model, args)


def _unused(settings: dict[str, Any]) -> list[str]:
    """Settings that scripts of their own act upon, and that a run would leave without effect."""
    strategies = ("checkpoint", "all_checkpoints")
    refused = (
        ("do_train", (False,), "true, since the commands of methods train", "Run `gapbridge eval`"),
        (
            "do_predict",
            (True,),
            "false, since a recipe has no test set",
            "Run `gapbridge eval` or `gapbridge generate`",
        ),
        ("hub_strategy", strategies, "end, since a run uploads its final model alone", "Remove the key"),
    )
    errors = [
        describe(key, f"{settings[key]}".lower(), expected, advice)
        for key, values, expected, advice in refused
        if settings.get(key) in values
    ]
    if settings.get("resume_from_checkpoint"):
        expected, advice = "none, since a run resumes from its last complete checkpoint", "use --resume"
        errors.append(describe("resume_from_checkpoint", "a value", expected, f"Remove the key, or {advice}"))
    return errors
