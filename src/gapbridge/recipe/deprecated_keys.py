"""Keys of older handbook, TRL and transformers versions, translated where they mean the same, each with a note."""

from __future__ import annotations

from typing import Any

from ..compat import is_warmup_ratio
from ..errors import describe


RENAMED = {
    "torch_dtype": "dtype",
    "max_seq_length": "max_length",
    "evaluation_strategy": "eval_strategy",
    "preprocessing_num_workers": "dataset_num_proc",
    "warmup_ratio": "warmup_steps",
    "push_to_hub_model_id": "hub_model_id",
    "hub_model_revision": "hub_revision",
}
DROPPED = {
    "overwrite_output_dir": "an output directory is never overwritten; remove it yourself, or choose another",
    "do_train": "a recipe always trains",
    "max_prompt_length": "max_length holds for prompt and answer together",
    "logging_dir": "trackers choose their own directory",
}
# Known keys that change nothing here.
NO_EFFECT = {
    "dataset_kwargs": "a chat is tokenised as its template writes it",
    "do_eval": "eval_strategy says when is evaluated",
    "do_train": DROPPED["do_train"],
    "hub_strategy": "a run uploads its final model, once, when it is complete",
    "overwrite_output_dir": DROPPED["overwrite_output_dir"],
}
RENAMED_VALUES = {
    ("packing_strategy", "ffd"): "bfd",
    **{("report_to", word): "none" for word in ("no", "off", "false")},
    **{(f"{what}_strategy", word): "no" for what in ("eval", "logging", "save") for word in ("no", "off", "false")},
}
# Rows of like length together: the key of transformers 4, and of 5. Either is translated into the one that is there.
GROUPING = {"group_by_length": "train_sampling_strategy", "train_sampling_strategy": "group_by_length"}
# What older versions of TRL read from `dataset_kwargs`; without effect here, as the whole key is.
PREPARATION = ("add_special_tokens", "append_concat_token")
TRACKING = {"wandb_entity": "WANDB_ENTITY", "wandb_project": "WANDB_PROJECT", "wandb_run_group": "WANDB_RUN_GROUP"}


def translate(
    values: dict[str, Any],
    known: set[str],
    notes: list[str],
    errors: list[str],
    environment: dict[str, str],
    path: str,
) -> dict[str, Any]:
    """Old keys become today's where the new one exists and the old one does not; `notes` says what was done."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if is_warmup_ratio(key, value) and "warmup_ratio" in known:
            if "warmup_ratio" in values:
                errors.append(_describe_same(path, "warmup_ratio", "warmup_steps"))
            result["warmup_ratio"] = value
        elif key in known:
            result[key] = _todays_value(key, value, notes, path)
        elif key in GROUPING and GROUPING[key] in known:
            if GROUPING[key] in values:
                errors.append(_describe_same(path, key, GROUPING[key]))
                continue
            result.update(_grouped(key, value, notes, path))
        elif key in RENAMED and RENAMED[key] in known:
            if RENAMED[key] in values:
                errors.append(_describe_same(path, key, RENAMED[key]))
                continue
            notes.append(f"{path}: {key} is now {RENAMED[key]}")
            result[RENAMED[key]] = value
        elif key in DROPPED:
            notes.append(f"{path}: {key} is ignored: {DROPPED[key]}")
        elif key in TRACKING:
            notes.append(f"{path}: {key} sets the environment variable {TRACKING[key]}")
            environment[TRACKING[key]] = value
        elif key == "use_flash_attention_2" and "attn_implementation" in known:
            notes.append(f"{path}: use_flash_attention_2 is now attn_implementation: flash_attention_2")
            if value:
                result["attn_implementation"] = "flash_attention_2"
        elif key == "dataset_mixer" and "datasets" in known:
            result.update(_translate_mixer(value, values, errors, path))
            notes.append(f"{path}: {key} is now datasets")
        elif key in ("dataset_splits", "dataset_configs") and "dataset_mixer" in values:
            continue
        else:
            result[key] = value
    return result


def _describe_same(path: str, old: str, new: str) -> str:
    return describe(path, f"both {old} and {new}, which are one setting", "one of them", f"Keep {new}")


def _grouped(key: str, value: Any, notes: list[str], path: str) -> dict[str, Any]:
    """`train_sampling_strategy` of `group_by_length`, or the other way about."""
    if key == "train_sampling_strategy":
        if value in ("group_by_length", "random"):
            return {"group_by_length": value == "group_by_length"}
        return {key: value}  # an unknown key there
    notes.append(f"{path}: group_by_length is now train_sampling_strategy: group_by_length")
    return {"train_sampling_strategy": "group_by_length"} if _is_true(value) else {}


def _is_true(value: Any) -> bool:
    return str(value).lower() not in ("false", "no", "0")


def _todays_value(key: str, value: Any, notes: list[str], path: str) -> Any:
    if isinstance(value, list):
        return [_todays_value(key, entry, notes, path) for entry in value]
    if isinstance(value, str) and (key, value.lower()) in RENAMED_VALUES:
        todays = RENAMED_VALUES[key, value.lower()]
        if todays != value.lower():
            notes.append(f"{path}: {key}: {value} is now {todays}")
        return todays
    if key == "dataset_kwargs" and isinstance(value, dict):
        return {name: entry for name, entry in value.items() if name not in PREPARATION}
    return value


def _translate_mixer(value: Any, values: dict[str, Any], errors: list[str], path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        advice = "Write one line `name: share` for each data set"
        errors.append(describe(f"{path}, dataset_mixer", repr(value), "a mapping", advice))
        return {}
    splits = values.get("dataset_splits") or ["train"]
    if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
        errors.append(describe(f"{path}, dataset_splits", repr(splits), "a list of names", "List the splits"))
        return {}
    for name, share in value.items():
        if share not in (None, 1, 1.0):
            place, advice = f"{path}, dataset_mixer, {name}", "Use dataset_mixture, whose `weight` is such a share"
            errors.append(describe(place, f"a share of {share}", "1", advice))
    datasets = [{"path": name, "split": split} for name in value for split in splits if "test" not in split]
    held_out = [{"path": name, "split": split} for name in value for split in splits if "test" in split]
    return {"datasets": datasets, **({"eval_datasets": held_out} if held_out else {})}
