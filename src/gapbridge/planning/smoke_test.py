"""`--smoke_test`: the same recipe for two steps, with a small model and small data that are on this machine.

What a hub holds is stood in for, what needs a GPU is left out, and every other key is kept. A model that is the
`output_dir` of a recipe nearby is what that recipe starts from, or what its own tiny run has left.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..files import write_text_atomic
from ..recipe.secrets import redact
from ..recipe.type_checks import read_yaml
from ..runs.run_config import RunConfig, read_job
from ..runs.train import train
from ..runs.validate import Checked, cpu_option, describe_job, key_errors, validate, validate_each
from .dummy_assets import dummy_dataset, dummy_model, small_copy
from .hub_metadata import DATA, MODELS, PublishedData, PublishedModel, conversation_row, preference_row


SMOKE_TEST_OUTPUTS = Path("outputs/tiny")  # where the runs of tiny recipes go, each below it as the recipe itself says
STEPS = 2
_LOCAL_ROWS = 64
_BUILDERS = ("json", "csv", "parquet", "text", "arrow")
# What only a hub, a GPU or a package that not everyone has can do.
_LEFT_OUT: Mapping[str, Any] = {
    "model_revision": "main", "load_in_4bit": False, "load_in_8bit": False, "use_vllm": False,
    "use_liger_kernel": False, "attn_implementation": "sdpa", "deepspeed": None, "dataset_num_proc": None,
    "push_to_hub": False, "report_to": "none",
}  # fmt: skip
_UNKNOWN = PublishedModel({"model_type": "llama", "num_key_value_heads": 2}, chats=True)


@dataclass(frozen=True)
class BaseModelInfo:
    """What a model's path leads to.

    name: a hub id, or a local directory.
    template: the chat template that the recipes on the way set, where one does.
    """

    name: str
    template: dict[str, Any] = field(default_factory=dict)


def find_base_model(model: str, recipe: Path) -> BaseModelInfo:
    """Where a model comes from: through the recipes beside this one whose `output_dir` it is, to what is there."""
    beside = {str(keys.get("output_dir")): keys for keys in _recipes_beside(recipe)}
    template: dict[str, Any] = {}
    seen = set()
    while not Path(model).is_dir() and model in beside and model not in seen:
        seen.add(model)
        keys = beside[model]
        template = {name: keys[name] for name in ("chat_template", "chat_template_path") if name in keys} | template
        model = str(keys.get("model_name_or_path"))
    return BaseModelInfo(model, template)


def _recipes_beside(recipe: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(recipe.absolute().parent.parent.glob("*/*.yaml")):
        try:
            found.append(read_yaml(path))
        # one that cannot be read is its own error, and reported where it is the one that is asked for
        except ConfigError:
            continue
    return found


def tiny_recipe(
    path: str, overrides: Sequence[str], method: str | None = None, folder: Path = SMOKE_TEST_OUTPUTS
) -> tuple[Path, list[str]]:
    """Write the tiny recipe of a recipe.

    Args:
        overrides: options of the command line, which belong to the recipe.
        method: what the recipe is for, where it does not say so.
        folder: below it go the tiny recipe and its run.

    Returns:
        Where it is, and what differs besides model and data.

    Raises:
        ConfigError: the recipe has errors, all of them listed.
    """
    job = read_job(["--config", path, *overrides, *cpu_option(overrides)], method)
    keys = {"method": job.name, **redact(job.recipe.keys).keys}
    notes: list[str] = []
    keys |= _data_keys(job, keys, notes) | _model_keys(job, Path(path), folder, notes)
    for name, value in _LEFT_OUT.items():
        if keys.get(name) not in (None, value) and name not in ("dataset_num_proc", "report_to", "model_revision"):
            notes.append(f"{path}: tried with {name} {value} instead of {keys[name]}")
        if name in keys:
            keys[name] = value
    args, data = job.args, job.data
    rows = max(_LOCAL_ROWS, STEPS * args.per_device_train_batch_size * args.gradient_accumulation_steps)
    keys["max_train_examples"] = min(rows, data.max_train_examples or rows)
    if job.has_eval_data:
        keys["max_eval_examples"] = min(_LOCAL_ROWS, data.max_eval_examples or _LOCAL_ROWS)
    keys |= {"max_steps": STEPS, "output_dir": str(under_output_root(folder, job.args.output_dir))}
    written = under_output_root(folder / "recipes", f"{job.args.output_dir}.yaml")
    write_text_atomic(written, yaml.safe_dump(keys, sort_keys=False, allow_unicode=True))
    return written, notes


def under_output_root(folder: Path, path: str | Path) -> Path:
    """A recipe's path below a folder."""
    place = Path(path)
    return folder.joinpath(*(part for part in place.relative_to(place.anchor).parts if part != ".."))


def validate_offline(
    paths: Sequence[str], overrides: Sequence[str], *, method: str | None = None, all_rows: bool = False, steps: bool
) -> None:
    """`gapbridge validate --offline` and `--smoke_test`: check recipes on stand-ins for what a hub holds.

    Args:
        steps: train each for two steps, too.

    Raises:
        ConfigError: listing the errors of all of them. Whatever training raises.
    """

    def check(path: str) -> Checked:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            full = read_job(["--config", path, *overrides, *cpu_option(overrides)], method)
            written, notes = tiny_recipe(path, overrides, method, Path(folder))
            errors, checked = validate(read_job(["--config", str(written)]), all_rows=all_rows)
            errors = [*key_errors(full), *errors]
            notes = [note.removeprefix(f"{path}: ") for note in notes]
            notes += [note for note in checked if note.startswith("not checked")]
            if steps and not errors:
                with redirect_stdout(io.StringIO()):  # its metrics say nothing, and its files are removed
                    train(read_job(["--config", str(written)]))
        done = f"; {STEPS} steps a round in {time.perf_counter() - started:.1f} s" if steps else ""
        return errors, notes, describe_job(full) + done

    validate_each(paths, check)


def _model_keys(job: RunConfig, recipe: Path, folder: Path, notes: list[str]) -> dict[str, Any]:
    named = str(job.model.model_name_or_path)
    trained = under_output_root(folder, named)
    if any((trained / name).is_file() for name in ("config.json", "adapter_config.json")):
        return {"model_name_or_path": str(trained)}
    origin = find_base_model(named, recipe)
    place = Path(origin.name)
    if (place / "config.json").is_file():
        found = small_copy(place)
    elif origin.name in MODELS:
        found = dummy_model(MODELS[origin.name], job.args.eos_token)
    else:
        found = dummy_model(_UNKNOWN, job.args.eos_token)
        notes.append(f"{recipe}: the architecture of {origin.name} is not known here: a Llama stands in for it")
    own = {name for name in ("chat_template", "chat_template_path") if name in job.recipe.keys}
    return {"model_name_or_path": str(found), **({} if own else origin.template)}


def _data_keys(job: RunConfig, keys: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The keys of the data with folders here in the place of hub ids."""
    mixture = keys.get("dataset_mixture")
    mixture = mixture if isinstance(mixture, dict) else {}
    entries = [("id", "config", part) for part in mixture.get("datasets", [])]
    entries += [("path", "name", part) for name in ("datasets", "eval_datasets") for part in keys.get(name) or []]
    remote = [
        (part[id_key], part.get(config_key), part.get("split") or "train", part.get("columns"))
        for id_key, config_key, part in entries
        if part[id_key] not in _BUILDERS and not Path(part[id_key]).exists()
    ]
    script = job.script
    if script.dataset_name and not Path(script.dataset_name).exists():
        for split in (script.dataset_train_split, script.dataset_test_split):
            remote.append((script.dataset_name, script.dataset_config, split, None))
    places = {name: str(dummy_dataset(_data_named(name, remote, job, notes))) for name, *_ in remote}

    def replaced(part: Mapping[str, Any], id_key: str) -> dict[str, Any]:
        return {**part, id_key: places.get(part[id_key], part[id_key])}

    changes: dict[str, Any] = {
        name: [replaced(part, "path") for part in keys[name]]
        for name in ("datasets", "eval_datasets")
        if keys.get(name)
    }
    if mixture:
        changes["dataset_mixture"] = {**mixture, "datasets": [replaced(part, "id") for part in mixture["datasets"]]}
    if script.dataset_name in places:
        changes["dataset_name"] = places[str(script.dataset_name)]
    return changes


def _data_named(name: str, remote: Sequence[tuple[Any, ...]], job: RunConfig, notes: list[str]) -> PublishedData:
    """What the data set looks like; one that is not known has the configurations, splits and columns that are asked
    for."""
    if name in DATA:
        return DATA[name]
    asked = [entry for entry in remote if entry[0] == name]
    configs: dict[str, dict[str, int]] = {}
    for _, config, split, _ in asked:
        configs.setdefault(config or "default", {})[str(split).split("[")[0]] = 0
    columns = next((entry[3] for entry in asked if entry[3]), None)
    data = job.data
    if job.method.data_format == "preferences":
        kind, row = "pairs of answers", preference_row
    elif (
        "messages" in (columns or ["messages"]) and data.completion_column == "completion" and not data.convert_to_chat
    ):
        kind, row = "conversations", conversation_row
    else:
        kind = f"{data.prompt_column} and {data.completion_column}"

        def row(prompt: str, answer: str, number: int) -> dict[str, Any]:
            return {data.prompt_column: prompt, data.completion_column: answer}

    notes.append(f"{job.recipe.path}: the columns of {name} are not known here: {kind} stand in for them")
    return PublishedData(configs, row)
