"""Attributes of a trainer that are complete once its rows are made, and that make them when they are first read."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload


Value = TypeVar("Value")


class Prepared(Generic[Value]):
    """An attribute that calls the trainer's `prepare_dataset` before it is read.

    TRL's constructor sets some of them to placeholders; while that runs, `prepare_dataset` does nothing.
    """

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._key = f"_prepared {name}"
        self._name = name

    @overload
    def __get__(self, trainer: None, owner: type[Any]) -> Prepared[Value]: ...
    @overload
    def __get__(self, trainer: Any, owner: type[Any]) -> Value: ...
    def __get__(self, trainer: Any, owner: type[Any]) -> Prepared[Value] | Value:
        if trainer is None:
            return self
        trainer.prepare_dataset()
        try:
            value: Value = vars(trainer)[self._key]
        except KeyError:
            raise AttributeError(self._name) from None
        return value

    def __set__(self, trainer: Any, value: Value) -> None:
        vars(trainer)[self._key] = value
