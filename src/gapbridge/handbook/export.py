"""`gapbridge copy-into FORK`: scripts and recipes as new files of a fork, whose own launch.slurm starts them."""

from __future__ import annotations

from pathlib import Path

from trl import SFTTrainer

from .. import methods
from ..errors import ConfigError, describe, require
from ..files import write_text_atomic
from ..recipe.type_checks import closest_match
from .recipe_edit import render_method_recipe


_SCRIPT = """\
import sys

from gapbridge.cli import main

if __name__ == "__main__":
    main(["{method}", *sys.argv[1:]])
"""


# The fork's launch.slurm reads a recipe with grep: no other comment may hold the keys that it looks for.
_VLLM = (
    "# Completions through vLLM; launch.slurm then keeps the last node for the server:",
    "# use_vllm: true",
    "# vllm_mode: server",
)


def exportable_recipes() -> list[str]:
    """The methods that a fork gets: those that train an SFT recipe's data on contexts generated before."""
    return [
        name
        for name in methods.list_methods()
        if (kind := methods.get_method(name)).generates_contexts and issubclass(kind, SFTTrainer)
    ]


def run_copy_into(fork: Path, model: str | None = None) -> list[Path]:
    """Write a script for each method, and a recipe for each method and SFT recipe; print them and what comes next.

    Args:
        fork: the top directory of a fork. model: a folder of its `recipes`; None takes all that have SFT recipes.

    Returns:
        The files written. Those that are there already, just as they would be written, are left alone.

    Raises:
        ConfigError: with every reason at once; nothing is written then.
    """
    sources = _sft_recipes(fork, model)
    files = {Path("scripts") / f"{name}.py": _SCRIPT.format(method=name) for name in exportable_recipes()}
    errors: list[str] = []
    for source in sources:
        try:
            for name in exportable_recipes():
                target = source.parent.parent / name / f"config_{_suffix(source)}.yaml"
                got = f"the file {target}, which another recipe also makes"
                errors += require(target not in files, source, got, "different names", "Rename one of the recipes")
                head = [
                    f"# From {source.as_posix()} by `gapbridge copy-into`; goes on from its model.",
                    f"# Look at the rows first: gapbridge preview --config {target.as_posix()}",
                ]
                if "vllm_mode" in methods.method_fields(name).__dataclass_fields__:
                    head += _VLLM
                text = (fork / source).read_text(encoding="utf-8")
                files[target] = render_method_recipe(text, source.as_posix(), name, head)
        except ConfigError as error:
            errors += error.errors
    new = {
        path: text
        for path, text in files.items()
        if not (fork / path).is_file() or (fork / path).read_bytes() != text.encode()
    }
    errors += [
        describe(fork / path, "an existing file, which is never overwritten", "a new one", "Move it away")
        for path in new
        if (fork / path).exists()
    ]
    if errors:
        raise ConfigError(errors)
    for path, text in new.items():
        write_text_atomic(fork / path, text)
        print(f"wrote {fork / path}")
    print("\n".join(_next(fork, files)))
    return list(new)


def _sft_recipes(fork: Path, model: str | None) -> list[Path]:
    """The SFT recipes, relative to the fork."""
    recipes = fork / "recipes"
    if not recipes.is_dir():
        raise ConfigError(fork, "no directory recipes", "a fork of the handbook", "Give its top directory")
    by_model = {path.parent.name: sorted(path.glob("*.yaml")) for path in sorted(recipes.glob(f"*/{methods.CONTROL}"))}
    by_model = {name: paths for name, paths in by_model.items() if paths}
    if not by_model:
        got = f"no SFT recipe (MODEL/{methods.CONTROL}/config_full.yaml)"
        raise ConfigError(recipes, got, "one to start from", "Give a fork with SFT recipes")
    if model is not None and model not in by_model:
        expected = f"one of {', '.join(by_model)}, as in {recipes}"
        raise ConfigError("--recipe", f"{model}{closest_match(model, by_model)}", expected, "Correct the name")
    chosen = by_model if model is None else {model: by_model[model]}
    return [path.relative_to(fork) for paths in chosen.values() for path in paths]


def _suffix(source: Path) -> str:
    """What `launch.slurm --config` is given: of config_full.yaml `full`, and so of config.yaml."""
    return source.stem.removeprefix("config").removeprefix("_") or "full"


def _next(fork: Path, files: dict[Path, str]) -> list[str]:
    """The commands for the first recipe, from the top of the fork."""
    recipe = next(path for path in files if path.suffix == ".yaml")
    model, task, suffix = recipe.parts[1], recipe.parts[2], recipe.stem.removeprefix("config_")
    accelerators = {path.stem for path in (fork / "recipes" / "accelerate_configs").glob("*.yaml")}
    lines = ["", f"next, from {fork}:", f"  gapbridge preview --config {recipe.as_posix()}"]
    name = next((name for name in ("zero3", "ddp", *sorted(accelerators)) if name in accelerators), None)
    if name is not None:
        place = f"recipes/accelerate_configs/{name}.yaml"
        launched = f"scripts/{task}.py --config {recipe.as_posix()}"
        lines.append(f"  accelerate launch --config_file {place} {launched}")
        if (fork / "recipes" / "launch.slurm").is_file():
            options = f"--model {model} --task {task} --config {suffix} --accelerator {name}"
            lines.append(f"  sbatch recipes/launch.slurm {options}")
    return lines
