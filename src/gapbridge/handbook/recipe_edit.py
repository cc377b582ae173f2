"""An SFT recipe as a method's, line by line: comments, order and everything else stay as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from ..errors import ConfigError
from ..methods import CONTROL


_RENAMED = ("output_dir", "hub_model_id", "run_name")  # they name the stage


def render_method_recipe(text: str, source: str, method: str, head: Sequence[str]) -> str:
    """The text of a method's recipe that starts from the model of an SFT recipe. What changes has a comment.

    Args:
        text: the SFT recipe in the file `source`.
        head: the first lines.

    Raises:
        ConfigError: the recipe names no place for its model, or cannot be changed line by line.
    """
    before = yaml.safe_load(text)
    if not isinstance(before, dict):
        raise ConfigError(source, "another value", "a mapping of keys to values", "Correct the file")
    changes = _changes(before, source, method)
    added: dict[str, Any] = {}
    if "method" in before:
        changes["method"] = method
    else:  # it is TRL's or the handbook's, which cut long rows; here they would be refused
        added = {
            key: value for key, value in {"method": method, "truncate_overlong": True}.items() if key not in before
        }
    lines = [*head, *(f"{key}: {_written(value)}  # new" for key, value in added.items()), *([""] if added else [])]
    for line in text.rstrip("\n").split("\n"):
        changed = _changed(line, changes)
        key = line.partition(":")[0]
        lines.append(line if changed == line else f"{changed}  # changed: was {_written(before[key])}")
    result = "\n".join(lines) + "\n"
    try:
        # Text that is changed line by line may mean something else.
        if yaml.safe_load(result) == {**added, **before, **changes}:
            return result
    except yaml.YAMLError:
        pass
    wanted = ", ".join(f"{key}: {_written(value)}" for key, value in {**added, **changes}.items())
    got = "a file that cannot be changed line by line"
    raise ConfigError(source, got, "one key a line", f"Copy it, and set {wanted}")


def _changes(before: dict[str, Any], source: str, method: str) -> dict[str, Any]:
    """What the recipe says otherwise: the SFT model is where it starts, and the stage has a name of its own."""
    model = before.get("output_dir") or before.get("hub_model_id")
    if not model:
        got = "neither output_dir nor hub_model_id"
        raise ConfigError(source, got, "the place of its model", "Add one of the keys")
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
