"""What a YAML file says, read by the types that are wanted: text stays as it is written, numbers are never guessed.

YAML 1.1 reads `no` as false, `042` as 34, `1:30` as 90, `2024-05-01` as a date, and `1e-4` as text. Here a scalar
without quotes is text where text is wanted (`eval_strategy: no`); elsewhere it is what YAML 1.1 and 1.2 agree on.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from ..errors import describe


# TRL gives the environment `True` for `true`; what YAML 1.1 alone takes for a truth value is text there.
ENVIRONMENT_VALUE = str | int | bool
MOST_VALUES = 100_000  # of a recipe, each alias counted as what it stands for

_TAG = "tag:yaml.org,2002:"
_FALSE, _TRUE = ("no", "false", "off"), ("yes", "true", "on")
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_BASED = re.compile(r"[-+]?0(?:b[01_]+|x[0-9a-fA-F_]+)")
_REAL = re.compile(r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_SIXTIES = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_SPECIAL = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}


class NodeError(Exception):
    """Something that no value is made of; its text begins with the line."""


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a hint allows."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(kind for option in get_args(hint) for kind in alternatives(option))
    return (hint,)


def read_values(root: yaml.MappingNode, hints: Mapping[str, Any] | None) -> tuple[dict[Any, Any], list[str]]:
    """The values of a file, and its errors: keys given twice at any depth, and scalars with two meanings.

    Args:
        hints: the types of the keys at the top; what has none is read without one. None: nothing is known of the
            types, and scalars with two meanings are text.

    Raises:
        NodeError: aliases make it endless or too large, or a tag is none of JSON's types.
    """
    twice: list[tuple[int, str]] = []
    _inspect(root, False, {}, [], twice)
    unclear: list[str] = []
    values: dict[Any, Any] = _value(root, hints or {}, unclear)
    found = [error for _, error in sorted(twice)]
    return values, found if hints is None else found + unclear


def _inspect(
    node: yaml.Node, in_list: bool, sizes: dict[int, int], above: list[int], twice: list[tuple[int, str]]
) -> int:
    """How many values a node stands for, and in `twice` the lines of keys that are given twice.

    Aliases of aliases grow as powers, and one inside itself has no end.
    """
    if id(node) in above:
        got = "an alias inside the value that it names"
        raise NodeError(describe(_line(node), got, "a value that ends", "Remove the alias"))
    if id(node) not in sizes:
        children = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
            names = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge"]
            first = {key.value: key for key in reversed(names)}
            advice = "Keep one, or put the dash of a new entry before the second" if in_list else "Keep one"
            twice += [
                (key.start_mark.line, describe(_line(key), f"{key.value} twice", "it once", advice))
                for key in names
                if first[key.value] is not key
            ]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        above.append(id(node))
        is_list = isinstance(node, yaml.SequenceNode)
        sizes[id(node)] = 1 + sum(_inspect(child, is_list, sizes, above, twice) for child in children)
        above.pop()
    if sizes[id(node)] > MOST_VALUES:
        got = f"more than {MOST_VALUES:,} values, aliases counted"
        raise NodeError(describe(_line(node), got, "the keys of a recipe", "Remove the aliases"))
    return sizes[id(node)]


def _value(node: yaml.Node, hint: Any, unclear: list[str]) -> Any:
    """The value of a node as the hint wants it; `hint` may also be the types of a mapping's keys."""
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, hint, unclear)
    if node.tag != f"{_TAG}{'map' if isinstance(node, yaml.MappingNode) else 'seq'}":
        raise NodeError(_describe_tag(node, "a mapping or a list"))
    if isinstance(node, yaml.SequenceNode):
        element = next((get_args(kind)[0] for kind in alternatives(hint) if get_origin(kind) is list), hint)
        return [_value(child, element, unclear) for child in node.value]
    assert isinstance(node, yaml.MappingNode)  # YAML has no fourth kind of node
    values: dict[Any, Any] = {}
    hint_of = _hints_below(hint)
    yaml.SafeLoader("").flatten_mapping(node)  # what `<<` brings comes first, and a key of its own replaces it
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            got, advice = "a list or mapping as key", "Write a name before the colon"
            raise NodeError(describe(_line(key_node), got, "text", advice))
        meaning = _meaning(key_node)
        key = meaning if isinstance(meaning, int) and not isinstance(meaning, bool) else key_node.value
        values[key] = _value(value_node, hint_of(key), unclear)
    return values


def _scalar(node: yaml.ScalarNode, hint: Any, unclear: list[str]) -> Any:
    """The scalar as the hint wants it; one with two meanings stays text and is added to `unclear`."""
    meaning = _meaning(node)
    if meaning is None or isinstance(meaning, str):
        return meaning
    old_word = isinstance(meaning, bool) and node.value.lower() not in ("true", "false")
    if hint == ENVIRONMENT_VALUE and old_word:
        return node.value
    if takes_text(hint) and type(meaning) not in alternatives(hint):
        return node.value
    if isinstance(meaning, _TwoMeanings):
        got = f"{node.value}, which is {meaning.old} in YAML 1.1 and {meaning.plain} elsewhere"
        advice = "Write the number that is meant, or put text in quotes"
        unclear.append(describe(_line(node), got, "a number with one meaning", advice))
        return node.value
    return meaning


@dataclasses.dataclass(frozen=True)
class _TwoMeanings:
    old: str
    plain: str


def _meaning(node: yaml.ScalarNode) -> Any:
    """What a scalar is without a wish for a type."""
    text, tag = node.value, node.tag.removeprefix(_TAG)
    if tag == "null":
        return None
    # YAML 1.1 takes a number for one with an exponent only where it has a point and a sign: 1.0e-4.
    exponent = tag == "str" and "e" in text.lower() and _REAL.fullmatch(text)
    if node.style is None and (tag in ("int", "float") or exponent):
        return _number(text)
    if tag in ("str", "timestamp", "value", "merge"):
        return text
    try:
        if tag == "bool":
            return {**dict.fromkeys(_FALSE, False), **dict.fromkeys(_TRUE, True)}[text.lower()]
        if tag in ("int", "float"):
            return int(text) if tag == "int" else float(text)
    except (KeyError, ValueError):
        got = f"the tag {tag} before a value of another type"
        raise NodeError(describe(_line(node), got, "a tag that fits", "Remove the tag")) from None
    raise NodeError(_describe_tag(node, "text, a number, true or false"))


def _number(text: str) -> Any:
    """The number that a scalar without quotes is, or the text."""
    digits = text.replace("_", "")
    if _WHOLE.fullmatch(text):
        return int(digits)
    if _LEADING_ZERO.fullmatch(text):
        plain = int(digits)
        octal = int(digits, 8) if not set(digits) & {"8", "9"} else plain
        return plain if octal == plain else _TwoMeanings(str(octal), str(plain))
    if _BASED.fullmatch(text):
        return int(digits, 0)
    if _SIXTIES.fullmatch(text):
        return _TwoMeanings("a number to the base 60", "text")
    if _REAL.fullmatch(text):
        return float(digits)
    return _SPECIAL.get(text.lower(), text)


def takes_text(hint: Any) -> bool:
    """Whether text can stand there, alone or for a list of one."""
    return any(
        kind is str
        or get_origin(kind) is Literal
        or (isinstance(kind, type) and issubclass(kind, Enum))
        or (get_origin(kind) is list and takes_text(get_args(kind)[0]))
        for kind in alternatives(hint)
    )


def _hints_below(hint: Any) -> Callable[[Any], Any]:
    """From a key of a mapping to the type of its value."""
    if isinstance(hint, Mapping):
        return lambda key: hint.get(key, Any)
    for kind in alternatives(hint):
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            known = get_type_hints(kind)
            return lambda key: known.get(key, Any)
        if get_origin(kind) is dict:
            content = get_args(kind)[1]
            return lambda key: content
    return lambda key: Any


def _describe_tag(node: yaml.Node, expected: str) -> str:
    return describe(_line(node), f"a value with the tag {node.tag}", expected, "Remove the tag")


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
