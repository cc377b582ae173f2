"""Recipes as hypothesis thinks of them: shipped ones with keys taken out, changed or put in."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from conftest import ROOT
from hypothesis import strategies as st

from gapbridge import methods
from gapbridge.recipe.deprecated_keys import DROPPED, RENAMED, TRACKING
from helpers import recipe_keys


TINY = {
    name: yaml.safe_load((ROOT / f"recipes/tiny/{name}/config_full.yaml").read_text())
    for name in methods.list_methods()
}
KEYS = sorted(set().union(*map(recipe_keys, methods.list_methods())))
KEYS += ["env", *RENAMED, *DROPPED, *TRACKING, "dataset_mixture", "dataset_mixer", "dataset_splits"]
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, -(2**63), 10**30, 0.5, 1e308, -1e-308, float("inf"), float("-inf"), float("nan")]),
)
TEXTS = st.one_of(
    st.sampled_from(["", " ", "no", "5e-7", "1e999", "none", "ß̈‮", "\x00", "{{ x }}", "{% if %}", "../..", "a" * 300]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def recipes(draw: st.DrawFn) -> dict[Any, Any]:
    """A shipped recipe with some keys taken out, given other values, or put in."""
    values: dict[Any, Any] = copy.deepcopy(TINY[draw(st.sampled_from(sorted(TINY)))])
    for key in draw(st.lists(st.sampled_from(sorted(values)), max_size=2)):
        values.pop(key, None)
    for key in draw(st.lists(st.sampled_from(sorted(values)), max_size=2)):
        values[key] = draw(VALUES)
    for key in draw(st.lists(st.sampled_from(KEYS) | TEXTS, max_size=2)):
        values[key] = draw(VALUES)
    if draw(st.booleans()) and isinstance(values.get("datasets"), list):
        entry = draw(st.dictionaries(st.sampled_from(["path", "name", "data_files", "split", "columns"]), VALUES))
        values["datasets"] = [*values["datasets"], entry]
    return values
