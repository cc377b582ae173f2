"""What a record of `eval` or `gap` depends on, and whether one that is there was made from the same.

It is found before a model is loaded: from the command line, whole files, and the recipe's rows as the tokenizer and
the chat template make them. A recipe key that changes none of these changes no figure, and is not compared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..compat import mixed_precision
from ..data.special_tokens import stop_tokens
from ..display import printable
from ..errors import ConfigError
from ..jsonl import as_json_values
from ..recipe.secrets import redact, redacted_command
from ..runs.load_inputs import load_eval_examples
from ..runs.run_config import RunConfig
from ..runs.run_directory import run_date
from ..store.file_hashes import hash_path
from ..store.fingerprint import tokenizer_fingerprint
from ..training.loading import load_meta_model, load_tokenizer, model_init_kwargs, prepare_tokenizer
from ..training.run_files import flat


# Options that change no figure; a record is the same with other values.
RUNTIME_ONLY_OPTIONS = frozenset(
    """
    command accelerate_config output_dir batch_size grading_workers
    vllm_server_base_url vllm_server_timeout
    judge_url judge_api_key_env judge_token_limit_field judge_timeout judge_concurrency
    """.split()
)
_SHOWN = 200  # characters of a value
_WAY_OUT = "Choose another --output_dir, or move the file away to measure again"


def recorded_settings(args: argparse.Namespace, others: list[str], inputs: Sequence[str | Path]) -> dict[str, Any]:
    """The options that can change a figure, as JSON values; `inputs` are the files and models that enter, whole."""
    settings = {key: value for key, value in vars(args).items() if key not in RUNTIME_ONLY_OPTIONS}
    if args.vllm_server_base_url:  # its address may change; only then, so that earlier records stay valid
        settings["engine"] = "vllm"
    settings["recipe_options"] = redacted_command(others)
    # The same names can come to hold other answers and other weights.
    settings["contents"] = {str(path): hash_path(path) for path in inputs}
    return as_json_values(settings, str)


def asked_identity(
    job: RunConfig, model_path: str, limit: int | None, modes: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """What a model is asked and how it is loaded, as JSON values; its weights are not read.

    Args:
        job: the recipe for the model, as `job_for` gives it.
        limit: the first so many examples only.
        modes: the settings of each further answer mode.

    Raises:
        ConfigError, DataError: as loading model and data would.
    """
    args = job.args
    args.chat_template_date = args.chat_template_date or run_date(Path(model_path))
    tokenizer = load_tokenizer(model_path, args)
    prepare_tokenizer(None, tokenizer, args, uses_peft=job.model.use_peft)
    model = load_meta_model(Path(model_path), args) if Path(model_path).is_dir() else None
    job.method.setup_model(model, tokenizer, args)
    examples = load_eval_examples(job, tokenizer, model, limit=limit)
    loading = {key: str(value) for key, value in model_init_kwargs(job.model, args).items() if key != "revision"}
    identity = {
        "examples": f"{len(examples)} rows, {examples.fingerprint()}",
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "stop_tokens": stop_tokens(tokenizer, model),
        "loading": {**loading, "mixed_precision": mixed_precision(args), "device": args.device.type},
        "modes": modes or {},
    }
    return as_json_values(identity, str)


def shown_recipe(job: RunConfig) -> dict[str, Any]:
    """The recipe's keys without secrets, as JSON values: they name what changed when what is asked did."""
    return as_json_values(redact(job.recipe.settings).keys, str)


def finished_record(path: Path, settings: dict[str, Any], recipe: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a finished evaluation or measurement left.

    Args:
        settings: what it would be made from now.
        recipe: the recipe's keys now; those that changed are named where the settings differ.

    Raises:
        ConfigError: it was made from something else, which is named, or the file is damaged.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        before, recipe_before = flat(dict(record["settings"])), flat(dict(record.get("recipe", {})))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            path, f"a damaged file ({error})", "the one that was written", "Move it away, and repeat the command"
        ) from error
    errors = differences(path, before, flat(settings))
    if errors:
        errors += differences(path, recipe_before, flat(recipe or {}), "recipe key ")
        raise ConfigError(errors)
    return record


def differences(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], what: str = "") -> list[str]:
    """One error for each key that differs between what the file at `path` holds and what is expected."""
    return [
        f"{path}, {what}{key}: got {_shown(before, key)}, expected {_shown(now, key)}. {_WAY_OUT}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _shown(values: Mapping[str, Any], key: str) -> str:
    text = printable(values.get(key, "nothing"))  # a chat template may stand there
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
