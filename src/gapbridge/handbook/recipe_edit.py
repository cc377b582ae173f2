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


def render_method_recipe(text: str, source: str, target: str, method: str) -> str:
    """The text of a method's recipe that starts from the model of an SFT recipe.

    Args:
        text: the SFT recipe. source, target: the two files, as the fork's README would name them.

    Raises:
        ConfigError: the recipe names no place for its model, or cannot be changed line by line.
    """
    head = [
        f"# From {source} by `gapbridge copy-into`; goes on from its model.",
        f"# Look at the rows first: gapbridge preview --config {target}",
    ]
    before = _read_mapping(text, source)
    if "vllm_mode" in {field.name for field in fields(method_fields(method))} - before.keys():
        head += _VLLM.splitlines()
    return _rendered(text, source, method, {"truncate_overlong": True}, head)


def convert_user_recipe(text: str, source: str, method: str) -> str:
    """The text of a method's recipe that starts from the model of one's own SFT recipe `text` in the file `source`;
    what changes is marked. Raises ConfigError as `render_method_recipe`."""
    # Without the key it is TRL's or the handbook's, which cut long rows; here they would be refused.
    new: dict[str, Any] = {} if "method" in _read_mapping(text, source) else {"truncate_overlong": True}
    head = [f"# From {source} by `gapbridge convert`; goes on from its model. Look for `changed` and `new`."]
    return _rendered(text, source, method, new, head, marked=True)


def _rendered(
    text: str, source: str, method: str, new: dict[str, Any], head: list[str], *, marked: bool = False
) -> str:
    """The changed lines below `head` and the keys that are added; `marked`: what changes has a comment."""
    before = _read_mapping(text, source)
    changes = _changes(before, source, method)
    if "method" in before:
        changes["method"] = method
    added = {key: value for key, value in {"method": method, **new}.items() if key not in before}
    head = [*head, *(f"{key}: {_written(value)}{'  # new' if marked else ''}" for key, value in added.items())]
    lines = []
    for line in text.rstrip("\n").split("\n"):
        changed, key = _changed(line, changes), line.partition(":")[0]
        is_marked = marked and changed != line
        lines.append(f"{changed}  # changed: was {_written(before[key])}" if is_marked else changed)
    result = "\n".join([*head, *([""] if added else []), *lines]) + "\n"
    try:
        # Text that is changed line by line may mean something else.
        if yaml.safe_load(result) == {**added, **before, **changes}:
            return result
    except yaml.YAMLError:
        pass
    wanted = ", ".join(f"{key}: {_written(value)}" for key, value in {**added, **changes}.items())
    got = "a file that cannot be changed line by line"
    raise ConfigError(source, got, "one key a line", f"Copy it, and set {wanted}")


def _read_mapping(text: str, source: str) -> dict[str, Any]:
    before = yaml.safe_load(text)
    if not isinstance(before, dict):
        raise ConfigError(source, "another value", "a mapping of keys to values", "Correct the file")
    return before


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
