"""Keys of the alignment-handbook's recipes that are taken and have no effect, and what shows a preference recipe."""

from __future__ import annotations

from typing import Any

from .deprecated_keys import DROPPED


NO_EFFECT = {
    "dataset_kwargs": "a chat is tokenised as its template writes it",
    "do_eval": "eval_strategy says when is evaluated",
    "do_train": DROPPED["do_train"],
    "hub_strategy": "a run uploads its final model, once, when it is complete",
    "overwrite_output_dir": DROPPED["overwrite_output_dir"],
}


def preference_marks(values: dict[str, Any], known: set[str]) -> list[str]:
    """What in a recipe shows that it is for a preference method, of which `known` are not the keys."""
    marks: list[str] = [key for key in ("beta", "max_prompt_length") if key in values and key not in known]
    mixture = values.get("dataset_mixture")
    entries = mixture.get("datasets") if isinstance(mixture, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        columns = entry.get("columns") if isinstance(entry, dict) else None
        if isinstance(columns, list) and "chosen" in columns and "messages" not in columns:
            return [*marks, "columns chosen and rejected"]
    return marks
