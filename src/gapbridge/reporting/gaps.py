"""The tables of a gap measurement, from its record `gap/gap.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .tables import INTERVAL, Table, estimate, short_name


# Of the scores after forced errors: what a row of a table says.
RECOVERY_LABELS = {
    "tokens_recovered": "after forced error: token recovery (%)",
    "edit_recovered": "after forced error: recovery by edit distance (%)",
    "final_right": "after forced error: final answer right (%)",
    "steps_right": "after forced error: steps right (%)",
}
_SHOWN_LENGTH = 32  # of the recovery curve, which the picture shows as a whole
Record = Mapping[str, Any]


def caption(record: Record) -> str:
    """What a measurement was taken on: data, number of examples, temperature of the completions."""
    settings, examples = record["settings"], sorted({gap["examples"] for gap in record["models"]})
    source = settings.get("completions_from")
    completions = f"completions of {source} for all models," if source else "completions"
    return (
        f"{settings['config']}: {' or '.join(map(str, examples))} held-out examples\n"
        f"{completions} of at most {settings['max_completion_length']} tokens at temperature "
        f"{settings['temperature']:g}, 95 % intervals"
    )


def gap_tables(record: Record, names: Mapping[str, str] | None = None) -> list[Table]:
    """Tables of all measures and of the losses, and for each the paired differences from the first model.

    Args:
        record: what `gapbridge gap` wrote.
        names: model → its name here; default: the last part of its path where that is enough.
    """
    models = [gap["model"] for gap in record["models"]]
    names = names or {model: short_name(model, models) for model in models}
    found = {gap["model"]: {row[0]: row[1:] for row in _measures(gap)} for gap in record["models"]}
    measures = dict.fromkeys(name for rows in found.values() for name in rows)
    rows = [
        [measure, names[model], *rows[measure]]
        for measure in measures
        for model, rows in found.items()
        if measure in rows
    ]
    losses = [
        (temperature, prefix, names[gap["model"]], loss["mean"], loss["examples"])
        for gap in record["models"]
        for kind in ("overall", "by_prefix_length")
        for temperature, by_prefix in gap.get("losses", {}).get(kind, {}).items()
        for prefix, loss in by_prefix.items()
    ]
    base = names[models[0]]
    differences = [(_MEAN_RISE, row, 1.0) for row in record["differences"]]
    differences += [(_ENTROPY, row, 1.0) for row in record.get("entropy_differences", ())]
    differences += [(RECOVERY_LABELS[row["measure"]], row, 100.0) for row in record.get("recovery_differences", ())]
    lines = [
        [measure.replace("(%)", "(pp)"), names[row["second"]], *estimate(row["difference"], scale, sign=True),
         row.get("examples")]
        for measure, row, scale in differences
    ]  # fmt: skip
    loss_differences = [
        (row["temperature"], row["prefix"], names[row["second"]], row["difference"], row["examples"])
        for row in record.get("loss_differences", ())
    ]
    tables = [
        Table(["measure", "model", "value", INTERVAL, "n"], rows, texts=2),
        _loss_table(f"Loss {_LOSS_UNIT}", losses),
        Table(["measure", "model", f"Δ vs {base}", INTERVAL, "n"], lines, f"Paired differences from {base}", texts=2),
        _loss_table(f"Loss {_LOSS_UNIT}, paired differences from {base}", loss_differences, sign=True),
    ]
    return [table for table in tables if table.rows]


_MEAN_RISE = "Δ, mean over k ≥ 1 (nats/token)"
_ENTROPY = "entropy after the reference (nats/token)"
_LOSS_UNIT = "(nats/token) at temperature 1 and at the fitted temperature"
_PREFIXES = {"after_reference": "reference", "after_generated": "generated, all k"}


def _loss_table(
    title: str, losses: Sequence[tuple[str, str, str, Mapping[str, float], int]], *, sign: bool = False
) -> Table:
    """Losses (temperature, prefix, model, interval, number of examples) at temperature 1 and at the fitted one."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for temperature, prefix, model, interval, count in losses:
        found.setdefault((prefix, model), {"n": count})[temperature] = estimate(interval, sign=sign)
    order = list(dict.fromkeys(prefix for prefix, _ in found))
    rows = []
    for (prefix, model), cells in sorted(found.items(), key=lambda entry: order.index(entry[0][0])):
        label, fitted = (
            _PREFIXES.get(prefix, f"generated, k = {prefix}"),
            cells.get("fitted_temperature", (None, None)),
        )
        rows.append([label, model, *cells["temperature_1"], *fitted, cells["n"]])
    return Table(["prefix", "model", "T = 1", INTERVAL, "fitted T", INTERVAL, "n"], rows, title, texts=2)


def _measures(gap: Record) -> Iterator[list[Any]]:
    """Rows of one model: measure, value, interval, how many examples or completions it is made from."""
    curve, count = gap["recovery"], gap["examples"]
    yield [_MEAN_RISE, *estimate(curve["mean"], sign=True), count]
    for k, at in zip(curve["k"], curve["delta"], strict=True):
        if k == _SHOWN_LENGTH:
            yield [f"Δ({k}) (nats/token)", *estimate(at, sign=True), count]
    if gap.get("entropy"):
        yield [_ENTROPY, *estimate(gap["entropy"]["mean"]), gap["entropy"]["examples"]]
        fitted = gap["losses"]["fitted_temperatures"]
        yield ["fitted temperature", sum(fitted) / len(fitted) if fitted else None, None, count]
    drop = estimate(gap["decisions"]["drop"], 100, sign=True)
    yield ["teacher-forced − free-running accuracy (pp)", *drop, count]
    if gap["excess_error"]:
        longest, excess = gap["excess_error"]["length"][-1], gap["excess_error"]["excess"][-1]
        yield [f"ExAccErr({longest}) (%)", *estimate(excess, sign=True), count]
        yield ["all steps correct (%)", 100 * gap["wrong_steps"]["all_right"] / count, None, count]
    final = gap.get("final_answers")
    if final is not None:
        for step, completions, right in zip(final["steps"], final["completions"], final["right"], strict=True):
            yield [f"final accuracy | first error at step {step} (%)", *estimate(right, 100), completions]
        if final["right_if_all_steps_correct"]:
            right = estimate(final["right_if_all_steps_correct"], 100)
            yield ["final accuracy | no error (%)", *right, final["num_all_steps_correct"]]
    yield ["truncated completions (%)", 100 * gap["truncated"] / count, None, count]
    forced_errors = gap.get("forced_errors")
    if forced_errors:
        for measure, label in RECOVERY_LABELS.items():
            if forced_errors[measure]:
                yield [label, *estimate(forced_errors[measure]["mean"], 100), forced_errors["answers"]]
        truncated = 100 * forced_errors["truncated"] / forced_errors["answers"]
        yield ["after forced error: truncated (%)", truncated, None, forced_errors["answers"]]
