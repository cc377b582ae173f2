"""`gapbridge init`: a recipe of one's own for SFT becomes one for another method, beside it."""

from __future__ import annotations

from pathlib import Path

from trl import SFTTrainer

from .. import methods
from ..errors import ConfigError
from ..files import write_text_atomic
from ..planning.tiny_scale import run_offline
from ..recipe.values import nearest, read_yaml
from .recipes import own_recipe, stage_name


def run_init(source: Path, method: str, output: Path | None = None) -> Path:
    """Write the recipe, check it without a hub, and print what comes next.

    Args:
        source: an SFT recipe: of this package, TRL's or the handbook's.
        output: where it goes; by default beside the source, see `place_for`.

    Returns:
        The file. One that is there already and says the same is left alone.

    Raises:
        ConfigError: nothing can be written, with every reason; or the recipe that was written has faults.
    """
    faults = []
    if method not in offered():
        faults.append(f"--method {method}: choose one of {', '.join(offered())}{nearest(method, offered())}")
    keys = read_yaml(source)
    if keys.get("method") not in (None, methods.CONTROL):
        faults.append(f"{source}: is a recipe for {keys['method']}: start from the SFT one")
    if faults:
        raise ConfigError(faults)
    target = output or place_for(source, method)
    text = own_recipe(source.read_text(encoding="utf-8"), source.as_posix(), method)
    if target.exists() and target.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{target}: is there already, and nothing is overwritten; choose another --output")
    write_text_atomic(target, text)
    print(f"wrote {target}")
    for line in text.splitlines():
        if "  # changed: was " in line or line.endswith("  # new"):
            print(f"  {line}")
    run_offline([str(target)], [], steps=False)
    print(f"next:\n  gapbridge preview {target}\n  gapbridge {method} {target}")
    return target


def offered() -> list[str]:
    """The methods that train an SFT recipe's data."""
    others = [name for name in methods.names() if name != methods.CONTROL]
    return [name for name in others if issubclass(methods.find(name), SFTTrainer)]


def place_for(source: Path, method: str) -> Path:
    """`MODEL/sft/config.yaml` → `MODEL/METHOD/config.yaml`; elsewhere beside the source, under the method's name."""
    if source.parent.name == methods.CONTROL:
        return source.parent.parent / method / source.name
    return source.with_name(f"{stage_name(source.stem, method)}{source.suffix}")
