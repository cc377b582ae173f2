"""An SFT recipe as a method's, line by line: comments, order and everything else stay as they are."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import yaml

from ..errors import ConfigError
from ..methods import CONTROL, method_fields


_RENAMED = ("output_dir", "hub_model_id", "run_name")  # they name the stage
# The fork's launch.slurm reads a recipe with grep: no comment may hold the keys that it looks for.
_VLLM = """\
# Drafts through vLLM; launch.slurm then keeps the last node for the server:
# use_vllm: true
# vllm_mode: server
"""


def render_method_recipe(text: str, source: str, target: str, method: str, eos_token: str | None = None) -> str:
    """The text of a method's recipe that starts from the model of an SFT recipe.

    Args:
        text: the SFT recipe.
        source, target: the two files, as the fork's README would name them.
        method: the method's name.
        eos_token: the token that ends an answer, where the recipe must say it.

    Raises:
        ConfigError: the recipe names no place for its model, or cannot be changed line by line.
    """
    before = _read_mapping(text, source)
    changes = _changes(before, source, method)
    new: dict[str, Any] = {"truncate_overlong": True} | ({"eos_token": eos_token} if eos_token else {})
    lines = [_changed(line, changes) for line in text.rstrip("\n").split("\n")]
    added = [f"{key}: {_written(value)}" for key, value in new.items() if key not in before]
    if "vllm_mode" in {field.name for field in fields(method_fields(method))} - before.keys():
        added += _VLLM.splitlines()
    at = next((at for at, line in enumerate(lines, 1) if line.startswith("bf16:")), len(lines))
    head = [
        f"# From {source} by `gapbridge copy-into`; goes on from its model.",
        f"# Look at the rows first: gapbridge preview --config {target}",
        f"method: {method}",
        "",
    ]
    result = "\n".join([*head, *lines[:at], *added, *lines[at:]]) + "\n"
    return _checked(result, {"method": method, **new, **before, **changes}, source, changes)


def convert_user_recipe(text: str, source: str, method: str) -> str:
    """The text of a method's recipe that starts from the model of an SFT recipe of one's own; what changes is marked.

    Args:
        text: the SFT recipe.
        source: its file, for the recipe's head and for messages.
        method: the method's name.

    Raises:
        ConfigError: the recipe names no place for its model, or cannot be changed line by line.
    """
    before = _read_mapping(text, source)
    changes = {"method": method, **_changes(before, source, method)}
    # Without the key it is TRL's or the handbook's, which cut long rows; here they would be refused.
    new: dict[str, Any] = {} if "method" in before else {"truncate_overlong": True}
    new = {key: value for key, value in new.items() if key not in before}
    lines = []
    for line in text.rstrip("\n").split("\n"):
        key = line.partition(":")[0]
        changed = _changed(line, changes)
        lines.append(changed if changed == line else f"{changed}  # changed: was {_written(before[key])}")
    head = [f"# From {source} by `gapbridge convert`; goes on from its model. Look for `changed` and `new`."]
    added = {key: value for key, value in {"method": method, **new}.items() if key not in before}
    head += [f"{key}: {_written(value)}  # new" for key, value in added.items()]
    result = "\n".join([*head, *([""] if added else []), *lines]) + "\n"
    return _checked(result, {**new, **before, **changes}, source, changes)


def _read_mapping(text: str, source: str) -> dict[str, Any]:
    before = yaml.safe_load(text)
    if not isinstance(before, dict):
        raise ConfigError(source, "another value", "a mapping of keys to values", "Correct the file")
    return before


def _checked(text: str, keys: dict[str, Any], source: str, changes: dict[str, Any]) -> str:
    """The recipe, if it says `keys`: text that is changed line by line may mean something else."""
    try:
        if yaml.safe_load(text) == keys:
            return text
    except yaml.YAMLError:
        pass
    raise ConfigError(
        source, "a file that cannot be changed line by line", "one key a line", f"Copy it, and set {_listed(changes)}"
    )


def _changes(before: dict[str, Any], source: str, method: str) -> dict[str, Any]:
    """What the recipe says otherwise: the SFT model is where it starts, and the stage has a name of its own."""
    model = before.get("output_dir") or before.get("hub_model_id")
    if not model:
        raise ConfigError(
            source, "neither output_dir nor hub_model_id", "the place of its model", "Add one of the keys"
        )
    changes = {"model_name_or_path": str(model)}
    if "model_revision" in before:
        changes["model_revision"] = "main"
    return changes | {name: stage_name(str(before[name]), method) for name in _RENAMED if before.get(name)}


def stage_name(name: str, method: str) -> str:
    """`data/zephyr-7b-sft-full` → `data/zephyr-7b-bash-full`; a name that does not name the stage gets it appended."""
    folder, slash, last = name.rstrip("/").rpartition("/")
    stage = re.compile(rf"(?<![A-Za-z0-9]){CONTROL}(?![A-Za-z0-9])", re.IGNORECASE)
    return f"{folder}{slash}{stage.sub(method, last) if stage.search(last) else f'{last}-{method}'}"


def _changed(line: str, changes: dict[str, Any]) -> str:
    """A line with the value of its key changed, and its comment kept."""
    found = re.fullmatch(r"(?P<key>\w+):[^#]*?(?P<comment>\s+#.*|\s*)", line)
    if found is None or found["key"] not in changes:
        return line
    return f"{found['key']}: {_written(changes[found['key']])}{found['comment'].rstrip()}"


def _written(value: Any) -> str:
    """A value in YAML, without quotes where they are not needed."""
    plain = json.dumps(value, ensure_ascii=False)
    bare = str(value)
    return bare if isinstance(value, str) and yaml.safe_load(f"key: {bare}") == {"key": value} else plain


def _listed(changes: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {_written(value)}" for key, value in changes.items())
