"""The graded completions that an evaluation leaves: `eval/<task>.samples.jsonl`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..jsonl import read_json_lines, shown_value
from .page import Completion, ShownExample


EvalRecord = dict[str, Any]
SHOWN_EXAMPLES = 4


def read_samples(path: Path) -> Iterator[EvalRecord]:
    """The samples that an evaluation wrote. Raises DataError where a line is none."""
    for number, row in read_json_lines(path):
        names = ("model", "decoding_mode", "id", "prompt", "reference", "answer")
        if not isinstance(row, dict) or any(name not in row for name in names):
            found = row if isinstance(row, ValueError) else shown_value(row)
            advice = "Remove the files of this evaluation, and repeat it"
            raise DataError(f"{path}, line {number}", found, f"an object with {', '.join(names)}", advice)
        yield row


def prompt_text(prompt: str | list[dict[str, Any]]) -> str:
    """A sample's prompt as one text; messages one below the other."""
    return prompt if isinstance(prompt, str) else "\n\n".join(str(turn.get("content", "")) for turn in prompt)


def read_examples(files: Mapping[Path, Callable[[str], str]], count: int = SHOWN_EXAMPLES) -> list[ShownExample]:
    """The first `count` examples, each with the completions of all models and decoding modes.

    Args:
        files: a file of samples → how it calls a model in a report.
    """
    found: dict[tuple[str, str], ShownExample] = {}
    for path, name in files.items():
        for sample in read_samples(path):
            key = (path.name, str(sample["id"]))
            if key not in found and len(found) == count:
                continue
            example = ShownExample(prompt_text(sample["prompt"]), str(sample["reference"]), [])
            completions = found.setdefault(key, example).completions
            model, mode, first = name(sample["model"]), sample["decoding_mode"], sample.get("first_answer")
            if first is not None and all(each.name != f"{model}, single_pass" for each in completions):
                completions.append(Completion(f"{model}, before {mode}", str(first)))
            completions.append(Completion(f"{model}, {mode}", str(sample["answer"]), sample.get("correct")))
    return [*found.values()]
