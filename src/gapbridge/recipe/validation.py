"""Mappings of a file as checked objects: pydantic finds all errors, and they read as every error of this package.

A kind of mapping is a dataclass of `pydantic.dataclasses`. The description of a field says what is expected of its
value; without one the field's type does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator, BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from ..errors import ConfigError, describe
from .type_checks import as_field_value, closest_match, expected_type


CHECKED = ConfigDict(extra="forbid")

T = TypeVar("T")
KeyPath = tuple[str | int, ...]  # keys and numbers of entries


def _read_as(hint: Any) -> BeforeValidator:
    """Reads a value as a recipe's: YAML takes 1e-3 for text."""

    def read(value: Any) -> Any:
        found = as_field_value(value, hint)
        if expected_type(found, hint) is not None:
            raise ValueError("another type")
        return found

    return BeforeValidator(read)


def _as_tuple(value: Any) -> Any:
    """A single value stands for a list of one, as on the command line."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


Number = Annotated[float, _read_as(float)]
IntegerOrNumber = Annotated[int | float, _read_as(int | float)]
OneOrMore = Annotated[tuple[T, ...], BeforeValidator(_as_tuple)]


def meets(holds: Callable[[Any], object], expected: str) -> AfterValidator:
    """Refuses a value for which `holds` is not true."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise wrong_value(None, expected)
        return value

    return AfterValidator(check)


def one_of(*names: str) -> AfterValidator:
    """Refuses another text, and names the one that is close to it."""

    def check(value: str) -> str:
        if value not in names:
            raise wrong_value(f"{value!r}{closest_match(value, names)}", f"one of {', '.join(names)}")
        return value

    return AfterValidator(check)


def once_each(what: str) -> AfterValidator:
    """Refuses a list that has a value twice; `what` its values are."""

    def check(values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise wrong_value(f"a {what} twice", f"every {what} once")
        return values

    return AfterValidator(check)


def wrong_value(got: str | None, expected: str) -> PydanticCustomError:
    """What a validator raises; without `got` the value is shown as it is."""
    return PydanticCustomError("wrong_value", "wrong", {"got": got, "expected": expected})


def validate(kind: type[T], values: Mapping[str, Any], place: str, read_elsewhere: Sequence[str] = ()) -> T:
    """The object of a mapping.

    Args:
        kind: a dataclass of pydantic that was made with `CHECKED`.
        place: what stands before a key in an error, with its comma.
        read_elsewhere: keys of the file that are none of `kind`, named where a key is unknown.

    Raises:
        ConfigError: every key that is unknown, missing or has a wrong value, those of nested mappings among them.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        # Each alternative of a type gives an error, of which the first is said; so does a list, beside its entries.
        found = {_path_in(values, entry): entry for entry in reversed(error.errors())}
        deepest = {path: entry for path, entry in reversed(found.items()) if not _has_deeper(path, found)}
        lines = [place + _describe(kind, values, path, entry, read_elsewhere) for path, entry in deepest.items()]
        raise ConfigError(lines) from error


def _has_deeper(path: KeyPath, paths: Iterable[KeyPath]) -> bool:
    return any(len(other) > len(path) and other[: len(path)] == path for other in paths)


def _path_in(values: Any, entry: ErrorDetails) -> KeyPath:
    """Where an error lies in what was read, without the names of types that pydantic puts behind it."""
    path: list[str | int] = []
    for part in entry["loc"]:
        is_key, is_entry = isinstance(values, Mapping), isinstance(values, list) and isinstance(part, int)
        if not is_entry and not (is_key and (part in values or entry["type"] == "missing")):
            break
        path.append(part)
        values = values[part] if is_entry else values.get(part)
    return tuple(path)


def _describe(kind: Any, value: Any, path: KeyPath, entry: ErrorDetails, read_elsewhere: Sequence[str]) -> str:
    """One error in words."""
    owner, is_field = kind, False
    field: FieldInfo | None = None
    names: list[str] = []
    hint: Any = None
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else value[part]
        name = value.get("id", value.get("name")) if isinstance(part, int) and isinstance(value, Mapping) else None
        names.append(f"entry {part + 1}{f' ({name})' if name else ''}" if isinstance(part, int) else str(part))
        is_field = part in owner.__pydantic_fields__
        if is_field:
            field, hint = owner.__pydantic_fields__[part], get_type_hints(owner)[str(part)]
            owner = _checked_kind(hint) or owner
    place = ", ".join(names)
    if entry["type"] == "missing":
        return describe(place, "no value", "one", "Add the key")
    if entry["type"] in ("unexpected_keyword_argument", "invalid_key"):
        known = [*owner.__pydantic_fields__, *(read_elsewhere if owner is kind else ())]
        got = f"the unknown key {path[-1]!r}{closest_match(str(path[-1]), known)}"
        return describe(place, got, f"one of {', '.join(known)}", "Correct or remove the key")
    said: dict[str, Any] = entry.get("ctx", {})
    expected = said.get("expected") or (field and field.description)
    if is_field and expected is None:
        expected = expected_type(value, hint)
    return describe(place, said.get("got") or repr(value), expected or entry["msg"], "Correct the value")


def _checked_kind(hint: Any) -> Any:
    """The dataclass in a type, such as that of the entries of a list."""
    return hint if is_pydantic_dataclass(hint) else next(filter(None, map(_checked_kind, get_args(hint))), None)
