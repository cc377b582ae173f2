"""Whatever a recipe or a row holds: it is taken, or refused by an error of ours, and never by a traceback."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BASE, ROOT
from datasets import Dataset
from helpers import same_draws
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from gapbridge import methods
from gapbridge.data.tokenization import build_examples
from gapbridge.errors import GapbridgeError
from gapbridge.recipe.deprecated_keys import DROPPED, RENAMED, TRACKING
from gapbridge.runs.run_config import parser_for, read_job
from gapbridge.runs.validate import validate


TINY = {
    name: yaml.safe_load((ROOT / f"recipes/tiny/{name}/config_full.yaml").read_text())
    for name in methods.list_methods()
}
KEYS = sorted({action.dest for method in methods.list_methods() for action in parser_for(method)._actions} - {"help"})
KEYS += ["env", *RENAMED, *DROPPED, *TRACKING, "dataset_mixture", "dataset_mixer", "dataset_splits"]
TOKENIZER = AutoTokenizer.from_pretrained(BASE)

BOUNDED = same_draws(300)

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.nightly  # half a minute
@BOUNDED
@given(values=recipes())
def test_recipes(values: dict[Any, Any], folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    _validate(path)


@BOUNDED
@given(text=st.text(max_size=60) | st.text(alphabet=":-[]{}&*!|>'\"#%@ \n\tab1?,~<", max_size=60))
def test_texts(text: str, folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    _validate(path)


def _validate(path: Path) -> None:
    environment = dict(os.environ)
    try:
        job = read_job(["--config", str(path), "--use_cpu", "true"])
        job.model.model_name_or_path = str(BASE)
        validate(job)
    except GapbridgeError as error:
        assert error.errors and all(error.errors)
    finally:
        os.environ.clear()
        os.environ.update(environment)


# Arrow gives a column one type: rows are drawn column by column.
CELLS = st.one_of(
    st.lists(st.none() | st.text(max_size=12), min_size=1, max_size=3),
    st.lists(st.none() | st.integers(-2, 2000), min_size=1, max_size=3),
    st.lists(st.none() | st.lists(st.none() | st.integers(-200, 70000), max_size=4), min_size=1, max_size=3),
    st.lists(st.none() | st.lists(st.none() | st.booleans(), max_size=4), min_size=1, max_size=3),
    st.lists(
        st.none()
        | st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.none() | st.sampled_from(["user", "assistant", "system", "tool", ""]),
                    "content": st.none() | st.text(max_size=12),
                }
            ),
            max_size=4,
        ),
        min_size=1,
        max_size=3,
    ),
)
COLUMNS = st.dictionaries(
    st.sampled_from(
        ["prompt", "completion", "messages", "input_ids", "labels", "completion_mask", "id", "tools", "other"]
    ),
    CELLS,
    min_size=1,
    max_size=4,
)


@BOUNDED
@given(
    columns=COLUMNS, on_invalid_example=st.sampled_from(["raise", "skip"]), max_length=st.sampled_from([None, 3, 16])
)
@example(columns={"prompt": [None], "completion": [None]}, on_invalid_example="skip", max_length=None)
@example(columns={"input_ids": [None], "labels": [None]}, on_invalid_example="raise", max_length=None)
def test_rows(columns: dict[str, list[Any]], on_invalid_example: str, max_length: int | None) -> None:
    length = min(map(len, columns.values()))
    dataset = Dataset.from_dict({name: cells[:length] for name, cells in columns.items()})
    stops = [TOKENIZER.eos_token_id]
    try:
        examples = build_examples(
            dataset,
            TOKENIZER,
            stops=stops,
            max_length=max_length,
            on_invalid_example=on_invalid_example,
            source="rows",
        )
    except GapbridgeError as error:
        assert error.errors and all(error.errors)
        return
    for made in examples:
        assert made.prompt and made.completion_ids
        assert all(
            0 <= token < len(TOKENIZER) for token in (*made.prompt, *made.completion_ids, *made.template_suffix_ids)
        )
