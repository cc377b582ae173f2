"""The check before training: what the starting model makes of a few dozen training examples.

Training examples, because contexts are sampled from their prompts: a model that knows them by heart samples the
references, however it does elsewhere. Nothing is written. docs/research/gap-definitions.md says how to read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

from tqdm.auto import tqdm

from ..data.special_tokens import stop_tokens, undecodable_token_ids
from ..decoding import SamplingParams, generate_completions
from ..decoding.forward import SlotRunners
from ..decoding.model_state import generation_precision
from ..evaluation.answer_extraction import marked_answer
from ..evaluation.math import is_correct
from ..evaluation.text_metrics import token_f1
from ..intervals import Interval, mean_interval
from ..runs.preview import PreviewBatch
from .error_recovery import recovery_score, recovery_values, tokens_recovered
from .forced_errors import (
    DEFAULT_ERROR_POSITIONS,
    generate_continuations,
    sample_forced_errors,
    tokens_left_after_error,
)


_LONGER = 2  # a completion may be so many times as long as the longest reference
_BATCH = 64


def run_probe(first: PreviewBatch, count: int) -> None:
    """Print what the starting model makes of `count` examples: the contexts that would be trained on, recovery after
    forced errors, and the quality of its completions. Where rows have no prompt, one line says so.

    Args:
        first: what `build_preview` took, `with_model`.
    """
    if first.examples.without_prompt():
        print("no estimate of the gain: the rows are plain text or trained in full, and have no prompt to answer")
        return
    examples = list(islice(first.examples.split_turns(first.examples.stops), count))
    print(f"\nthe starting model answers {len(examples)} examples", flush=True)
    model, tokenizer, args = first.model, first.tokenizer, first.args
    longest = _LONGER * max(len(example.completion_ids) for example in examples)
    stops = stop_tokens(tokenizer, model)
    complete = partial(generate_completions, model, runners=SlotRunners())
    unnamed = tuple(undecodable_token_ids(tokenizer, model))
    greedy = SamplingParams(temperature=0, suppress_tokens=unnamed, batch_size=_BATCH)

    prompts, ids = [example.generation_prompt_ids for example in examples], [example.id for example in examples]
    bar = tqdm(total=len(examples), desc="answering", unit="row", delay=1)
    with generation_precision(model, args), bar:
        completions = complete(
            prompts,
            ids=ids,
            max_completion_length=tokens_left_after_error(model, prompts, longest),
            stop_tokens=stops,
            options=greedy,
            on_finished=bar.update,
        )
    places: dict[str, Any] = {"source": "", "places": DEFAULT_ERROR_POSITIONS, "max_completion_length": longest}
    forced_errors = sample_forced_errors(model, tokenizer, examples, args, batch_size=_BATCH, **places)
    continued = generate_continuations(model, examples, forced_errors, args, greedy, stops, longest, complete)
    recovery = recovery_score(recovery_values(tokens_recovered, examples, forced_errors, continued), ids)

    def text(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    references = [text(example.completion_ids) for example in examples]
    pairs = list(zip([text(completion.tokens) for completion in completions], references, strict=True))
    print(f"the starting model on the first {len(examples)} training examples, with 95 % intervals:")
    if summary := first.stats.summary():
        print(f"  contexts   {summary}")
        for warning in first.stats.warnings(args):
            print(f"             {warning}")
    if recovery:
        by_place = " ".join(f"{100 * at.mean:.1f}" for at in recovery.at if at)
        print(f"  recovery   reference tokens that follow a forced error: {_percent(recovery.mean)}")
        print(f"             by the position of the error: {by_place}")
    final = ""
    if all(marked_answer(reference) is not None for reference in references):
        final = f"final answer right {_percent(mean_interval([is_correct(*pair) for pair in pairs]))}, "
    truncated = sum(not completion.finished for completion in completions) / len(completions)
    f1 = _percent(mean_interval([token_f1(*pair) for pair in pairs]))
    print(f"  answers    greedy: {final}token F1 {f1}, truncated {100 * truncated:.1f} %")


def _percent(fraction: Interval) -> str:
    return f"{100 * fraction.mean:.1f} % [{100 * fraction.low:.1f}, {100 * fraction.high:.1f}]"
