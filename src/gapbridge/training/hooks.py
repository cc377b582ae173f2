"""What a method is: the hooks that it overrides, each with a default that is SFT's.

    setup_model         what it adds to model and tokenizer
    generation_spec     what the model generates before training
    build_rows          the rows of an example and of what was generated for it, with their counts
    trainer_arguments   what TRL's trainer gets besides
    eval_sets           which held-out rows are made and evaluated
    answer_modes        what evaluation offers besides direct answers

The others are for rows, data or a loss of another kind than SFT's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from datasets import Dataset, Features
from peft import PeftConfig, PeftModel
from rich.text import Text
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..contexts.fill import Contexts
from ..examples.build import build_examples
from ..examples.example import Example, ExampleSet
from ..examples.tokens import stop_tokens
from .answer_mode import AnswerMode
from .arguments import EVAL, EVAL_OWN
from .config import DrawFields, RoundFields
from .rows import ROW_FEATURES, Row, reference_row, show_row
from .stats import GenerationStats


Pairs = Iterable[tuple[Example, dict[str, Any]]]  # examples, each with what was generated for it
Built = Iterable[tuple[list[Row], GenerationStats]]  # of each example its rows, and their counts


class MethodHooks:
    """The options and functions of a method that are known without a trainer."""

    config_class: ClassVar[type[Any]]
    learns_from: ClassVar[Literal["answers", "preferences"]] = "answers"  # what its data hold
    draws: ClassVar[bool] = False  # whether it generates before training: then every process needs whole weights
    stats_class: ClassVar[type[GenerationStats]] = GenerationStats  # what `build_rows` counts
    answer_modes: ClassVar[dict[str, AnswerMode]] = {}
    degenerate: ClassVar[dict[str, Any]] = {}  # the options with which it is its base: SFT, or with pairs no update
    row_features: ClassVar[Features] = ROW_FEATURES  # SFT's, or what another trainer takes
    example_set: ClassVar[type[ExampleSet]] = ExampleSet  # the class of what `read` returns

    @classmethod
    def setup_model(cls, model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase, args: Any) -> None:
        """What a method adds to model and tokenizer before any text is tokenised. A second time it adds nothing."""

    @classmethod
    def generation_spec(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: Any
    ) -> Contexts | None:
        """What is generated before training, or None.

        Raises:
            GapbridgeError: examples cannot become rows.
        """
        return None

    @classmethod
    def build_rows(
        cls,
        pairs: Pairs,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: Any,
        *,
        evaluation: bool = False,
    ) -> Built:
        """Of each example its rows, with their counts; `evaluation`: those of held-out examples.

        It may look at its arguments and at nothing else: rows are found again by a hash of these.
        """
        return (([cls.plain_row(example)], cls.stats_class()) for example, _ in pairs)

    @classmethod
    def trainer_arguments(
        cls,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        args: Any,
        peft_config: PeftConfig | None,
    ) -> dict[str, Any]:
        """What TRL's trainer gets besides; the caller's own arguments win."""
        return {}

    @classmethod
    def eval_sets(cls, args: Any) -> tuple[str, ...]:
        """The held-out rows that are evaluated: with reference contexts (`eval`), with own ones (`eval_own`)."""
        own = cls.draws and isinstance(args, DrawFields) and args.eval_own_contexts
        return (EVAL, EVAL_OWN) if own else (EVAL,)

    @classmethod
    def read(
        cls,
        dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel | None,
        args: Any,
        source: str,
        *,
        max_length: int | None,
        assistant_turns: str | None = None,
    ) -> ExampleSet:
        """The examples of a data set. It may look at its arguments and at nothing else.

        Args:
            assistant_turns: as the configuration says where it is None. Else rows are asked rather than trained, and
                have a prompt wherever their form has one.
        """
        return build_examples(
            dataset,
            tokenizer,
            stops=stop_tokens(tokenizer, model),
            max_length=max_length,
            on_bad_rows=args.on_bad_rows,
            truncate_long_rows=args.truncate_long_rows and max_length is not None,
            num_proc=args.dataset_num_proc,
            source=source,
            assistant_turns=args.assistant_turns if assistant_turns is None else assistant_turns,
            date=args.template_date,
            chat_template_kwargs=args.chat_template_kwargs,
            text_field=args.dataset_text_field,
            assistant_only_loss=args.assistant_only_loss or assistant_turns is not None,
            completion_only_loss=args.completion_only_loss or assistant_turns is not None,
        )

    @classmethod
    def argument_faults(cls, args: Any, given: dict[str, Any]) -> list[str]:
        """What is wrong with a configuration, and with what is `given` to the constructor besides."""
        faults: list[str] = args.faults()
        if isinstance(args, RoundFields) and args.num_rounds > 1:
            faults.append(
                f"num_rounds is {args.num_rounds}, but one trainer trains one round: use the command line or "
                "gapbridge.runs.rounds.run_rounds, which chain them"
            )
        return faults

    @classmethod
    def plain_row(cls, example: Any) -> Row:
        """The row of an example for which nothing is generated."""
        return reference_row(example)

    @classmethod
    def trained_columns(cls) -> list[str]:
        """The columns of a row that TRL's trainer gets."""
        return [name for name in cls.row_features if name not in ("id", "drawn")]

    @classmethod
    def reads_rows_at_once(cls, args: Any) -> bool:
        """Whether the constructor of TRL's trainer works on all rows; nothing can be generated for them then."""
        return False

    @classmethod
    def step_passes(cls, args: Any) -> float:
        """Forward passes that a token of a row costs in a training step, the backward pass counted as two of them."""
        return 3.0

    @classmethod
    def shown_sequences(cls, row: Row) -> list[Row]:
        """The sequences of a row that is shown, each as a row of its own."""
        return [row]

    @classmethod
    def show(cls, row: Row, tokenizer: PreTrainedTokenizerBase) -> Text:
        """A row as it is trained."""
        return Text().join(show_row(each, tokenizer) for each in cls.shown_sequences(row))
