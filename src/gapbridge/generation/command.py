"""`gapbridge generate`: a model's answers to a recipe's held-out prompts, as JSONL.

Stores of the answers lie in `completions/` of the run, or of `outputs`; what was killed continues from them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from accelerate import PartialState

from ..errors import ConfigError, RunError, describe
from ..files import write_text_atomic
from ..runs.run_config import read_job
from ..training.distributed_checks import check_processes
from ..training.run_files import RUN_FILE, read_run
from .common import OUTPUTS, job_for, load_evaluated
from .decoding_modes import SINGLE_PASS, mode_settings, read_modes
from .held_out_completions import complete_examples, completion_options
from .server import connect, server_errors


def run_generate(args: argparse.Namespace, others: list[str]) -> Path:
    """Answer the recipe's held-out prompts, or its training prompts where it has no others.

    Each line of the file holds `id`, `prompt`, `reference` and `answer`, the direct one, and for each further mode a
    field of its name.

    Args:
        args: `config`; `model`, by default the recipe's finished run; `mode`; `output`, by default `completions.jsonl`
            beside the stores; `max_completion_length`, `temperature`, `max_examples`, `batch_size`, `seed`;
            `vllm_server_base_url`, `vllm_server_timeout`.
        others: recipe options, and those of the modes.

    Returns:
        The file.

    Raises:
        ConfigError: the options are wrong, or the file is there already. RunError: the recipe's run is not finished.
    """
    requested, others = read_modes(args, others)
    errors = server_errors(args, [args.model or "the finished run"], list(requested))
    errors += (
        []
        if args.config
        else [describe("recipe", "none", "the recipe whose prompts are completed", "Give it with --config RECIPE")]
    )
    if errors:
        raise ConfigError([f"command line, {error}" for error in errors])
    model_path = args.model or _finished_run(args.config, others)
    directory = (Path(model_path) if (Path(model_path) / RUN_FILE).is_file() else OUTPUTS) / "completions"
    path = Path(args.output or directory / "completions.jsonl")
    if path.exists():
        raise ConfigError(path, "an existing file", "a new one", "Give another --output, or move the file away")
    job = job_for(model_path, args.config, others)
    check_processes(job.args)
    engine = connect(args, [model_path]).get(model_path)
    model, tokenizer, examples = load_evaluated(job, model_path, args.max_examples)
    options = completion_options(args, mode_settings(requested, job.args))
    answers = complete_examples(model, tokenizer, examples, job.args, options, directory, engine=engine)
    if PartialState().is_main_process:
        lines = []
        for answer in answers:
            further = {mode: text for mode, text in answer.texts.items() if mode != SINGLE_PASS}
            row = {"id": answer.id, "prompt": answer.prompt, "reference": answer.reference, "answer": answer.first}
            lines.append(json.dumps(row | further, ensure_ascii=False) + "\n")
        write_text_atomic(path, "".join(lines))
        print(f"{len(lines)} completions: {path}")
    return path


def _finished_run(recipe: str, others: list[str]) -> str:
    """The recipe's `output_dir`. Raises RunError if it holds no finished run."""
    run = Path(str(read_job(["--config", recipe, *others]).args.output_dir))
    if not (run / RUN_FILE).is_file() or read_run(run)["state"] != "complete":
        raise RunError(run, "no finished run", "one", "Train it first, or name a model with --model")
    return str(run)
