"""The RAC trainer (Cen et al. 2025, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from ...contexts.drafts import drafted_contexts
from ...contexts.fill import Contexts
from ...decoding import Draft
from ...errors import DataError
from ...examples.example import ExampleSet
from ...examples.forms import require_prompts
from ...examples.lots import lot
from ...training.building import Pairs
from ...training.citations import CEN_2025
from ...training.method import AnswerMode, Counts, Method
from ...training.rows import Row, reference_row
from .config import CORRECTION_PROMPT, RACFields
from .correct import corrected_answers
from .rows import Layouts, draft_in_context, rac_row


@dataclass
class RACConfig(RACFields, SFTConfig):
    """Configuration for [`RACTrainer`]: everything of [`~trl.SFTConfig`], and the keys of
    [`~gapbridge.methods.rac.config.RACFields`]."""


def _mode_settings(args: Any) -> dict[str, Any]:
    return {"correction_prompt": args.correction_prompt if isinstance(args, RACConfig) else CORRECTION_PROMPT}


class RACTrainer(Method, SFTTrainer):
    """
    Trainer for reference-answer-based correction (RAC): the model answers by itself, and learns to get from its own
    answer to the reference answer.

    It takes what [`~trl.SFTTrainer`] takes, with a [`RACConfig`]; see [`~gapbridge.training.method.Method`] for the
    arguments. `eval_loss` is the loss of the first answer (prompt → reference), `eval_own_loss` that of the correction
    (prompt, own draft, request → reference). `counts` holds the `drafts` used, how many were `capped` at the length
    limit, `equal` to the reference or `too_long` for `max_length` (left out), and the `plain_rows`.
    """

    _tag_names = ["trl", "rac", "gapbridge"]
    _name = "RAC"
    _paper = CEN_2025
    config_class = RACConfig
    draws = True
    count_names = ("drafts", "capped", "equal", "too_long", "plain_rows")
    degenerate = {"reference_rows": 1.0}
    answer_modes = {
        "corrected": AnswerMode(
            help="the answer that follows the model's first one and the request for a correction",
            options={"correction_prompt": "the request for a correction; default: the recipe's, or RAC's"},
            settings=_mode_settings,
            answer=corrected_answers,
        )
    }

    @classmethod
    def read(cls, dataset: Dataset, *args: Any, **kwargs: Any) -> ExampleSet:
        """As in `Method`, one example a trained turn: each is answered, and corrected, by itself."""
        examples = super().read(dataset, *args, **kwargs)
        require_prompts(examples, "RAC drafts an answer to each prompt")
        return examples.by_turn(examples.stops)

    @classmethod
    def check(cls, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: RACConfig) -> None:
        layouts = _layouts(tokenizer, examples, args)
        for arguments in examples.table.unique("arguments"):
            layouts.of(examples.arguments_of(arguments))

    @classmethod
    def contexts(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: RACConfig
    ) -> Contexts | None:
        if args.reference_rows == 1:
            return None  # every row is plain
        return drafted_contexts("rac", model, tokenizer, args)

    @classmethod
    def rows(
        cls,
        pairs: Pairs,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: RACConfig,
        counts: Counts,
        *,
        evaluation: bool = False,
    ) -> Iterator[Row]:
        """Correction rows, and the share `reference_rows` of plain rows beside them; in evaluation corrections alone.

        With N examples and a share s there are N·min(1, s / (1-s)) plain rows and N·min(1, (1-s) / s) correction rows,
        chosen by a hash of the ids; a share above one half leaves out correction rows.

        Raises:
            DataError: no correction row fits into `max_length`.
        """
        share = 0.0 if evaluation else args.reference_rows
        plain_share = min(1.0, share / (1 - share)) if share < 1 else 1.0
        correction_share = min(1.0, (1 - share) / share) if share else 1.0
        layouts = _layouts(tokenizer, examples, args)
        for example, record in pairs:
            if lot(example.id, args.seed, "correction") < correction_share:
                draft = Draft(record["tokens"], record["finished"])
                closing, cue = layouts.of(examples.arguments_of(example.arguments))
                own = draft_in_context(draft, conversational=examples.conversational, eos_token_id=closing)
                row = rac_row(example.asked, own, cue, example.reference, example.trailer)
                counts["drafts"] += 1
                counts["capped"] += not draft.finished
                counts["equal"] += draft.tokens == example.reference
                if args.max_length is None or len(row["input_ids"]) <= args.max_length:
                    start, end = len(example.asked), len(example.asked) + len(own)
                    drawn = [start <= at < end for at in range(len(row["input_ids"]))]
                    yield {"id": example.id, **row, "drawn": drawn}
                else:
                    counts["too_long"] += 1
            if lot(example.id, args.seed, "plain") < plain_share:
                counts["plain_rows"] += 1
                yield reference_row(example)
        if correction_share and counts["drafts"] == counts["too_long"]:
            raise DataError(
                f"{examples.source}: none of {counts['drafts']} correction rows fits into max_length "
                f"{args.max_length}: a row holds prompt, draft, request and answer. Raise max_length or lower "
                "max_draft_length"
            )

    @classmethod
    def logged(cls, counts: Counts) -> dict[str, float]:
        drafts = counts["drafts"]
        shares = {f"contexts/{name}_share": counts[name] / max(1, drafts) for name in ("capped", "equal", "too_long")}
        return {"contexts/drafts": drafts, **shares, "contexts/plain_rows": counts["plain_rows"]}

    @classmethod
    def warnings(cls, counts: Counts, args: RACConfig) -> list[str]:
        found = []
        for name, what in (
            ("capped", f"were cut at max_draft_length ({args.max_draft_length} tokens): raise it"),
            ("too_long", f"make a row longer than max_length ({args.max_length}) and are left out: raise it"),
        ):
            if counts[name]:
                share = f"{100 * counts[name] / counts['drafts']:.3g} %"
                found.append(f"{counts[name]} of {counts['drafts']} drafts ({share}) {what}")
        return found

    @classmethod
    def describe(cls, counts: Counts) -> str:
        return (
            f"{counts['drafts']} drafts ({counts['capped']} at the length cap, {counts['equal']} equal to the "
            f"reference, {counts['too_long']} left out because the row would be longer than max_length), "
            f"{counts['plain_rows']} plain rows"
        )


METHOD = RACTrainer


def _layouts(tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: RACConfig) -> Layouts:
    """What stands between draft and reference."""
    return Layouts(
        tokenizer,
        args.correction_prompt,
        examples.stops,
        conversational=examples.conversational,
        date=examples.date,
    )
