"""Names inside the package: what a docstring names exists, a constant has one value, and a module one name."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import ROOT


SOURCE = ROOT / "src" / "gapbridge"
FILES = sorted(SOURCE.rglob("*.py"))
# What each method or task defines under the same name, so that the package finds it.
REGISTERED = {"DISPLAY_NAME", "EXPORTS", "FIELDS", "METHOD", "TASK"}
# One module of a kind in each folder. In `cli/commands` a module has the name of its command.
OF_THE_HANDBOOK = {"scripts/sft.py"}
SHARED = {"__init__", "__main__", "citation", "command", "config", "rows", "stats", "trainer"}


def constants(path: Path) -> list[tuple[str, str]]:
    """(name, value as code) of the public constants that a module defines."""
    found = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            found.append((node.targets[0].id, ast.unparse(node.value)))
    return [(name, value) for name, value in found if not name.startswith("_")]


def test_a_constant_is_defined_once() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        for name, _ in constants(path):
            places[name].append(str(path.relative_to(SOURCE)))
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in REGISTERED} == {}


def test_a_module_has_a_name_of_its_own() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        if path.parent.name != "commands" and path.stem not in SHARED:
            places[path.stem].append(str(path.relative_to(SOURCE)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one, of its classes or of their fields."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if not dotted.startswith(error.name or "?"):
                raise
            continue
        for name in parts[cut:]:
            if name in getattr(found, "__dataclass_fields__", {}):
                return True
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def test_a_named_file_is_there() -> None:
    files = [
        path.as_posix()
        for folder in ("src", "tests", "benchmarks", "recipes")
        for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    missing = {
        f"{path.relative_to(SOURCE)}: {name}"
        for path in FILES
        for name in re.findall(r"`([\w/]+\.py)`", path.read_text())
        if not any(file.endswith(f"/{name}") for file in files) and name not in OF_THE_HANDBOOK
    }
    assert missing == set()


@pytest.mark.parametrize("pattern", ["src/gapbridge/**/*.py", "docs/**/*.md", "README.md", "benchmarks/**/*.py"])
def test_a_dotted_name_resolves(pattern: str) -> None:
    named: dict[str, str] = {}
    for path in sorted(ROOT.glob(pattern)):
        for dotted in re.findall(r"(?<=[`~\s\"'(])gapbridge(?:\.[A-Za-z_]\w*)+(?=[`\s\"'(),.;:\]])", path.read_text()):
            named.setdefault(dotted, str(path.relative_to(ROOT)))
    others = {"gapbridge.identity", "gapbridge.shard"}  # keys in the metadata of a shard
    assert {dotted: path for dotted, path in named.items() if dotted not in others and not resolves(dotted)} == {}


def test_log_keys_are_written_once() -> None:
    """A metric is found by a name of Python, never by the text of its log key: each key stands in one module."""
    places: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        if path.parts[-2] in ("reporting", "compare"):
            continue  # readers of the files that a run has written
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and re.fullmatch(
                r"(contexts|completions|sampling)/\w+", str(node.value)
            ):
                places[str(node.value)].add(str(path.relative_to(SOURCE / "methods")).split("/")[0]) if (
                    SOURCE / "methods" in path.parents
                ) else places[str(node.value)].add(str(path.relative_to(SOURCE)))
    outside = {key: found for key, found in places.items() if any(place.endswith(".py") for place in found)}
    assert outside == {}
