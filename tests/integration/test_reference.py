"""The reference pages that are made from the code: configuration keys and the command line.

A part of a page between `<!-- NAME -->` and `<!-- /NAME -->` is written by this module:
GAPBRIDGE_WRITE_DOCS=1 python -m pytest FILE
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from trl import DatasetMixtureConfig

from gapbridge import cli, methods
from gapbridge.data.sources import DataConfig


DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
NAMES = methods.list_methods()
CHECKED = {**{name: DOCS / "methods" / f"{name}.md" for name in NAMES if name != "sft"},
           "configuration": REFERENCE / "configuration.md", "data": REFERENCE / "configuration.md",
           "command-line": REFERENCE / "command-line.md"}  # fmt: skip


def keys(name: str) -> dict[str, Field[Any]]:
    return {field.name: field for field in fields(methods.method_fields(name))}


def kind(owner: type[Any], field: Field[Any]) -> str:
    """The type as it is written: transformers' parser replaces the `type` of a field that it has read."""
    choices = field.metadata.get("choices")
    if choices:
        return escaped(", ".join(f"`{choice}`" for choice in choices))
    written = (inspect.get_annotations(base).get(field.name) for base in owner.__mro__)
    found = next(annotation for annotation in written if annotation is not None)
    return escaped((found if isinstance(found, str) else inspect.formatannotation(found)).removesuffix(" | None"))


def default(field: Field[Any]) -> str:
    value = field.default if field.default_factory is MISSING else field.default_factory()
    if value is None or value is MISSING:
        return "–"
    written = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{written}`".replace("|", r"\|")


def escaped(text: object) -> str:
    return re.sub(r"\s+", " ", str(text)).replace("|", r"\|").replace("<", "&lt;")


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, ["---"] * len(heads), *rows))


def method_keys(name: str) -> str:
    """The keys of a method that SFT does not have."""
    own = {key: field for key, field in keys(name).items() if key not in keys("sft")}
    return key_table(methods.method_fields(name), own)


def key_table(owner: type[Any], keys: dict[str, Field[Any]]) -> str:
    rows = [[f"`{key}`", kind(owner, field), default(field), escaped(field.metadata["help"])]
            for key, field in keys.items()]  # fmt: skip
    return table(["key", "type", "default", "meaning"], rows)


def data() -> str:
    """The keys of the data that TRL does not have."""
    theirs = {field.name for field in fields(DatasetMixtureConfig)} - set(inspect.get_annotations(DataConfig))
    return key_table(DataConfig, {field.name: field for field in fields(DataConfig) if field.name not in theirs})


def configuration() -> str:
    """Every key of every method; a key with another default or type in another method has a line for each."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for name in NAMES:
        for key, field in keys(name).items():
            owner = methods.method_fields(name)
            line = (f"`{key}`", kind(owner, field), default(field), escaped(field.metadata["help"]))
            lines.setdefault(line, []).append(name)
    rows = [[*line, "all" if len(names) == len(NAMES) else ", ".join(names)] for line, names in sorted(lines.items())]
    return table(["key", "type", "default", "meaning", "methods"], rows)


def options(parser: argparse.ArgumentParser) -> str:
    rows = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        spelled = ", ".join(f"`{option}`" for option in action.option_strings) or f"`{action.metavar}`"
        text = (action.help or "") % {"default": action.default, "prog": "gapbridge"}
        rows.append([spelled, escaped(action.metavar or "–"), escaped(text)])
    return table(["option", "value", "meaning"], rows)


def command_line() -> str:
    """One part for all training commands, whose options are the same, and one for each other command."""
    trained = [[f"`{name}`", escaped(cli.find(name).summary.rstrip("."))] for name in NAMES]
    usage = f"```text\ngapbridge METHOD {cli.find('sft').takes}\n```"
    parts = [
        f"### Training\n\n{usage}\n\n{table(['METHOD', 'what it is'], trained)}\n{options(cli.find('sft').parser())}"
    ]
    assert len({options(cli.find(name).parser()) for name in NAMES}) == 1
    for name in cli.COMMANDS:
        if name not in NAMES:
            command = cli.find(name)
            summary = command.summary.rstrip(".")
            parts.append(f"### `{name}`\n\n{summary[0].upper()}{summary[1:]}.\n\n"
                         f"```text\ngapbridge {name} {command.takes}\n```\n\n{options(command.parser())}")  # fmt: skip
    return "\n".join(parts)


def wanted(name: str) -> str:
    parts = {"configuration": configuration, "data": data, "command-line": command_line}
    return parts.get(name, lambda: method_keys(name))()


@pytest.mark.parametrize("name", CHECKED)
def test_the_written_part_is_what_the_code_says(name: str) -> None:
    path: Path = CHECKED[name]
    text = path.read_text(encoding="utf-8")
    head, mark, rest = text.partition(f"<!-- {name} -->\n")
    _, end, tail = rest.partition(f"<!-- /{name} -->")
    assert mark and end, f"{path} has no part {name}"
    new = f"{head}{mark}{wanted(name)}{end}{tail}"
    if os.environ.get("GAPBRIDGE_WRITE_DOCS"):
        path.write_text(new, encoding="utf-8")
        text = new
    assert text == new, f"{path} is out of date: GAPBRIDGE_WRITE_DOCS=1 python -m pytest {__file__}"
