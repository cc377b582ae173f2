"""What the commands share that ask finished models: where files go, the recipe, the model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.example import ExampleSet
from ..decoding.model_state import move_to_device
from ..runs.load_inputs import load_eval_examples, load_initial_model
from ..runs.run_config import RunConfig, read_job
from ..runs.run_directory import run_date
from ..training.run_files import RUN_FILE


OUTPUTS = Path("outputs")


def output_directory(args: argparse.Namespace) -> Path:
    """Where the files go: as asked with `output_dir`, or beside the one run that is asked, or to `outputs`."""
    if args.output_dir is not None:
        return Path(args.output_dir)
    if len(args.model) == 1 and (Path(args.model[0]) / RUN_FILE).is_file():
        return Path(args.model[0])
    return OUTPUTS


def job_for(model_path: str, recipe: str | Path, others: Sequence[str]) -> RunConfig:
    """The recipe with the model that is asked in place of its own."""
    # An adapter of its own is loaded from the model's path; the recipe's would start a new one.
    fixed = ["--model_name_or_path", model_path, "--use_peft", "false"]
    options = ["--config", str(recipe), "--output_dir", str(OUTPUTS), "--report_to", "none", *others, *fixed]
    return read_job(options)


def load_evaluated(
    job: RunConfig, model_path: str, limit: int | None
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase, ExampleSet]:
    """The model on its device, its tokenizer, and the examples that it is asked."""
    job.args.chat_template_date = job.args.chat_template_date or run_date(Path(model_path))
    model, tokenizer = load_initial_model(job, model_path, with_heads=True)
    move_to_device(model, job.args)
    return model, tokenizer, load_eval_examples(job, tokenizer, model, limit=limit, run=Path(model_path))
