"""Keys of older handbook, TRL and transformers versions, translated where they mean the same, each with a note."""

from __future__ import annotations

from typing import Any


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
TRACKING = {"wandb_entity": "WANDB_ENTITY", "wandb_project": "WANDB_PROJECT", "wandb_run_group": "WANDB_RUN_GROUP"}


def translate(
    values: dict[str, Any],
    known: set[str],
    notes: list[str],
    faults: list[str],
    environment: dict[str, str],
    path: str,
) -> dict[str, Any]:
    """Old keys become today's where the new one exists and the old one does not; `notes` says what was done."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if key in known:
            result[key] = value
        elif key in RENAMED and RENAMED[key] in known:
            if RENAMED[key] in values:
                faults.append(f"{path}: {key} and {RENAMED[key]} are the same setting: keep {RENAMED[key]}")
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
        elif key in ("dataset_mixture", "dataset_mixer") and "datasets" in known:
            result.update(_translate_mixture(key, value, values, faults, path))
            notes.append(f"{path}: {key} is now datasets")
        elif key in ("dataset_splits", "dataset_configs") and "dataset_mixer" in values:
            continue
        else:
            result[key] = value
    return result


def _translate_mixture(key: str, value: Any, values: dict[str, Any], faults: list[str], path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        faults.append(f"{path}: {key} is {value!r}: it must be a mapping")
        return {}
    if key == "dataset_mixer":
        splits = values.get("dataset_splits") or ["train"]
        if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
            faults.append(f"{path}: dataset_splits is {splits!r}: it must be a list of names")
            return {}
        train = [split for split in splits if "test" not in split]
        entries = [{"id": name, "split": split, "weight": share} for name, share in value.items() for split in train]
        held_out = [{"path": name, "split": split} for name in value for split in splits if "test" in split]
        translated: dict[str, Any] = {"eval_datasets": held_out} if held_out else {}
    else:
        entries = value.get("datasets") or []
        translated = {"test_split_size": value["test_split_size"]} if value.get("test_split_size") else {}
    datasets = []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        faults.append(f"{path}: {key}: datasets is {entries!r}: it must be a list of mappings")
        return {}
    for entry in entries:
        if entry.get("weight") not in (None, 1, 1.0):
            faults.append(
                f"{path}: {key} takes a share of {entry['weight']} of {entry['id']}: `fraction` in `datasets` is a "
                f"share of the "
                "mixture, not of the data set; slice the split instead (split: train[:10%])"
            )
        renamed = {"path": entry.get("id"), "name": entry.get("config"), "split": entry.get("split") or "train"}
        if entry.get("columns"):
            renamed["columns"] = entry["columns"]
        datasets.append(renamed)
    return {"datasets": datasets, **translated}
