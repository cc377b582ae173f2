"""The recipes hold the set-up of Cen et al. 2025 (Table 5), and no recipe trains what it is measured on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from gapbridge.planning.hub_metadata import DATA, MODELS
from gapbridge.recipe.type_checks import read_yaml
from gapbridge.runs.run_config import read_job


COMMON = {"bf16": True, "optim": "adamw_torch", "lr_scheduler_type": "cosine", "batch": 512, "seed": 42}
TABLE: dict[str, dict[str, Any]] = {
    "pythia-1b-tldr": {
        "model": "EleutherAI/pythia-1b", "learning_rate": 3e-6, "warmup_steps": 0, "sft_epochs": 2, "rounds": 1,
        "epochs": [1], "data": {"trl-lib/tldr": ["train"]},
    },
    "mistral-7b-ultrachat": {
        "model": "alignment-handbook/zephyr-7b-sft-full", "learning_rate": 5e-6, "warmup_steps": 0.1, "rounds": 2,
        "epochs": [1, 2], "data": {"HuggingFaceH4/ultrachat_200k": ["train_sft"]}, "max_train_examples": 50_000,
    },
    "mistral-7b-math": {
        "model": "mistralai/Mistral-7B-v0.1", "learning_rate": 5e-6, "warmup_steps": 0.1, "sft_epochs": 1, "rounds": 1,
        "epochs": [1], "data": {"openai/gsm8k": ["train"], "EleutherAI/hendrycks_math": ["train"]},
    },
}  # fmt: skip
BETA = 0.2
# The baselines of other publications keep those publications' settings.
OTHERS = {
    "spin": {"learning_rate": 5e-7, "warmup_steps": 0.1, "optim": "rmsprop", "lr_scheduler_type": "linear",
             "batch": 64, "beta": 0.1, "num_rounds": 2, "num_train_epochs": 3, "max_length": 1024,
             "max_train_examples": 50_000},
    "dpo": {"learning_rate": 5e-7, "warmup_steps": 0.1, "batch": 128, "beta": 0.01, "num_train_epochs": 1,
            "max_length": 1024},
}  # fmt: skip
# An adapter's weights start at nothing and take larger steps: ours, not the paper's.
QLORA_RATES = {"sft": 2e-4, "spin": 5e-6, "dpo": 5e-6}
EXPECTED = {
    "pythia-1b-tldr": {"sft", "bash", "rac", "scheduled_sampling"},
    "mistral-7b-ultrachat": {"bash", "rac", "spin", "scheduled_sampling", "dpo"},
    "mistral-7b-math": {"sft", "bash", "rac"},
}
# Those of other papers' methods beside them are not this table's.
RECIPES = sorted(
    path for model, methods in EXPECTED.items() for method in methods
    for path in (ROOT / "recipes" / model / method).glob("*.yaml")
)  # fmt: skip


def keys_of(path: Path) -> dict[str, Any]:
    """The recipe's keys as values, and `batch`: rows in a step of the launch line in its head."""
    job = read_job(["--config", str(path), "--use_cpu", "true"])
    line = re.search(r"--num_processes (\d+) --config (\S+)", path.read_text())
    assert line and line[2] == str(path.relative_to(ROOT))
    args = job.args
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * int(line[1])
    return {**vars(job.data), **vars(args), "method": job.name, "model": job.model.model_name_or_path, "batch": batch}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes"))


def test_every_experiment_is_there() -> None:
    found: dict[str, set[str]] = {}
    for path in RECIPES:
        found.setdefault(path.parts[-3], set()).add(path.parts[-2])
        assert (
            "pythia" in name(path)
            or "qlora" in path.stem
            or (path.parent / path.name.replace("full", "qlora")).exists()
        )
    assert found == EXPECTED


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_the_table_of_the_paper(path: Path) -> None:
    keys, row = keys_of(path), TABLE[path.parts[-3]]
    method, qlora = keys["method"], "qlora" in path.stem
    assert method == path.parts[-2]
    wanted = {**COMMON, **{key: row[key] for key in ("learning_rate", "warmup_steps")}}
    if method == "sft":
        wanted |= {"num_train_epochs": row["sft_epochs"]}
    elif method in OTHERS:
        wanted |= OTHERS[method]
    elif method == "scheduled_sampling":
        wanted |= {"mixture_coefficient": BETA, "num_train_epochs": sum(row["epochs"])}
    else:
        wanted |= {"num_rounds": row["rounds"], "num_epochs_per_round": row["epochs"]}
        wanted |= {"mixture_coefficient": BETA} if "mixture_coefficient" in keys else {}
    mixture = keys["dataset_mixture"] or {"seed": 42}
    assert mixture["seed"] == 42, "what is drawn of the data"
    if qlora:
        wanted["learning_rate"] = QLORA_RATES.get(method, 2e-5)
    if method != "dpo":
        wanted |= {"max_train_examples": row.get("max_train_examples")}
    assert {key: keys[key] for key in wanted} == wanted
    assert read_yaml(path).get("load_in_4bit", False) == qlora
    starts_from = row["model"] if method == "sft" or path.parts[-3].endswith("ultrachat") else None
    assert starts_from is None or keys["model"] == starts_from
    assert keys["model"] in MODELS or keys["model"] == sft_output(path)


def sft_output(path: Path) -> str:
    """Where the SFT recipe with the same suffix puts its model."""
    return str(read_yaml(path.parents[1] / "sft" / path.name)["output_dir"])


def parts(path: Path) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """(data set, configuration, split) of what is trained and of what is held out."""
    keys = yaml.safe_load(path.read_text())
    mixed = keys.get("dataset_mixture", {}).get("datasets", [])
    trained = [(part["id"], part.get("config", "default"), part["split"]) for part in mixed]
    trained += [(part["path"], part.get("name", "default"), part["split"]) for part in keys.get("datasets", [])]
    return trained, [(part["path"], part.get("name", "default"), part["split"]) for part in keys["eval_datasets"]]


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_no_held_out_split_is_trained(path: Path) -> None:
    trained, held_out = parts(path)
    for data, config, split in trained + held_out:
        assert split in DATA[data].configs[config]
    assert trained and all("train" in split for *_, split in trained)
    assert held_out and all("train" not in split for *_, split in held_out)
    if path.parts[-2] != "dpo":
        assert {data for data, *_ in trained} <= set(TABLE[path.parts[-3]]["data"])
    configs = {config for data, config, _ in trained}
    assert configs == set(DATA[trained[0][0]].configs) == {config for _, config, _ in held_out}, "all subjects of MATH"


@pytest.mark.parametrize("path", [path for path in RECIPES if path.parts[-3].endswith("math")], ids=name)
def test_shares_of_the_training_data(path: Path) -> None:
    """10, 20 and 50 % are given as numbers of rows of the shuffled mixture."""
    trained, _ = parts(path)
    rows = sum(DATA[data].configs[config][split] for data, config, split in trained)
    said = re.search(r"--max_train_examples (\d+), (\d+) or (\d+) is a random 10, 20 or 50 %", path.read_text())
    assert said and all(abs(int(said[at]) - rows * share) < 1 for at, share in enumerate((0.1, 0.2, 0.5), 1))
