"""The check before training: what the starting model makes of a few dozen training examples, and one sentence of
advice.

Training examples, because contexts are sampled from their prompts: a model that knows them by heart samples the
references, however it does elsewhere. Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from tqdm.auto import tqdm

from ..data.example import Example
from ..data.special_tokens import stop_tokens, undecodable_token_ids
from ..decoding import Completion, SamplingParams, generate_completions
from ..decoding.forward import SlotRunners
from ..decoding.model_state import generation_precision
from ..evaluation.answer_extraction import marked_answer
from ..evaluation.math import is_correct
from ..evaluation.text_metrics import token_f1
from ..intervals import Interval, mean_interval
from ..runs.preview import PreviewBatch, take_more
from ..runs.run_config import RunConfig
from .error_recovery import RecoveryScore, recovery_score, recovery_values, tokens_recovered
from .forced_errors import (
    DEFAULT_ERROR_POSITIONS,
    generate_continuations,
    sample_forced_errors,
    tokens_left_after_error,
)
from .method_advice import ProbeResult, advice


_LONGER = 2  # a completion may be so many times as long as the longest reference
_BATCH = 64
_TIMED_EXAMPLES, _TIMED_TOKENS = 4, 4

Complete = Callable[..., list[Completion]]  # `generate_completions` without its model


def run_probe(job: RunConfig, first: PreviewBatch, count: int) -> ProbeResult | None:
    """Print what the starting model makes of `count` examples: the contexts that would be trained on, recovery after
    forced errors, the quality of its completions; and the advice that follows.

    Args:
        first: what `build_preview` took, with a model in place.

    Returns:
        None where rows have no prompt: nothing can be asked then, and one line says so.
    """
    if first.examples.without_prompt():
        print("no estimate of the gain: the rows are plain text or trained in full, and have no prompt to answer")
        return None
    examples = list(islice(first.examples.split_turns(first.examples.stops), count))
    longest = _LONGER * max(len(example.completion_ids) for example in examples)
    complete = partial(generate_completions, first.model, runners=SlotRunners())
    seconds = _seconds(first, examples, longest, complete)
    takes = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"
    print(f"\nthe starting model answers {len(examples)} examples, which takes at most {takes}", flush=True)
    first = take_more(job, first, count)
    completions = _completions(first, examples, longest, complete)
    forced_errors = _recovery(first, examples, longest, complete)

    def text(tokens: Sequence[int]) -> str:
        return str(first.tokenizer.decode(tokens, skip_special_tokens=True))

    references = [text(example.completion_ids) for example in examples]
    answers = [text(completion.tokens) for completion in completions]
    graded = all(marked_answer(reference) is not None for reference in references)
    right = mean_interval([is_correct(*pair) for pair in zip(answers, references, strict=True)]) if graded else None
    f1 = mean_interval([token_f1(*pair) for pair in zip(answers, references, strict=True)])
    truncated = sum(not completion.finished for completion in completions) / len(completions)
    found = ProbeResult(
        replaced=first.stats.replaced_frac,
        recovered=forced_errors.mean.mean if forced_errors else None,
        right=right.mean if right else None,
        token_f1=f1.mean,
        truncated=truncated,
        answer_first=graded and all(map(answers_first, references)),
    )
    _show(job, first, forced_errors, right, f1, truncated, len(examples))
    print(f"\nadvice: {advice(found)}")
    return found


def _seconds(first: PreviewBatch, examples: Sequence[Example], longest: int, complete: Complete) -> float:
    """The most seconds that the measures take, from a few tokens of a few examples."""
    few = examples[:_TIMED_EXAMPLES]
    _timed(first, few[:1], 1, complete)  # what the first pass takes is paid once
    prefill, more = (_timed(first, few, tokens, complete) for tokens in (1, 1 + _TIMED_TOKENS))
    token = max(0.0, more - prefill) / _TIMED_TOKENS / len(few)
    passes = 1 + len(DEFAULT_ERROR_POSITIONS) + bool(first.stats.summary())
    generated = longest * (1 + sum(1 - place for place in DEFAULT_ERROR_POSITIONS))
    return len(examples) * (passes * prefill / len(few) + generated * token)


def _timed(first: PreviewBatch, examples: Sequence[Example], tokens: int, complete: Complete) -> float:
    started = time.perf_counter()
    with generation_precision(first.model, first.args):
        complete(
            [example.generation_prompt_ids for example in examples],
            ids=[example.id for example in examples],
            max_completion_length=tokens,
            stop_tokens=(),
            options=_greedy(first),
        )
    return time.perf_counter() - started


def answers_first(reference: str) -> bool:
    """Whether the first line of a text gives its final answer, and more follows."""
    opening, _, rest = reference.strip().partition("\n")
    return bool(rest.strip()) and marked_answer(opening) is not None


def _completions(
    first: PreviewBatch, examples: Sequence[Example], longest: int, complete: Complete
) -> list[Completion]:
    """The greedy answers."""
    prompts = [example.generation_prompt_ids for example in examples]
    bar = tqdm(total=len(examples), desc="probing, answers", unit="row", delay=1)
    with generation_precision(first.model, first.args), bar:
        return complete(
            prompts,
            ids=[example.id for example in examples],
            max_completion_length=tokens_left_after_error(first.model, prompts, longest),
            stop_tokens=stop_tokens(first.tokenizer, first.model),
            options=_greedy(first),
            on_finished=bar.update,
        )


def _recovery(
    first: PreviewBatch, examples: Sequence[Example], longest: int, complete: Complete
) -> RecoveryScore | None:
    """The share of the references' tokens after forced errors that follow all the same."""
    model, tokenizer, args = first.model, first.tokenizer, first.args
    forced_errors = sample_forced_errors(
        model,
        tokenizer,
        examples,
        args,
        source="",
        places=DEFAULT_ERROR_POSITIONS,
        max_completion_length=longest,
        batch_size=_BATCH,
    )
    stops = stop_tokens(tokenizer, model)
    completions = generate_continuations(
        model, examples, forced_errors, args, _greedy(first), stops, longest, complete
    )
    cells = recovery_values(tokens_recovered, examples, forced_errors, completions)
    return recovery_score(cells, [example.id for example in examples])


def _greedy(first: PreviewBatch) -> SamplingParams:
    unnamed = tuple(undecodable_token_ids(first.tokenizer, first.model))
    return SamplingParams(temperature=0, suppress_tokens=unnamed, batch_size=_BATCH)


def _show(
    job: RunConfig,
    first: PreviewBatch,
    forced_errors: RecoveryScore | None,
    right: Interval | None,
    f1: Interval,
    truncated: float,
    count: int,
) -> None:
    print(f"the starting model on the first {count} training examples, with 95 % intervals:")
    if summary := first.stats.summary():
        print(f"  contexts   {summary}")
        for warning in first.stats.warnings(first.args):
            print(f"             {warning}")
    if forced_errors:
        places = " ".join(f"{100 * at.mean:.1f}" for at in forced_errors.at if at)
        print(
            f"  recovery   reference tokens that follow a forced error: {forced_errors.mean} (by the position of the "
            f"error: {places})"
        )
    final = f"final answer right {right}, " if right else ""
    print(f"  answers    greedy: {final}token F1 {f1}, truncated {100 * truncated:.1f} %")
