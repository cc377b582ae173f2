"""The RAC trainer (Cen et al. 2025, Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from ...contexts.drafts import drafted_contexts
from ...contexts.fill import Contexts
from ...decoding import Draft
from ...examples.example import ExampleSet
from ...examples.forms import require_prompts
from ...examples.lots import lot
from ...training.answer_mode import AnswerMode
from ...training.citations import CEN_2025
from ...training.hooks import Built, Pairs
from ...training.method import Method
from ...training.rows import Row, reference_row
from .config import CORRECTION_PROMPT, RACFields
from .correct import corrected_answers
from .rows import Layouts, draft_in_context, rac_row
from .stats import RACStats


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
    (prompt, own draft, request → reference). `stats` holds [`~gapbridge.methods.rac.stats.RACStats`].
    """

    _tag_names = ["trl", "rac", "gapbridge"]
    _name = "RAC"
    _paper = CEN_2025
    config_class = RACConfig
    draws = True
    stats_class = RACStats
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
    def generation_spec(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: RACConfig
    ) -> Contexts | None:
        layouts = _layouts(tokenizer, examples, args)
        for arguments in examples.table.unique("arguments"):
            layouts.of(examples.arguments_of(arguments))  # refuses a template that cannot carry a draft
        if args.reference_rows == 1:
            return None  # every row is plain
        return drafted_contexts("rac", model, tokenizer, args)

    @classmethod
    def build_rows(
        cls,
        pairs: Pairs,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: RACConfig,
        *,
        evaluation: bool = False,
    ) -> Built:
        """Correction rows, and the share `reference_rows` of plain rows beside them; in evaluation corrections alone.

        With N examples and a share s there are N·min(1, s / (1-s)) plain rows and N·min(1, (1-s) / s) correction rows,
        chosen by a hash of the ids; a share above one half leaves out correction rows.
        """
        share = 0.0 if evaluation else args.reference_rows
        plain_share = min(1.0, share / (1 - share)) if share < 1 else 1.0
        correction_share = min(1.0, (1 - share) / share) if share else 1.0
        layouts = _layouts(tokenizer, examples, args)
        for example, record in pairs:
            rows: list[Row] = []
            stats = RACStats()
            if lot(example.id, args.seed, "correction") < correction_share:
                draft = Draft(record["tokens"], record["finished"])
                closing, cue = layouts.of(examples.arguments_of(example.arguments))
                own = draft_in_context(draft, conversational=examples.conversational, eos_token_id=closing)
                row = rac_row(example.asked, own, cue, example.reference, example.trailer)
                too_long = args.max_length is not None and len(row["input_ids"]) > args.max_length
                if not too_long:
                    start, end = len(example.asked), len(example.asked) + len(own)
                    drawn = [start <= at < end for at in range(len(row["input_ids"]))]
                    rows.append({"id": example.id, **row, "drawn": drawn})
                equal = draft.tokens == example.reference
                stats = RACStats(drafts=1, capped=not draft.finished, equal=equal, too_long=too_long)
            if lot(example.id, args.seed, "plain") < plain_share:
                rows.append(reference_row(example))
                stats += RACStats(plain_rows=1)
            yield rows, stats


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
