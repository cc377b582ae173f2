"""What a method is: the hooks that it overrides, each with a default that is SFT's.

    setup_model         what it adds to model and tokenizer
    generation_spec     what the model generates before training
    build_rows          the rows of an example and of what was generated for it, with their counts
    trainer_arguments   what TRL's trainer gets besides
    eval_sets           which held-out rows are made and evaluated
    answer_modes        what evaluation offers besides single-pass answers

The others are for rows, data or a loss of another kind than SFT's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from datasets import Dataset, Features
from peft import PeftConfig, PeftModel
from rich.text import Text
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.example import Example, ExampleSet
from ..data.special_tokens import stop_tokens
from ..data.tokenization import build_examples
from ..errors import describe
from ..store.generate_shards import GenerationSpec
from .arguments import EVAL, EVAL_GENERATED
from .config import GenerationArgs, RoundArgs
from .decoding_mode import DecodingMode
from .rows import ROW_FEATURES, Row, sft_row, show_row
from .stats import GenerationStats


ExamplesWithGenerations = Iterable[tuple[Example, dict[str, Any]]]  # examples, each with what was generated for it
RowsWithStats = Iterable[tuple[list[Row], GenerationStats]]  # of each example its rows, and their counts
_TIMES = ("runtime", "samples_per_second", "steps_per_second")


def tokenization_arguments(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None, args: Any, max_length: int | None
) -> dict[str, Any]:
    """The arguments that `build_examples` and `build_preferences` share, as a configuration has them."""
    return {
        "stops": stop_tokens(tokenizer, model),
        "max_length": max_length,
        "on_invalid_example": args.on_invalid_example,
        "truncate_overlong": args.truncate_overlong and max_length is not None,
        "num_proc": args.dataset_num_proc,
        "date": args.chat_template_date,
        "chat_template_kwargs": args.chat_template_kwargs,
    }


class MethodHooks:
    """The options and functions of a method that are known without a trainer."""

    config_class: ClassVar[type[Any]]
    data_format: ClassVar[Literal["answers", "preferences"]] = "answers"  # what its data hold
    generates_contexts: ClassVar[bool] = False  # before training: then every process needs whole weights
    stats_class: ClassVar[type[GenerationStats]] = GenerationStats  # what `build_rows` counts
    answer_modes: ClassVar[dict[str, DecodingMode]] = {}
    # The options with which it is its base: SFT, or with pairs no update.
    sft_equivalent_config: ClassVar[dict[str, Any]] = {}
    row_features: ClassVar[Features] = ROW_FEATURES  # SFT's, or what another trainer takes
    example_set: ClassVar[type[ExampleSet]] = ExampleSet  # the class of what `read` returns
    sft_row = staticmethod(sft_row)  # the row of an example for which nothing is generated

    @classmethod
    def setup_model(cls, model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase, args: Any) -> None:
        """What a method adds to model and tokenizer before any text is tokenised. A second time it adds nothing."""

    @classmethod
    def generation_spec(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: Any
    ) -> GenerationSpec | None:
        """What is generated before training, or None.

        Raises:
            GapbridgeError: examples cannot become rows.
        """
        return None

    @classmethod
    def build_rows(
        cls,
        pairs: ExamplesWithGenerations,
        examples: ExampleSet,
        tokenizer: PreTrainedTokenizerBase,
        args: Any,
        *,
        evaluation: bool = False,
    ) -> RowsWithStats:
        """Of each example its rows, with their counts; `evaluation`: those of held-out examples.

        It may look at its arguments and at nothing else: rows are found again by a hash of these.
        """
        return (([cls.sft_row(example)], cls.stats_class()) for example, _ in pairs)

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
        """The held-out rows that are evaluated: with reference contexts (`eval`), with generated ones
        (`eval_generated`)."""
        own = cls.generates_contexts and isinstance(args, GenerationArgs) and args.eval_on_generated_contexts
        return (EVAL, EVAL_GENERATED) if own else (EVAL,)

    @classmethod
    def load_examples(
        cls,
        dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel | None,
        args: Any,
        source: str,
        *,
        max_length: int | None,
        train_on_assistant_turns: str | None = None,
    ) -> ExampleSet:
        """The examples of a data set. It may look at its arguments and at nothing else.

        Args:
            train_on_assistant_turns: as the configuration says where it is None. Else rows are asked rather than
                trained, and have a prompt wherever their form has one.
        """
        return build_examples(
            dataset,
            tokenizer,
            source=source,
            **tokenization_arguments(tokenizer, model, args, max_length),
            train_on_assistant_turns=args.train_on_assistant_turns
            if train_on_assistant_turns is None
            else train_on_assistant_turns,
            text_field=args.dataset_text_field,
            assistant_only_loss=args.assistant_only_loss or train_on_assistant_turns is not None,
            completion_only_loss=args.completion_only_loss or train_on_assistant_turns is not None,
        )

    @classmethod
    def argument_errors(cls, args: Any, given: dict[str, Any]) -> list[str]:
        """What is wrong with a configuration, and with what is `given` to the constructor besides."""
        errors: list[str] = args.errors()
        if isinstance(args, RoundArgs) and args.num_rounds > 1:
            got = f"{args.num_rounds} for one trainer, which trains one round"
            advice = "Use the command line or gapbridge.runs.rounds.run_rounds, which chain rounds"
            errors.append(describe("num_rounds", got, "1", advice))
        return errors

    @classmethod
    def evaluated_names(cls, args: Any, names: Iterable[str] | None = None, *, experts: bool = False) -> list[str]:
        """The metrics that `evaluate()` returns for the constructor's data sets, without their `eval_`.

        Args:
            names: of the held-out data sets, where they have names.
            experts: whether the model has a loss that balances its experts.
        """
        figures = (*cls.figures_of(args), "aux_loss") if experts else cls.figures_of(args)
        found = [*figures]  # which TRL names alike for each data set
        for prefix in [""] if names is None else [f"{name}_" for name in names]:
            found += [f"{prefix}{name}" for name in ("loss", *_TIMES)]
            if {EVAL, EVAL_GENERATED} <= set(cls.eval_sets(args)):
                found += [f"{prefix}generated_{name}" for name in ("loss", *_TIMES, *figures)]
        return found

    @classmethod
    def figures_of(cls, args: Any) -> tuple[str, ...]:
        """What TRL's trainer logs of an evaluation besides its loss."""
        return ("entropy", "mean_token_accuracy", "num_tokens")

    @classmethod
    def refused_configs(cls, args: Any, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, ...]:
        """Names of the accelerate configurations under which this refuses to train.

        Args:
            tokenizer: the model's own, as it is loaded; None where it is not at hand.
        """
        return ()

    @classmethod
    def trained_columns(cls) -> list[str]:
        """The columns of a row that TRL's trainer gets."""
        return [name for name in cls.row_features if name not in ("id", "sampled")]

    @classmethod
    def requires_eager_rows(cls, args: Any) -> bool:
        """Whether the constructor of TRL's trainer works on all rows; nothing can be generated for them then."""
        return False

    @classmethod
    def forward_equivalents_per_token(cls, args: Any) -> float:
        """Forward passes that a token of a row costs in a training step, the backward pass counted as two of them."""
        return 3.0

    @classmethod
    def shown_sequences(cls, row: Row) -> list[Row]:
        """The sequences of a row that is shown, each as a row of its own."""
        return [row]

    @classmethod
    def render_row(cls, row: Row, tokenizer: PreTrainedTokenizerBase) -> Text:
        """A row as it is trained."""
        return Text().join(show_row(each, tokenizer) for each in cls.shown_sequences(row))
