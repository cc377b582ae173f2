"""From answers to samples and from samples to figures: one line an answer, then means with intervals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..generation.decoding_modes import SINGLE_PASS
from ..intervals import mean_interval, paired_difference
from ..reporting.samples import EvalRecord
from .asserted_text import without_thoughts
from .grading import grade_answers
from .math import correction_table
from .rouge import ROUGE_METRICS, score_rouge
from .text_metrics import EDIT_METRICS as EDITS
from .text_metrics import score_edits


# For each grader the fields of a sample that are averaged.
MEANS = {"math": {"accuracy": "correct", "exact_match": "exact", "math_verify": "verified"},
         "rouge": {metric: metric for metric in ROUGE_METRICS}, "none": {}}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """The samples of one model in one mode, in the order of the examples."""

    model: str
    mode: str
    samples: list[EvalRecord]

    @property
    def name(self) -> str:
        return self.model if self.mode == SINGLE_PASS else f"{self.model} ({self.mode})"

    def values(self, key: str) -> list[Any]:
        return [sample[key] for sample in self.samples]


def grade_math(groups: Sequence[Group], *, timeout: float, workers: int) -> None:
    """Add the fields of `Grade` to every sample, in place. An answer cut at the limit before a mark is wrong, and one
    without a mark to a reference that has its mark first and the working after it: no number of that is a result."""
    samples = [sample for group in groups for sample in group.samples]
    grades = grade_answers(
        [sample["answer"] for sample in samples],
        [sample["reference"] for sample in samples],
        timeout=timeout,
        workers=workers,
    )
    for sample, grade in zip(samples, grades, strict=True):
        sample.update(asdict(grade))
        mark_first = re.match(r"\s*####.*\n\s*\S", sample["reference"])
        if not grade.marked and (sample.get("truncated") or mark_first):
            sample["correct"] = False  # cut before it came to an answer; a number in its middle is none


def grade_rouge(groups: Sequence[Group]) -> None:
    """Add the fields of `RougeScores` to every sample, in place."""
    for group in groups:
        scores = score_rouge([answer_text(sample) for sample in group.samples], group.values("reference"))
        for sample, score in zip(group.samples, scores, strict=True):
            sample.update(asdict(score))


def answer_text(sample: EvalRecord) -> str:
    """The answer without the model's thoughts; with them where the reference has its own."""
    thinks = without_thoughts(sample["reference"]) != sample["reference"]
    return str(sample["answer"]) if thinks else without_thoughts(sample["answer"])


def grade_edits(groups: Sequence[Group]) -> None:
    """Add the fields of `EditScores` to every sample, in place; for every grader."""
    for group in groups:
        for sample in group.samples:
            sample.update(asdict(score_edits(answer_text(sample), sample["reference"])))


def summarize_group(group: Group, grader: str) -> dict[str, Any]:
    """Means with intervals, and counts."""
    record: dict[str, Any] = {"model": group.model, "decoding_mode": group.mode, "count": len(group.samples)}
    means = MEANS[grader] | {name: name for name in EDITS if name in group.samples[0]}
    record |= {name: vars(mean_interval(group.values(key))) for name, key in means.items()}
    if grader == "math":
        record["disagreements"] = [s["id"] for s in group.samples if s["exact"] != s["verified"]]
        record["without_final_answer"] = group.values("marked").count(False)
        record["unparseable"] = group.values("parsed").count(False)
        record["timed_out"] = sum(group.values("timed_out"))
    elif grader == "rouge":
        record |= {key: float(np.mean(group.values(key))) for key in ("answer_words", "reference_words")}
        record["empty"] = group.values("answer_words").count(0)
        record["unicode_words"] = sum(group.values("unicode_words"))
    if "tokens" in group.samples[0]:
        record["answer_tokens"] = float(np.mean(group.values("tokens")))
        record["truncated"] = sum(group.values("truncated"))
    return record


def corrections(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """What a further mode did to the single-pass answers of its model: the 2 × 2 counts and the paired difference."""
    found = []
    single_pass = {group.model: group for group in groups if group.mode == SINGLE_PASS}
    for second in groups:
        first = single_pass.get(second.model)
        if first is None or second.mode == SINGLE_PASS:
            continue
        before, after = first.values("correct"), second.values("correct")
        counts, difference = correction_table(before, after), vars(paired_difference(before, after))
        found.append({"model": first.model, "decoding_mode": second.mode, **counts, "difference": difference})
    return found


def differences(groups: Sequence[Group], grader: str) -> list[dict[str, Any]]:
    """The paired difference of each model from the first one, in the same mode, over the examples they share."""
    metric, key = {"math": ("accuracy", "correct"), "rouge": ("rougeL", "rougeL")}.get(grader, ("", ""))
    if not key:
        return []
    found = []
    firsts = [group for group in groups if group.model == groups[0].model]
    for first, second in ((a, b) for a in firsts for b in groups if b.mode == a.mode and b.model != a.model):
        by_id = {sample["id"]: sample[key] for sample in first.samples}
        shared = [sample for sample in second.samples if sample["id"] in by_id]
        if shared:
            difference = vars(paired_difference([by_id[s["id"]] for s in shared], [s[key] for s in shared]))
            names = {"first": first.model, "second": second.model, "decoding_mode": first.mode, "metric": metric}
            found.append({**names, "examples": len(shared), "difference": difference})
    return found
