"""The tables of an evaluation, from its record `eval/<task>.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .tables import INTERVAL, Table, estimate, short_name


_LABELS = {
    "math_verify": "math-verify", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum", "token_f1": "token F1", "cer": "character error rate",
}  # fmt: skip
# What a result counts, and the head of its share; then the means that it holds.
_SHARES = {
    "disagreements": "graders disagree (%)", "without_final_answer": "no final answer (%)",
    "unparseable": "unparseable (%)", "timed_out": "grading timed out (%)", "empty": "empty (%)",
    "truncated": "truncated (%)",
}  # fmt: skip
_MEANS = {
    "answer_tokens": "length (tokens)", "answer_words": "length (words)", "reference_words": "reference (words)",
}  # fmt: skip
_SCORE_HEAD = ("score", "model", "decoding mode")
_CHANGES = ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")
Record = Mapping[str, Any]


def score_label(name: str) -> str:
    """A score as a reader knows it."""
    return _LABELS.get(name, name.replace("_", " "))


def evaluation_tables(record: Record, names: Mapping[str, str] | None = None) -> list[Table]:
    """Scores, what became of the completions, corrections, differences between models, and win rates.

    Args:
        record: what `gapbridge eval` wrote.
        names: model → its name here; default: the last part of its path where that is enough.
    """
    results = record["results"]
    models = [result["model"] for result in results]
    names = names or {model: short_name(model, models) for model in models}
    task = str(record["task"])
    if results and "metric" in results[0]:
        return [_harness_table(task, results, names)]

    def mode(row: Record) -> list[str]:
        return [names[row["model"]], row["decoding_mode"]]

    scores = dict.fromkeys(name for result in results for name, value in result.items() if is_interval(value))
    score_rows = [
        [score_label(score), *mode(result), *estimate(result[score], 100), result["count"]]
        for score in scores
        for result in results
        if score in result
    ]
    changes = [change.replace("_to_", " → ") for change in _CHANGES]
    change_rows = [
        [*mode(row), *(row[change] for change in _CHANGES), *estimate(row["difference"], 100, sign=True)]
        for row in record.get("corrections", ())
    ]
    head = ["model", "decoding mode", *changes, "Δ vs single_pass (pp)", INTERVAL]
    title = f"{task}: further decoding modes against single_pass, in completions"
    found = [
        Table([*_SCORE_HEAD, "value (%)", INTERVAL, "examples"], score_rows, f"{task}: scores", texts=3),
        _completions_table(task, results, mode),
        Table(head, change_rows, title, texts=2),
        *_difference_tables(task, record.get("differences", ()), names),
        _win_table(task, record.get("win_rates", ())),
    ]
    return [table for table in found if table.rows]


def is_interval(value: Any) -> bool:
    """Whether a value of a record is a mean with its interval."""
    return isinstance(value, dict) and value.keys() == {"mean", "low", "high"}


def _completions_table(task: str, results: Iterable[Record], mode: Callable[[Record], list[str]]) -> Table:
    results = list(results)
    shares = {key: head for key, head in _SHARES.items() if any(key in result for result in results)}
    means = {key: head for key, head in _MEANS.items() if any(key in result for result in results)}

    def percent(result: Record, key: str) -> float | None:
        value = result.get(key)
        count = len(value) if isinstance(value, list) else value
        return None if count is None else 100 * count / result["count"]

    rows = [
        [*mode(result), *(percent(result, key) for key in shares), *(result.get(key) for key in means)]
        for result in results
    ]
    head = ["model", "decoding mode", *shares.values(), *means.values()]
    return Table(head, rows if shares or means else [], f"{task}: completions", texts=2)


def _difference_tables(task: str, rows: Iterable[Record], names: Mapping[str, str]) -> list[Table]:
    by_base: dict[str, list[list[Any]]] = {}
    for row in rows:
        score, difference = score_label(row["metric"]), estimate(row["difference"], 100, sign=True)
        cells = [score, names[row["second"]], row["decoding_mode"], *difference, row["examples"]]
        by_base.setdefault(names[row["first"]], []).append(cells)
    return [
        Table([*_SCORE_HEAD, f"Δ vs {base} (pp)", INTERVAL, "shared examples"], cells,
              f"{task}: paired differences from {base}", texts=3)
        for base, cells in by_base.items()
    ]  # fmt: skip


def _win_table(task: str, rows: Iterable[Record]) -> Table:
    def cells(row: Record) -> list[Any]:
        rate, controlled = row["win_rate"], row["length_controlled"]
        known = None if rate is None else {"mean": rate, "low": row["low"], "high": row["high"]}
        controlled = None if controlled is None else 100 * controlled
        return [row["first"], row["second"], *estimate(known, 100), controlled, *(row[key] for key in counts)]

    counts = ["wins", "ties", "losses", "flips", "unparsable"]
    head = ["model", "against", "win rate (%)", INTERVAL, "length-controlled (%)", *counts]
    return Table(head, [cells(row) for row in rows], f"{task}: win rates", texts=2)


def _harness_table(task: str, results: Iterable[Record], names: Mapping[str, str]) -> Table:
    def cells(row: Record) -> list[Any]:
        low, high = row.get("low"), row.get("high")
        known = {"mean": row["value"], "low": low, "high": high} if low is not None and high is not None else None
        value, interval = estimate(known, 1)
        shown = row["value"] if value is None else value
        return [row["task"], row["metric"], names[row["model"]], row.get("num_fewshot"), shown, interval, row["n"]]

    head = ["task", "metric", "model", "shots", "value", INTERVAL, "examples"]
    return Table(head, [cells(row) for row in results], f"{task}: scores", texts=3)
