"""Values of a recipe: read from YAML, checked against a field's type and choices, and made plain again."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from ..errors import ConfigError, describe
from .yaml_nodes import NodeError, alternatives, read_values, takes_text


_QUOTED = re.compile(r"(['\"])(?!<).{3,}\1")  # in an error of PyYAML, what stands in the file; '<scalar>' is its own
_MOST_BYTES = 2**20  # of a recipe: its templates and prompts are thousands


def read_yaml(path: Path, hints: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A YAML mapping.

    Args:
        hints: the types of its keys, as far as they are known: where text is wanted, `no` is text.

    Raises:
        ConfigError: the file is missing, is no YAML, is no mapping, or gives a key twice at any depth. No line of the
        file is quoted, for it may hold a secret.
    """
    if not path.is_file():
        got = f"no such file (looked from {Path.cwd()})"
        raise ConfigError(path, got, "a recipe", "Correct the path of the recipe")
    with _yaml_errors(str(path)):
        if path.stat().st_size > _MOST_BYTES:
            got, expected = f"{path.stat().st_size:,} bytes", f"at most {_MOST_BYTES:,}"
            raise ConfigError(path, got, expected, "Name a recipe, not a data file")
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            found = "nothing" if node is None else "a list" if isinstance(node, yaml.SequenceNode) else "text"
            raise ConfigError(path, found, "a mapping of keys to values", "Write one `key: value` a line")
        values, errors = read_values(node, hints)
    errors = [f"{path}, {message}" for message in errors]
    errors += [
        describe(path, f"the key {key!r}", "text as key", "Put the key in quotes")
        for key in values
        if not isinstance(key, str)
    ]
    if errors:
        raise ConfigError(errors)
    return values


def read_words(option: str, words: Sequence[str], hint: Any) -> Any:
    """The value of an option of the command line, read as in a file, but that text needs no quotes.

    Args:
        words: what follows the option: nothing stands for true, several words for a list.

    Raises:
        ConfigError: a word is no value of YAML, or a number with two meanings.
    """
    place, found = f"command line, {option}", []
    for word in words:
        is_mapping = word.startswith("{") and any((get_origin(kind) or kind) is dict for kind in alternatives(hint))
        with _yaml_errors(place):
            node = None if takes_text(hint) and not is_mapping else yaml.compose(word, Loader=yaml.SafeLoader)
            if node is None:
                found.append(word)
                continue
            key = yaml.ScalarNode("tag:yaml.org,2002:str", option, node.start_mark)
            values, errors = read_values(yaml.MappingNode("tag:yaml.org,2002:map", [(key, node)]), {option: hint})
        if errors:
            raise ConfigError([f"{place}{message.removeprefix('line 1')}" for message in errors])
        found.append(values[option])
    return True if not words else found[0] if len(found) == 1 else found


@contextmanager
def _yaml_errors(place: str) -> Iterator[None]:
    """Around reading YAML: what is none becomes a ConfigError that quotes nothing of it."""
    try:
        yield
    except ConfigError:
        raise
    except OSError as error:
        got = f"a file that cannot be read ({error.strerror})"
        raise ConfigError(place, got, "a readable one", "Check the file and its permissions") from error
    except NodeError as message:
        raise ConfigError(f"{place}, {message}") from message
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, a number of 1000s of digits
        reason: object = "it is nested too deeply" if isinstance(error, RecursionError) else error
        if isinstance(error, yaml.MarkedYAMLError):
            mark = error.problem_mark or error.context_mark
            place += f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            reason = _QUOTED.sub("'…'", ", ".join(part for part in (error.context, error.problem) if part))
        got = f"text that is not valid YAML ({reason})"
        raise ConfigError(place, got, "valid YAML", "Correct the text") from error


def closest_match(key: str, known: Iterable[str]) -> str:
    """The known name that `key` is a typing error of. Names that are merely alike would mislead."""
    match = difflib.get_close_matches(key, [name for name in known if name != "help"], n=1, cutoff=0.75)
    return f" (did you mean {match[0]!r}?)" if match else ""


def expected_value(value: Any, hint: Any, entry: dataclasses.Field[Any]) -> str | None:
    """What is expected instead of a YAML value for a field of type `hint`; None where the value is valid."""
    kinds = alternatives(hint)
    if value is None:
        has_default = entry.default is not None or entry.default_factory is not dataclasses.MISSING
        return "a value" if type(None) not in kinds and has_default else None
    choices = list(entry.metadata.get("choices", ()))
    for kind in kinds if not choices else ():
        if get_origin(kind) is Literal:
            choices += get_args(kind)
        elif isinstance(kind, type) and issubclass(kind, Enum):
            choices += [member.value for member in kind]
    if choices:
        return None if value in choices else f"one of {', '.join(map(str, choices))}"
    return expected_type(value, hint)


def expected_type(value: Any, hint: Any) -> str | None:
    """The types that are expected instead of a YAML value's for a field of type `hint`; None where it fits."""
    kinds = alternatives(hint)
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, float) and math.isnan(value):
        return "a number"
    if any(_fits(value, kind) for kind in kinds):
        return None
    # YAML reads 5e-7 as a string; numbers written that way are what people mean.
    if isinstance(value, str) and any(kind in (int, float) and _parses(value, kind) for kind in kinds):
        return None
    wanted = " or ".join(sorted({_type_name(kind) for kind in kinds if kind is not type(None)}))
    return f"{wanted}, not {type(value).__name__}"


def as_field_value(value: Any, hint: Any) -> Any:
    """A valid value as the field holds it: a number that is written as text as a number, and a single value where only
    a list can stand as a list of one."""
    kinds = alternatives(hint)
    single = [kind for kind in kinds if (get_origin(kind) or kind) is not list]
    if value is None or isinstance(value, list) or any(_fits(value, kind) for kind in single):
        return value
    for kind in kinds:
        if kind in (int, float) and isinstance(value, str) and _parses(value, kind):
            return kind(value)
    return value if len(single) == len(kinds) else [value]


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin is Any:
        return True
    if origin is Literal:
        return value in get_args(kind)
    if origin is bool:
        return isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if origin is list:
        element = alternatives((get_args(kind) or (Any,))[0])
        if isinstance(value, dict) and any(dataclasses.is_dataclass(alternative) for alternative in element):
            return False  # its keys would be taken for the entries
        values = (
            value if isinstance(value, list) else [value]
        )  # one value stands for a list of one, as on the command line
        return all(any(_fits(entry, alternative) for alternative in element) for entry in values)
    if origin is dict:
        content = alternatives((get_args(kind) or (Any, Any))[1])
        return isinstance(value, dict) and all(any(_fits(entry, kind) for kind in content) for entry in value.values())
    if isinstance(origin, type) and issubclass(origin, Enum):
        return value in [member.value for member in origin]
    if dataclasses.is_dataclass(origin):
        return isinstance(value, dict)
    return isinstance(value, origin)


def _parses(text: str, kind: type) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _type_name(kind: Any) -> str:
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a string", dict: "a mapping"}
    if get_origin(kind) is list or kind is list:
        return "a list"
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def to_builtin(value: Any) -> Any:
    """A value as YAML and JSON can hold it."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_builtin(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_builtin(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_builtin(entry) for entry in value]
    return value
