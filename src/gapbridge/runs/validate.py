"""`gapbridge validate`: everything wrong with a recipe that shows before a run, all at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import methods
from ..data.example import ExampleSet
from ..data.sources import FILE_BUILDERS, check_data_config
from ..display import notice_if_slow, say
from ..errors import ConfigError, GapbridgeError, describe, require
from ..recipe.type_checks import read_yaml
from ..training.adapter_merge import QUANTISED
from ..training.arguments import TRAIN
from ..training.config import RoundArgs
from ..training.loading import load_meta_model, load_tokenizer, prepare_tokenizer, require_local
from ..training.preflight import batch_errors, preflight_errors
from ..training.quiet import quiet_libraries
from .hub import access_errors, name_errors, repository_name
from .load_inputs import RoundStart, check_template_eos, load_examples, started_inputs
from .packages import package_errors
from .run_config import RunConfig, read_job
from .train import construct


DRY_ROWS = 64
Checked = tuple[list[str], list[str], str]  # errors, notes, and what the recipe does


@quiet_libraries()
def validate(job: RunConfig, *, all_rows: bool = False) -> tuple[list[str], list[str]]:
    """Check a parsed recipe and dry-run it on its first rows.

    Model and data that are local are loaded (the tokenizer and the model's configurations, not its weights; the first
    rows become examples), and the trainer is constructed on them up to the point where it would generate. What a hub
    holds is not asked for and is reported as not checked.

    Returns:
        (errors, notes): empty errors mean that the run can start.
    """
    errors = [*key_errors(job), *access_errors(job.args), *package_errors(job), *_run_errors(job)]
    notes = list(job.recipe.notes)
    if job.args.push_to_hub and not name_errors(job.args):
        notes.append(f"not checked: whether the hub takes the model as {repository_name(job.args)}")
    data_errors = check_data_config(job.data, job.script)
    model: PreTrainedModel | PeftModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    path = Path(str(job.model.model_name_or_path))
    try:
        require_local(str(job.model.model_name_or_path), "model_name_or_path")
        if path.is_dir():
            check_template_eos(job)
            tokenizer = load_tokenizer(path, job.args)
            prepare_tokenizer(None, tokenizer, job.args, uses_peft=job.model.use_peft)
            model = load_meta_model(path, job.args)
            if model is None:
                notes.append(f"not checked: the base of the adapter {path}, which is no directory here")
            else:
                errors += _position_errors(job, model)
        else:
            notes.append(f"not checked: model {path}, which is no directory here and is taken for a hub id")
    except GapbridgeError as error:
        errors += error.errors
    if data_errors:
        notes.append("not checked: the rows of the data sets")
    elif any(not is_local(path) for path in job.data.sources()) or job.script.dataset_name:
        notes.append("not checked: data sets on a hub")
    elif tokenizer is not None and model is not None:
        try:
            errors += _batch_size_errors(job)
        except GapbridgeError:  # reported below
            pass
        errors += _run_errors(job, with_inputs=True)
        if not all_rows:
            job.data.max_train_examples = min(DRY_ROWS, job.data.max_train_examples or DRY_ROWS)
            job.data.max_eval_examples = min(DRY_ROWS, job.data.max_eval_examples or DRY_ROWS)
        try:
            job.method.setup_model(model, tokenizer, job.args)
            examples = load_examples(job, tokenizer, model)
            for name, part in examples.items():
                notes.append(
                    f"{name}: {'all' if all_rows else 'the first'} {len(part):,} rows of {part.source} are valid"
                )
                notes += [f"{name}: loss on {part.loss_on}"] if part.loss_on else []
            notes += _construct(job, model, tokenizer, examples)
        except GapbridgeError as error:
            errors += error.errors
    if model is None:
        errors += preflight_errors(job.args, metrics=job.method.evaluated_names(job.args, experts=True))
    return list(dict.fromkeys(errors)), notes


def key_errors(job: RunConfig) -> list[str]:
    """What of the keys does not go together, with nothing looked at but the recipe and whether its files are there."""
    errors = [*job.args.errors(), *check_data_config(job.data, job.script), *name_errors(job.args)]
    if job.evaluates and not job.has_eval_data:
        expected, advice = "eval_datasets or test_split_size", "Add one of them, or set eval_strategy: 'no'"
        errors.append(describe("eval_strategy", "evaluation without held-out data", expected, advice))
    if job.model.load_in_4bit or job.model.load_in_8bit:
        if not job.model.use_peft:
            got, expected = "true without use_peft", "an adapter, since quantized weights cannot be trained"
            errors.append(describe("load_in_4bit, load_in_8bit", got, expected, "Set use_peft: true"))
        if job.args.save_merged_model:
            errors.append(QUANTISED)
    return errors


def is_local(path: str) -> bool:
    return path in FILE_BUILDERS or Path(path).exists()


def _construct(
    job: RunConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: dict[str, ExampleSet]
) -> list[str]:
    """Construct the first round's trainer on a model without weights, in a directory of its own.

    Returns:
        What could not be checked in this way.

    Raises:
        GapbridgeError: it is refused.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Here are the first rows alone, which need not make a batch.
        args = replace(job.args, output_dir=folder, push_to_hub=False, dataloader_drop_last=False)
        args.trust_remote_code = job.args.trust_remote_code  # with older TRL no field
        try:
            construct(replace(job, args=args), 1, RoundStart(model, tokenizer, examples))
        except (GapbridgeError, RuntimeError) as error:  # torch says that it is not implemented
            if "meta" not in str(error).lower():  # torch's word for a tensor without content
                raise
            return [f"not checked: TRL's trainer, whose constructor reads this model's weights ({error})"]
    return []


def _batch_size_errors(job: RunConfig) -> list[str]:
    """Whether all rows, rather than the first ones, make a batch."""
    if not job.args.dataloader_drop_last:
        return []
    found = job.find_data()
    rows = {TRAIN: len(found.train), **({} if found.eval is None else {"eval": len(found.eval)})}
    return batch_errors(job.args, rows)


def _position_errors(job: RunConfig, model: PreTrainedModel) -> list[str]:
    positions = model.config.get_text_config().to_dict().get("max_position_embeddings")
    fits = not positions or not job.args.max_length or job.args.max_length <= positions
    expected = f"at most {positions}, the positions of the model"
    return require(fits, "max_length", job.args.max_length, expected, "Lower the value")


def _run_errors(job: RunConfig, *, with_inputs: bool = False) -> list[str]:
    """Why the run in `output_dir` cannot be this one; `with_inputs` also where its data or model have changed."""
    try:
        run = job.run_directory()
        if run.check() != "new" and with_inputs:
            run.check_inputs(started_inputs(job))
    except GapbridgeError as error:
        return error.errors
    return []


def describe_job(job: RunConfig) -> str:
    """One line on what the recipe does."""
    args = job.args
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
    rounds = f", {args.num_rounds} round(s)" if isinstance(args, RoundArgs) else ""
    own = methods.method_fields(job.name)  # the keys of this method alone, not those of the mixins behind it
    off = {field.name for field in fields(own) if field.default == 0}
    keys = [
        field.name for field in fields(own) if field.name in own.__annotations__ and field.name not in own.RUNTIME_ONLY
    ]
    values = {name: vars(args)[name] for name in keys}
    values = {name: value for name, value in values.items() if value or name not in off}
    shown = [f"{name} {value}" for name, value in values.items() if isinstance(value, (int, float))]
    method = ", ".join([methods.display_name(job.name), *shown]) + rounds
    return f"{method}: {job.model.model_name_or_path} → {args.output_dir}, {batch} rows a step and process"


def cpu_option(overrides: Sequence[str]) -> list[str]:
    """What makes a recipe one for this machine's CPU, where it has nothing else and the options say nothing of it."""
    return [] if torch.accelerator.is_available() or "--use_cpu" in overrides else ["--use_cpu", "true"]


def run_validate(
    paths: Sequence[str], overrides: Sequence[str], *, method: str | None = None, all_rows: bool = False
) -> None:
    """Check recipes, print what is good and what was not checked.

    Args:
        method: what the recipes are for, where they do not say so themselves.
        all_rows: check every row of local data sets rather than the first ones.

    Raises:
        ConfigError: listing the errors of all of them.
    """
    cpu = cpu_option(overrides)

    def check(path: str) -> Checked:
        job = read_job(["--config", path, *overrides, *cpu], method)
        with notice_if_slow(f"{path}: checking data, model and trainer …"):
            errors, notes = validate(job, all_rows=all_rows)
        if cpu and not read_yaml(Path(path)).get("use_cpu"):
            notes.append("this machine has no accelerator: checked as if use_cpu were true")
        return errors, notes, describe_job(job)

    validate_each(paths, check)


def validate_each(paths: Sequence[str], check: Callable[[str], Checked]) -> None:
    """Check recipes, say of each what is good and what was not checked, and raise the errors of all of them."""
    failed: list[str] = []
    for path in paths:
        try:
            errors, notes, what = check(path)
        except GapbridgeError as error:
            failed += error.errors
            continue
        failed += [message if message.startswith(path) else f"{path}, {message}" for message in errors]
        say(f"{path}: {'refused, see below' if errors else f'good. {what}'}", *(f"  {note}" for note in notes))
    if failed:
        raise ConfigError(failed)
