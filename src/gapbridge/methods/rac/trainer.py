"""The RAC trainer (Cen et al. 2025, Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from ...data.example import ExampleSet
from ...data.formats import require_prompts
from ...data.hash_sampling import hash_uniform
from ...decoding import Completion
from ...store.generate_shards import GenerationSpec
from ...store.training_completions import completion_spec
from ...training.citations import CEN_2025
from ...training.decoding_mode import DecodingMode
from ...training.hooks import ExamplesWithGenerations, RowsWithStats
from ...training.method import GapTrainerMixin
from ...training.rows import Row, sft_row
from .config import CORRECTION_PROMPT, RACArgs
from .correct import corrected_answers
from .rows import CorrectionTemplates, rac_row
from .stats import RACStats


@dataclass
class RACConfig(RACArgs, SFTConfig):
    """Configuration for [`RACTrainer`]: everything of [`~trl.SFTConfig`], and the keys of
    [`~gapbridge.methods.rac.config.RACArgs`]."""


def _mode_settings(args: Any) -> dict[str, Any]:
    return {"correction_prompt": args.correction_prompt if isinstance(args, RACConfig) else CORRECTION_PROMPT}


class RACTrainer(GapTrainerMixin, SFTTrainer):
    """
    Trainer for reference-answer-based correction (RAC): the model answers by itself, and learns to get from its own
    answer to the reference answer.

    It takes what [`~trl.SFTTrainer`] takes, with a [`RACConfig`]; see [`~gapbridge.training.method.GapTrainerMixin`]
    for the arguments. `eval_loss` is the loss of the first answer (prompt → reference), `eval_generated_loss` that of
    the correction (prompt, generated completion, request → reference). `stats` holds
    [`~gapbridge.methods.rac.stats.RACStats`].
    """

    _tag_names = ["trl", "rac", "gapbridge"]
    _name = "RAC"
    _paper = CEN_2025
    config_class = RACConfig
    generates_contexts = True
    stats_class = RACStats
    sft_equivalent_config = {"sft_fraction": 1.0}
    answer_modes = {
        "self_correct": DecodingMode(
            help="the answer that follows the model's first one and the request for a correction",
            options={"correction_prompt": "the request for a correction; default: the recipe's, or RAC's"},
            settings=_mode_settings,
            answer=corrected_answers,
        )
    }

    @classmethod
    def load_examples(cls, dataset: Dataset, *args: Any, **kwargs: Any) -> ExampleSet:
        """As in `GapTrainerMixin`, one example a trained turn: each is answered, and corrected, by itself."""
        examples = super().load_examples(dataset, *args, **kwargs)
        require_prompts(examples, "RAC generates a completion of each prompt")
        return examples.split_turns(examples.stops)

    @classmethod
    def generation_spec(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: RACConfig
    ) -> GenerationSpec | None:
        layouts = _templates(tokenizer, args, examples)
        for arguments in examples.table.unique("template_kwargs_json"):
            layouts.of(examples.arguments_of(arguments))  # refuses a template that cannot carry a completion
        if args.sft_fraction == 1:
            return None  # every row is plain
        return completion_spec("rac", model, tokenizer, args)

    @classmethod
    def build_rows(
        cls,
        pairs: ExamplesWithGenerations,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: RACConfig,
        *,
        evaluation: bool = False,
    ) -> RowsWithStats:
        """Correction rows, and the share `sft_fraction` of plain rows beside them; in evaluation corrections alone.

        With N examples and a share s there are N·min(1, s / (1-s)) plain rows and N·min(1, (1-s) / s) correction rows,
        chosen by a hash of the ids; a share above one half leaves out correction rows.
        """
        share = 0.0 if evaluation else args.sft_fraction
        plain_share = min(1.0, share / (1 - share)) if share < 1 else 1.0
        correction_share = min(1.0, (1 - share) / share) if share else 1.0
        layouts = _templates(tokenizer, args, examples)
        for example, record in pairs:
            rows: list[Row] = []
            stats = RACStats()
            if hash_uniform(example.id, args.seed, "correction") < correction_share:
                completion = Completion(record["tokens"], record["finished"])
                arguments = examples.arguments_of(example.template_kwargs_json)
                own, cue = layouts.completion_and_cue(completion, arguments)
                row = rac_row(
                    example.generation_prompt_ids, own, cue, example.completion_ids, example.template_suffix_ids
                )
                too_long = args.max_length is not None and len(row["input_ids"]) > args.max_length
                if not too_long:
                    start, end = len(example.generation_prompt_ids), len(example.generation_prompt_ids) + len(own)
                    sampled = [start <= at < end for at in range(len(row["input_ids"]))]
                    rows.append({"id": example.id, **row, "sampled": sampled})
                equal = completion.tokens == example.completion_ids
                stats = RACStats(
                    completions=1, truncated=not completion.finished, exact_match=equal, dropped_overlong=too_long
                )
            if hash_uniform(example.id, args.seed, "plain") < plain_share:
                rows.append(sft_row(example))
                stats += RACStats(sft_rows=1)
            yield rows, stats


METHOD = RACTrainer


def _templates(tokenizer: PreTrainedTokenizerBase, args: RACConfig, examples: ExampleSet) -> CorrectionTemplates:
    return CorrectionTemplates(
        tokenizer, args.correction_prompt, examples.stops, examples.conversational, examples.date
    )
