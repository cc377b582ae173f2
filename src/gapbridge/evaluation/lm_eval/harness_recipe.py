"""The recipe of a run of lm-evaluation-harness: which tasks, with how many examples in the prompt, by which metric."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

from ...recipe.type_checks import read_yaml
from ...recipe.validation import CHECKED, IntegerOrNumber, meets, validate, wrong_value


def _is_one_name(name: str) -> bool:
    """Whether the harness cannot read it as several names, as a pattern or as a path."""
    return not re.search(r"[\s,*?\[\]/\\]|\.yaml$", name)


def _is_batch_size(size: int | str) -> bool:
    return re.fullmatch(r"[1-9]\d*|auto(:[1-9]\d*)?", str(size)) is not None


def _is_limit(limit: int | float) -> bool:
    return 0 < limit < 1 or (limit >= 1 and isinstance(limit, int))


def _check_directory(folder: str) -> str:
    if not Path(folder).is_dir():
        raise wrong_value(f"{folder!r}, which is no directory (looked from {Path.cwd()})", "a directory")
    return folder


def _check_model_args(given: dict[str, Any]) -> dict[str, Any]:
    elsewhere = {"pretrained": "--model", "peft": "--model", "batch_size": "its own key", "device": "the environment"}
    found = [f"{key}, which is given with {place}" for key, place in elsewhere.items() if key in given]
    if found:
        raise wrong_value("; ".join(found), "other arguments")
    return given


@dataclass(frozen=True, config=CHECKED)
class HarnessTask:
    """One row of the table. `metric` is the harness's name, `acc`, or with its filter, `exact_match,strict-match`."""

    name: Annotated[StrictStr, meets(_is_one_name, "the name of one task or group; include_path has a local one")]
    num_fewshot: Annotated[StrictInt, Field(ge=0, description="an integer of at least 0")]
    metric: StrictStr


@dataclass(frozen=True, config=CHECKED)
class LmEvalRecipe:
    """A parsed recipe.

    batch_size: a number, or the harness's `auto` or `auto:N`. model_args: further arguments of its `hf` model.
    limit: a number of examples a task, or a share of them below 1; None is all.
    include_path: a folder with tasks of one's own. log_samples: whether every prompt and answer is kept.
    """

    tasks: Annotated[list[HarnessTask], Field(min_length=1, description="entries with name, num_fewshot and metric")]
    batch_size: Annotated[
        StrictInt | StrictStr, meets(_is_batch_size, "an integer of at least 1, auto, or auto:N")
    ] = 8
    apply_chat_template: StrictBool = False
    include_path: Annotated[StrictStr, AfterValidator(_check_directory)] | None = None
    limit: (
        Annotated[IntegerOrNumber, meets(_is_limit, "an integer of at least 1, or a fraction between 0 and 1")] | None
    ) = None
    model_args: Annotated[dict[str, Any], AfterValidator(_check_model_args)] = Field(default_factory=dict)
    log_samples: StrictBool = False


def read_lm_eval_recipe(path: str | Path, *, limit: int | float | None = None) -> LmEvalRecipe:
    """Read and check a recipe. `limit` wins over the file's. Raises ConfigError with all errors of the file."""
    values = {key: value for key, value in read_yaml(Path(path)).items() if value is not None}
    return validate(LmEvalRecipe, values | ({} if limit is None else {"limit": limit}), f"{path}, ")
