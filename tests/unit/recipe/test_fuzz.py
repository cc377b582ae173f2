"""Whatever a recipe or a row holds: it is taken, or refused by an error of ours, and never by a traceback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BASE
from datasets import Dataset
from helpers import same_draws
from helpers.recipe_strategies import recipes
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from gapbridge.data.tokenization import build_examples
from gapbridge.errors import GapbridgeError
from gapbridge.runs.run_config import read_job
from gapbridge.runs.validate import validate


TOKENIZER = AutoTokenizer.from_pretrained(BASE)
BOUNDED = same_draws(300)


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
