"""The check before training: what the starting model makes of a few dozen training examples, and one sentence of
advice.

Training examples, because contexts are drawn from their prompts: a model that knows them by heart draws the
references, however it does elsewhere. Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import islice

from tqdm.auto import tqdm

from ..answers.intervals import Interval, mean_interval
from ..decoding import Draft, DrawOptions, draft_answers
from ..decoding.mode import generation_precision
from ..evaluation.edits import token_f1
from ..evaluation.marks import marked_answer
from ..evaluation.math import is_correct
from ..examples.example import Example
from ..examples.tokens import stop_tokens, unnamed_tokens
from ..runs.job import Job
from ..runs.preview import FirstRows, take_more
from .advice import Findings, advice
from .slip_scores import SlipScore, recovered, slip_score, tokens_recovered
from .slips import PLACES, continued, draw_slips, room_behind


REPLACED = "contexts/replaced_share"  # what a method that mixes its own tokens into contexts logs
_LONGER = 2  # a draft may be so many times as long as the longest reference
_BATCH = 64
_TIMED_EXAMPLES, _TIMED_TOKENS = 4, 4


def run_probe(job: Job, first: FirstRows, count: int) -> Findings | None:
    """Print what the starting model makes of `count` examples: the contexts that would be trained on, recovery behind
    forced slips, the quality of its drafts; and the advice that follows.

    Args:
        first: what `take_first` took, with a model in place.

    Returns:
        None where rows have no prompt: nothing can be asked then, and one line says so.
    """
    if first.examples.without_prompt():
        print("not probed: the rows are plain text or trained as a whole, and have no prompt to ask with")
        return None
    examples = list(islice(first.examples.by_turn(first.examples.stops), count))
    longest = _LONGER * max(len(example.reference) for example in examples)
    seconds = _seconds(first, examples, longest)
    takes = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"
    print(f"\nthe starting model is asked about {len(examples)} examples: at most {takes}", flush=True)
    first = take_more(job, first, count)
    drafts = _drafts(first, examples, longest)
    slips = _recovery(first, examples, longest)

    def text(tokens: Sequence[int]) -> str:
        return str(first.tokenizer.decode(tokens, skip_special_tokens=True))

    references = [text(example.reference) for example in examples]
    answers = [text(draft.tokens) for draft in drafts]
    graded = all(marked_answer(reference) is not None for reference in references)
    right = mean_interval([is_correct(*pair) for pair in zip(answers, references, strict=True)]) if graded else None
    f1 = mean_interval([token_f1(*pair) for pair in zip(answers, references, strict=True)])
    capped = sum(not draft.finished for draft in drafts) / len(drafts)
    found = Findings(
        replaced=first.stats.metrics().get(REPLACED),
        recovered=slips.mean.mean if slips else None,
        right=right.mean if right else None,
        token_f1=f1.mean,
        capped=capped,
        answer_first=graded and all(map(answers_first, references)),
    )
    _show(job, first, slips, right, f1, capped, len(examples))
    print(f"\nadvice: {advice(found)}")
    return found


def _seconds(first: FirstRows, examples: Sequence[Example], longest: int) -> float:
    """The most seconds that the measures take, from a few tokens of a few examples."""
    few = examples[:_TIMED_EXAMPLES]
    prefill, more = (_timed(first, few, tokens) for tokens in (1, 1 + _TIMED_TOKENS))
    token = max(0.0, more - prefill) / _TIMED_TOKENS / len(few)
    passes = 1 + len(PLACES) + bool(first.stats.summary())
    generated = longest * (1 + sum(1 - place for place in PLACES))
    return len(examples) * (passes * prefill / len(few) + generated * token)


def _timed(first: FirstRows, examples: Sequence[Example], tokens: int) -> float:
    started = time.perf_counter()
    with generation_precision(first.model, first.args):
        draft_answers(
            first.model,
            [example.asked for example in examples],
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


def _drafts(first: FirstRows, examples: Sequence[Example], longest: int) -> list[Draft]:
    """The greedy answers."""
    prompts = [example.asked for example in examples]
    bar = tqdm(total=len(examples), desc="probing, answers", unit="row", delay=1)
    with generation_precision(first.model, first.args), bar:
        return draft_answers(
            first.model,
            prompts,
            ids=[example.id for example in examples],
            max_completion_length=room_behind(first.model, prompts, longest),
            stop_tokens=stop_tokens(first.tokenizer, first.model),
            options=_greedy(first),
            on_finished=bar.update,
        )


def _recovery(first: FirstRows, examples: Sequence[Example], longest: int) -> SlipScore | None:
    """The share of the references' tokens behind forced slips that follow all the same."""
    model, tokenizer, args = first.model, first.tokenizer, first.args
    slips = draw_slips(
        model, tokenizer, examples, args, source="", places=PLACES, max_completion_length=longest, batch_size=_BATCH
    )
    stops = stop_tokens(tokenizer, model)
    complete = partial(draft_answers, model)
    drafts = continued(model, examples, slips, args, _greedy(first), stops, longest, complete)
    cells = recovered(tokens_recovered, examples, slips, drafts)
    return slip_score(cells, [example.id for example in examples])


def _greedy(first: FirstRows) -> DrawOptions:
    unnamed = tuple(unnamed_tokens(first.tokenizer, first.model))
    return DrawOptions(temperature=0, suppress_tokens=unnamed, batch_size=_BATCH)


def _show(
    job: Job,
    first: FirstRows,
    slips: SlipScore | None,
    right: Interval | None,
    f1: Interval,
    capped: float,
    count: int,
) -> None:
    print(f"what the starting model makes of the first {count} training examples, 95 % intervals:")
    if summary := first.stats.summary():
        print(f"  contexts   {summary}")
        for warning in first.stats.warnings(first.args):
            print(f"             {warning}")
    if slips:
        places = " ".join(f"{100 * at.mean:.1f}" for at in slips.at if at)
        print(f"  slips      tokens of the reference behind a forced slip: {slips.mean} (by its place: {places})")
    final = f"final answer right {right}, " if right else ""
    print(f"  answers    greedy: {final}token F1 {f1}, cut at the limit {100 * capped:.1f} %")
