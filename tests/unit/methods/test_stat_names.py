"""One word from the count of a trainer to its log key."""

from __future__ import annotations

from dataclasses import fields

import pytest

from gapbridge import methods


NAMES = [
    (name, field.name) for name in methods.list_methods() for field in fields(methods.get_method(name).stats_class)
]


@pytest.mark.parametrize(("method", "count"), NAMES)
def test_a_count_has_one_name(method: str, count: str) -> None:
    stats_class = methods.get_method(method).stats_class
    stats = stats_class(**{field.name: 1 for field in fields(stats_class)})
    keys = [key.rpartition("/")[2].removeprefix("num_").removesuffix("_frac") for key in stats.metrics()]
    if count == "completions":
        assert "completions/count" in stats.metrics()
    else:
        assert count in keys or (count == "tokens" and "completion_tokens" in keys)
