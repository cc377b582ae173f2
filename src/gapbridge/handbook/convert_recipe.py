"""`gapbridge convert`: a recipe of one's own for SFT becomes one for another method, beside it."""

from __future__ import annotations

from pathlib import Path

from trl import SFTTrainer

from .. import methods
from ..errors import ConfigError, require
from ..files import write_text_atomic
from ..planning.smoke_test import validate_offline
from ..recipe.type_checks import closest_match, read_yaml
from .recipe_edit import render_method_recipe, stage_name


def run_convert(source: Path, method: str, output: Path | None = None) -> Path:
    """Write the recipe, check it without a hub, and print what comes next.

    Args:
        source: an SFT recipe: of this package, TRL's or the handbook's. output: by default as `place_for` says.

    Returns:
        The file. One that is there already and says the same is left alone.

    Raises:
        ConfigError: nothing can be written, with every reason; or the recipe that was written has errors.
    """
    known = available_methods()
    got = f"{method}{closest_match(method, known)}"
    errors = require(method in known, "--method", got, f"one of {', '.join(known)}", "Choose one of them")
    of = read_yaml(source).get("method")
    errors += require(
        of in (None, methods.CONTROL), f"{source}, method", of, "an SFT recipe", "Start from the SFT recipe"
    )
    if errors:
        raise ConfigError(errors)
    target = output or place_for(source, method)
    name = source.as_posix()
    head = [f"# From {name} by `gapbridge convert`; goes on from its model. Look for `changed` and `new`."]
    text = render_method_recipe(source.read_text(encoding="utf-8"), name, method, head)
    if target.exists() and target.read_text(encoding="utf-8") != text:
        got = "an existing file, which is never overwritten"
        raise ConfigError(target, got, "a new one", "Choose another --output")
    write_text_atomic(target, text)
    print(f"wrote {target}")
    for line in text.splitlines():
        if "  # changed: was " in line or line.endswith("  # new"):
            print(f"  {line}")
    validate_offline([str(target)], [], steps=False)
    print(f"next:\n  gapbridge preview {target}\n  gapbridge {method} {target}")
    return target


def available_methods() -> list[str]:
    """The methods that train an SFT recipe's data."""
    others = [name for name in methods.list_methods() if name != methods.CONTROL]
    return [name for name in others if issubclass(methods.get_method(name), SFTTrainer)]


def place_for(source: Path, method: str) -> Path:
    """`MODEL/sft/config.yaml` → `MODEL/METHOD/config.yaml`; elsewhere beside the source, under the method's name."""
    if source.parent.name == methods.CONTROL:
        return source.parent.parent / method / source.name
    return source.with_name(f"{stage_name(source.stem, method)}{source.suffix}")
