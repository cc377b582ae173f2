"""The commands of the methods: train a recipe."""

import inspect
import json
from dataclasses import MISSING, Field, fields
from typing import Any

from ... import methods
from ..command import BaseCommand, Call, add_recipe
from ..parser import Parser


RESUME = ("auto", "never", "require")


class Command(BaseCommand):
    examples = ("RECIPE.yaml --learning_rate 1e-4", "RECIPE.yaml --accelerate_config zero2 --num_processes 8")
    is_launched = True

    @property
    def summary(self) -> str:  # type: ignore[override]
        return methods.method_summary(self.name).rstrip(".")

    def add_options(self, parser: Parser) -> None:
        add_recipe(parser)
        parser.add_argument("--resume", choices=RESUME, default="auto", metavar="|".join(RESUME),
            help="auto: continue the run in output_dir or start one; never: refuse to continue; require: refuse to "
            "start a new one (default: %(default)s)")  # fmt: skip
        parser.extend_help = lambda: _add_keys(parser, self.name)

    def run(self, call: Call) -> object:
        from ...runs.run_config import read_job
        from ...runs.train import train

        job = read_job(["--config", call.options.config, *call.overrides], self.name)
        job.resume = call.options.resume
        return train(job)


def _add_keys(parser: Parser, method: str) -> None:
    add = parser.add_argument_group(
        f"recipe keys of {method} (`KEY: VALUE` in the recipe, --KEY VALUE here), beside those of TRL's configurations"
    ).add_argument
    for key in fields(methods.method_fields(method)):
        add(f"--{key.name}", metavar=_kind(key), help=key.metadata["help"].replace("%", "%%") + _default(key))


def _kind(key: Field[Any]) -> str:
    if "choices" in key.metadata:
        return "|".join(map(str, key.metadata["choices"]))
    kind = key.type if isinstance(key.type, str) else inspect.formatannotation(key.type)
    return kind.removesuffix(" | None")


def _default(key: Field[Any]) -> str:
    value = key.default if key.default_factory is MISSING else key.default_factory()
    if value is None or value is MISSING:
        return ""
    return f" (default: {json.dumps(value, ensure_ascii=False)})".replace("%", "%%")
