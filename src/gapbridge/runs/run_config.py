"""A job: a parsed recipe with its parts by name, and the method that it is for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from trl import ModelConfig, ScriptArguments

from .. import methods
from ..compat import backfill_trust_remote_code
from ..data.sources import DataConfig, LoadedData, find_data
from ..errors import ConfigError, describe
from ..recipe.recipe_parser import Recipe, RecipeParser
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
    def uses_peft(self) -> bool:
        return bool(self.model.use_peft)

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


def parser_for(name: str) -> RecipeParser:
    """The parser of a method's recipes."""
    owners: dict[str, list[str]] = {}
    for other in methods.list_methods():
        for key in fields(methods.method_fields(other)):
            owners.setdefault(key.name, []).append(other)
    method = methods.get_method(name)
    return RecipeParser(
        [DataConfig, ScriptArguments, method.config_class, ModelConfig],
        methods=methods.list_methods(),
        other_keys={key: " and ".join(others) for key, others in owners.items() if name not in others},
        preferences=method.data_format == "preferences",
        prog=f"gapbridge {name}",
        description=methods.method_summary(name),
    )


def read_job(argv: Sequence[str], method: str | None = None) -> RunConfig:
    """Parse a recipe. The method is the one given, or the recipe's `method` key.

    Raises:
        ConfigError: listing every error.
    """
    chosen = method or _method_of(argv)
    recipe = parser_for(chosen).parse_recipe(argv)
    if recipe.method not in (None, chosen):
        raise ConfigError(
            recipe.path,
            f"a recipe for {recipe.method}",
            "one for this command",
            f"Run it with `gapbridge {recipe.method}`",
        )
    kind = methods.get_method(chosen)
    parts, args, model = recipe.parts, recipe.parts[kind.config_class], recipe.parts[ModelConfig]
    if not model.model_name_or_path:
        raise ConfigError(f"{recipe.path}, model_name_or_path", "no value", "a directory or hub id", "Add the key")
    require_output_dir(recipe.settings.get("output_dir"))
    errors = [f"{recipe.path}, {error}" for error in _unused(recipe.settings)]
    if errors:
        raise ConfigError(errors)
    backfill_trust_remote_code(args, model)
    model.lora_target_modules = _targets(model.lora_target_modules)
    return RunConfig(chosen, kind, recipe, parts[DataConfig], parts[ScriptArguments], model, args)


def _targets(modules: Any) -> Any:
    """LoRA's targets. TRL makes text of a list of one, which PEFT takes for a pattern of whole names; a name of a
    module is no pattern."""
    is_name = isinstance(modules, str) and modules != "all-linear" and re.fullmatch(r"[\w.-]+", modules)
    return [modules] if is_name else modules


def _unused(settings: dict[str, Any]) -> list[str]:
    """Settings that scripts of their own act upon, and that a run would leave without effect."""
    errors = []
    if settings.get("do_train") is False:
        errors.append(
            describe(
                "do_train",
                "false",
                "true, since the commands of methods train",
                "Run `gapbridge eval`, which evaluates alone",
            )
        )
    if settings.get("do_predict"):
        errors.append(
            describe(
                "do_predict",
                "true",
                "false, since a recipe has no test set",
                "Run `gapbridge eval` or `gapbridge generate`",
            )
        )
    if settings.get("resume_from_checkpoint"):
        errors.append(
            describe(
                "resume_from_checkpoint",
                "a value",
                "none, since a run resumes from its last complete checkpoint",
                "Remove the key, or use --resume",
            )
        )
    if settings.get("hub_strategy") in ("checkpoint", "all_checkpoints"):
        errors.append(
            describe(
                "hub_strategy",
                settings["hub_strategy"],
                "end, since a run uploads its final model alone",
                "Remove the key",
            )
        )
    return errors


def _method_of(argv: Sequence[str]) -> str:
    arguments = [part for argument in argv for part in argument.split("=", 1)]
    if "--config" not in arguments or arguments[-1] == "--config":
        raise ConfigError("command line", "no recipe", "a YAML file", "Give one with --config FILE.yaml")
    path = Path(arguments[arguments.index("--config") + 1])
    method = read_yaml(path).get("method")
    if method not in methods.list_methods():
        raise ConfigError(
            f"{path}, method",
            "no value" if method is None else f"{method!r}",
            f"one of {', '.join(methods.list_methods())}",
            "Set the method of the recipe",
        )
    return str(method)
