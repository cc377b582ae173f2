"""`gapbridge generate --mode direct|corrected`: a model's answers to a recipe's prompts, as JSONL."""

from __future__ import annotations

import json
from pathlib import Path

from tqdm.auto import tqdm

from ..contexts.fill import place_for_generation
from ..decoding import draft_answers
from ..errors import ConfigError, RunError
from ..examples.tokens import stop_tokens
from ..files import write_text_atomic
from ..methods.rac.config import CORRECTION_PROMPT, RACConfig
from ..methods.rac.correct import correct
from ..runs.pipeline import Job, load_held_out, load_start


MODES = ("direct", "corrected")


def write_answers(job: Job, mode: str, model_path: str | None, output: str | None, max_completion_length: int) -> Path:
    """Answer the recipe's held-out prompts, or its training prompts where it has no others, greedily.

    Each line holds `id`, `prompt`, `reference`, `answer` (the first one) and, with mode `corrected`, `corrected`.

    Args:
        model_path: the model that answers; by default the recipe's finished run.
        output: the file to write; by default `answers-<mode>.jsonl` in the recipe's `output_dir`.

    Raises:
        ConfigError: an unknown mode, or a file that is there already. RunError: the recipe's run is not finished.
    """
    if mode not in MODES:
        raise ConfigError(f"command line: --mode is {mode!r}: choose one of {', '.join(MODES)}")
    path = Path(output or Path(str(job.args.output_dir)) / f"answers-{mode}.jsonl")
    if path.exists():
        raise ConfigError(f"{path}: is there already; give another --output or remove it")
    if model_path is None:
        record = Path(str(job.args.output_dir)) / "run.json"
        if not record.exists() or json.loads(record.read_text(encoding="utf-8"))["state"] != "complete":
            raise RunError(
                f"{job.args.output_dir}: holds no finished run; train it first or name a model with --model"
            )
        model_path = str(job.args.output_dir)
    model, tokenizer = load_start(job, model_path)
    place_for_generation(model, job.args)
    examples = load_held_out(job, tokenizer, model)
    rows = list(examples)
    prompts, ids = [row.prompt for row in rows], [row.id for row in rows]
    batch_size = job.args.per_device_eval_batch_size
    if mode == "direct":
        with tqdm(total=len(rows), desc="answering", delay=1) as bar:
            drafts = draft_answers(
                model,
                prompts,
                ids=ids,
                max_completion_length=max_completion_length,
                temperature=0.0,
                stop_tokens=stop_tokens(tokenizer, model),
                batch_size=batch_size,
                on_finished=bar.update,
            )
        answers = [{"answer": tokenizer.decode(draft.tokens, skip_special_tokens=True)} for draft in drafts]
    else:
        request = job.args.correction_prompt if isinstance(job.args, RACConfig) else CORRECTION_PROMPT
        corrections = correct(
            model,
            tokenizer,
            prompts,
            correction_prompt=request,
            max_completion_length=max_completion_length,
            ids=ids,
            batch_size=batch_size,
            conversational=examples.conversational,
        )
        answers = [{"answer": correction.first, "corrected": correction.corrected} for correction in corrections]
    lines = []
    for row, answer in zip(rows, answers, strict=True):
        texts = {
            "id": row.id,
            "prompt": tokenizer.decode(row.prompt),
            "reference": tokenizer.decode(row.reference, skip_special_tokens=True),
        }
        lines.append(json.dumps({**texts, **answer}, ensure_ascii=False) + "\n")
    write_text_atomic(path, "".join(lines))
    return path
