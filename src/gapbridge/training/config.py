"""Field mixins: what the methods' configurations share. They stand before TRL's configuration of a method's trainer:
`class BASHConfig(BASHArgs, SFTConfig)`. Free of torch, so that `gapbridge METHOD --help` answers at once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar

from ..compat import Defaults, label_support_errors, normalize_warmup_args, pair_support_errors
from ..decoding.sampling_params import SamplingParams
from ..errors import ConfigError, as_config_error, describe
from ..recipe.secrets import redact


if TYPE_CHECKING:
    from trl import SFTConfig as _Behind  # whose fields the mixins may read
else:
    _Behind = object


# Settings that change neither data nor weights: a run may be continued with other values.
RUNTIME_ONLY_KEYS = frozenset(
    """
    output_dir run_name report_to logging_dir logging_steps logging_strategy logging_first_step log_level
    log_level_replica disable_tqdm push_to_hub hub_model_id hub_strategy hub_private_repo hub_revision hub_token
    hub_always_push resume_from_checkpoint save_total_limit dataset_num_proc dataloader_num_workers
    dataloader_pin_memory dataloader_prefetch_factor ddp_timeout project trackio_space_id
    """.split()
)


def option(default: Any, help_text: str, *, choices: Sequence[str] | None = None) -> Any:
    """The field of a key, with its help on the command line and in the docs, and its choices where it has some."""
    return field(default=default, metadata={"help": help_text} | ({"choices": [*choices]} if choices else {}))


@dataclass
class BaseArgs(Defaults, _Behind):
    """The base of the mixins: each one's `own_errors` are collected, and raised together when all is set.

    `RUNTIME_ONLY` names keys of a mixin that change neither data nor weights: a run may be continued with other
    values. `RANGES` has the lowest and the highest value of keys that may not be any number; None: no limit.

    With `save_merged_model` the adapter is kept beside the final model in the folder `adapter`; checkpoints and
    earlier rounds hold the adapter alone.
    """

    RUNTIME_ONLY: ClassVar[frozenset[str]] = frozenset()
    RANGES: ClassVar[Mapping[str, tuple[float, float | None]]] = {
        "per_device_train_batch_size": (1, None), "per_device_eval_batch_size": (1, None),
        "gradient_accumulation_steps": (1, None),
    }  # fmt: skip

    save_merged_model: bool = option(False, "Merge the trained adapter into its base model and save the full model.")

    def __post_init__(self) -> None:
        normalize_warmup_args(self)
        with as_config_error():
            super().__post_init__()
        if errors := self.errors():
            raise ConfigError(errors)

    @property
    def splits_rows(self) -> bool:
        """Whether context or sequence parallelism splits a row between processes."""
        parallel = self.parallelism_config
        return parallel is not None and (parallel.cp_enabled or parallel.sp_enabled)

    def __getstate__(self) -> dict[str, Any]:
        return redact(vars(self)).keys  # `training_args.bin` goes wherever the model goes

    def errors(self) -> list[str]:
        """Everything wrong with the values, one sentence each."""
        errors = []
        for kind in reversed(type(self).__mro__):
            if not issubclass(kind, BaseArgs):
                continue
            for name in inspect.get_annotations(kind):
                choices, value = self.__dataclass_fields__[name].metadata.get("choices"), vars(self).get(name)
                if choices and value not in choices:
                    errors.append(describe(name, repr(value), f"one of {', '.join(choices)}", "Choose one of them"))
            for name, (low, high) in vars(kind).get("RANGES", {}).items():
                value = vars(self)[name]
                if value is not None and not low <= value <= (math.inf if high is None else high):
                    expected = f"at least {low}" if high is None else f"a number from {low} to {high}"
                    errors.append(describe(name, value, expected, "Correct the value"))
            if "own_errors" in vars(kind):
                errors += kind.own_errors(self)
        return errors

    def own_errors(self) -> list[str]:
        """What is wrong with the keys of this class, ranges and choices aside. Each mixin may have one of its own."""
        errors = []
        if self.max_steps == 0:
            got = "0, which transformers takes for no limit"
            errors.append(describe("max_steps", got, "a number of steps", "Correct or remove the key"))
        elif self.max_steps < 0 and not self.num_train_epochs > 0:
            errors.append(describe("num_train_epochs", self.num_train_epochs, "a number above 0", "Correct the value"))
        if self.enable_jit_checkpoint:
            got = "true, although a signal saves a complete checkpoint in any case"
            errors.append(describe("enable_jit_checkpoint", got, "false", "Remove the key"))
        return errors

    @contextmanager
    def implied_defaults(self) -> Iterator[None]:
        """While TRL's trainer is constructed: what the method does by itself is taken back."""
        yield

    @classmethod
    def runtime_only_keys(cls) -> set[str]:
        """The `FREE` keys of all its mixins."""
        return {name for kind in cls.__mro__ if issubclass(kind, BaseArgs) for name in kind.RUNTIME_ONLY}


@dataclass
class TokenizationArgs(BaseArgs):
    """How text becomes tokens, before any of TRL's configurations.

    With `truncate_overlong` rows that have nothing left to learn are left out; a warning counts both.
    """

    on_invalid_example: str = option(
        "raise",
        "Action for invalid examples: raise an error that lists them, or skip them.",
        choices=["raise", "skip"],
    )
    truncate_overlong: bool = option(
        True, "Truncate examples to max_length, as TRL does; false counts them as invalid."
    )
    chat_template: str | None = option(None, "Chat template (Jinja) for the tokenizer.")
    chat_template_kwargs: dict[str, Any] | None = option(
        None, "Arguments for the chat template, such as {enable_thinking: false}."
    )
    train_on_assistant_turns: str = option(
        "all", "Assistant turns of `messages` that carry loss: all, or the last one.", choices=["all", "last"]
    )
    chat_template_date: str | None = option(
        None, "Date (YYYY-MM-DD) for chat templates that print it; default: the day the run began."
    )

    def row_limit(self, part: str = "train") -> int | None:
        """The most tokens of a row in a part, `train` or `eval`: packing may split longer ones, and loses nothing."""
        return self.max_length

    def own_errors(self) -> list[str]:
        day, length = self.chat_template_date, self.max_length
        cases = (
            (day is not None and not _is_day(day), "chat_template_date", repr(day), "a day as YYYY-MM-DD",
             "Correct the day"),
            (self.chat_template is not None and self.chat_template_path is not None, "chat_template",
             "a value beside chat_template_path", "one of them", "Keep one of the keys"),
            (length is not None and length < 2, "max_length", length, "at least 2 tokens", "Increase the value"),
        )  # fmt: skip
        return [describe(key, got, wanted, advice) for holds, key, got, wanted, advice in cases if holds]


@dataclass
class LossScopeArgs(TokenizationArgs):
    """Which tokens carry loss, under TRL's names and with this package's defaults, which are not TRL's.

    Of rows of ids `completion_only_loss` trains what `completion_mask` marks.
    """

    assistant_only_loss: bool = option(
        True, "Compute the loss on assistant turns only; false: on the full conversation."
    )
    completion_only_loss: bool = option(True, "Compute the loss on completions only; false: on prompts as well.")

    @property
    def trains_whole_rows(self) -> bool:
        """Whether some form of data is trained from the first token of a row on, for it was asked for."""
        return not self.assistant_only_loss or not self.completion_only_loss

    @contextmanager
    def implied_defaults(self) -> Iterator[None]:
        # Rows have their labels: TRL would look for turns in rows of ids.
        asked = self.assistant_only_loss, self.completion_only_loss
        self.assistant_only_loss = self.completion_only_loss = False
        try:
            yield
        finally:
            self.assistant_only_loss, self.completion_only_loss = asked


@dataclass
class DataArgs(LossScopeArgs):
    """How rows of data become examples, before TRL's `SFTConfig`: [`LossScopeArgs`], and what of TRL's is taken."""

    wraps_rows: ClassVar[bool] = True  # whether rows may be cut anywhere, as `packing_strategy: wrapped` does

    def row_limit(self, part: str = "train") -> int | None:
        packs = self.packing if part == "train" or self.eval_packing is None else self.eval_packing
        return None if packs and self.packing_strategy in ("wrapped", "bfd_split") else self.max_length

    def own_errors(self) -> list[str]:
        # What rows of ids would leave without effect, and what goes wrong in TRL's preparation of them.
        given = dict(self.dataset_kwargs or {})
        skips = bool(given.pop("skip_prepare_dataset", False))
        wraps = (self.packing or self.eval_packing) and self.packing_strategy == "wrapped"
        unlimited = self.max_length is None
        cases = (
            (not self.assistant_only_loss and self.train_on_assistant_turns == "last", "assistant_only_loss",
             "false with train_on_assistant_turns: last",
             "one of them, since false trains complete conversations", "Keep one of the keys"),
            (skips, "dataset_kwargs, skip_prepare_dataset", "true", "false, since the method prepares the data",
             "Remove the key"),
            (self.truncation_mode != "keep_start", "truncation_mode", repr(self.truncation_mode),
             "keep_start, since prompts are never truncated", "Remove the key"),
            (wraps and not self.wraps_rows, "packing_strategy",
             "wrapped, which splits rows between prompt and completion", "bfd", "Set packing_strategy: bfd"),
            (self.packing and unlimited, "packing", "true without max_length",
             "max_length, the length of a packed row", "Set max_length"),
            (self.padding_free and not self.packing and not unlimited, "padding_free",
             f"true with max_length {self.max_length}", "packing, or no max_length, as in TRL",
             "Set packing: true, or remove max_length"),
            (self.activation_offloading and self.device.type == "cpu", "activation_offloading", "true on the CPU",
             "a GPU", "Remove the key"),
        )  # fmt: skip
        found = [describe(key, got, wanted, advice) for holds, key, got, wanted, advice in cases if holds]
        for key in given:
            got = "a key that TRL does not have"
            found.append(describe(f"dataset_kwargs, {key}", got, "skip_prepare_dataset", "Remove the key"))
        return found + label_support_errors(self)


@dataclass
class PreferenceArgs(TokenizationArgs):
    """How rows of data become pairs of answers, before TRL's `DPOConfig`: [`TokenizationArgs`], and what only
    `SFTConfig` has of the tokenizer's keys.
    """

    dataset_text_field: ClassVar[str] = "text"
    assistant_only_loss: ClassVar[bool] = True
    completion_only_loss: ClassVar[bool] = True

    eos_token: str | None = option(None, "Token that ends a completion; default: the tokenizer's.")
    chat_template_path: str | None = option(None, "Model, or .jinja file, from which the chat template is copied.")

    def __post_init__(self) -> None:
        if errors := pair_support_errors():
            raise ConfigError(errors)
        super().__post_init__()


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except (ValueError, TypeError):
        return False


@dataclass
class RoundArgs(BaseArgs):
    """Rounds: contexts are built with the current weights and trained on, again and again.

    Rounds are chained by the command line or by [`~gapbridge.runs.rounds.run_rounds`]; one trainer trains one round.
    `round_index` enters the noise, so that rounds generate differently.
    """

    RANGES = {"num_rounds": (1, None), "round_index": (1, None)}

    num_rounds: int = option(
        1, "Number of rounds; each generates contexts with the current weights and trains on them."
    )
    num_epochs_per_round: list[float] | None = option(
        None, "Number of epochs of each round: one number, or a list with one for each; default: num_train_epochs."
    )
    round_index: int = option(1, "Number of the round that this trainer trains, from 1; the command line sets it.")

    def __post_init__(self) -> None:
        if isinstance(self.num_epochs_per_round, (int, float)):
            self.num_epochs_per_round = [float(self.num_epochs_per_round)]
        super().__post_init__()

    def own_errors(self) -> list[str]:
        epochs = [1.0] if self.num_epochs_per_round is None else self.num_epochs_per_round
        got, expected = f"{len(epochs)} numbers for {self.num_rounds} rounds", "one number, or one for each round"
        errors: list[str] = []
        if self.num_epochs_per_round is not None and len(epochs) not in (1, self.num_rounds):
            errors.append(describe("num_epochs_per_round", got, expected, "Correct the list"))
        if any(not number > 0 for number in epochs):
            errors.append(describe("num_epochs_per_round", epochs, "numbers above 0", "Correct the list"))
        return errors

    def num_epochs_of_round(self, round_index: int) -> float:
        """How many epochs round `round_index` (counted from 1) trains."""
        if self.num_epochs_per_round is None:
            return float(self.num_train_epochs)
        return self.num_epochs_per_round[0 if len(self.num_epochs_per_round) == 1 else round_index - 1]


@dataclass
class SamplingArgs(BaseArgs):
    """How a token is sampled; names and defaults are TRL's where it has them."""

    temperature: float = option(1.0, "Sampling temperature; 0 is greedy.")
    top_p: float = option(1.0, "Cumulative probability (0-1) of nucleus sampling; 1 is off.")
    top_k: int = option(0, "Number of tokens of top-k sampling; 0 is off.")
    min_p: float | None = option(None, "Minimum probability (0-1) relative to the most likely token; default: off.")

    def sampling_params(self, suppress_tokens: tuple[int, ...] = (), **more: Any) -> SamplingParams:
        """How tokens are sampled; `more` are further fields of `SamplingParams`."""
        return SamplingParams(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p or 0.0,
            suppress_tokens=suppress_tokens,
            seed=self.seed,
            **more,
        )


@dataclass
class GenerationArgs(SamplingArgs, RoundArgs):
    """How tokens are sampled before a round is trained.

    The cache of a pass has room for its rows times the longest of them, prompt and answer together. A shard is what an
    interruption can cost a process: as large as in the contexts that are there, or else 512 examples for one process
    and up to eight shards for each of several.
    """

    RUNTIME_ONLY = frozenset({"generation_batch_size", "generation_max_batch_tokens"})
    RANGES = dict.fromkeys(
        ("generation_batch_size", "generation_max_batch_tokens", "generation_shard_size"), (1, None)
    )

    eval_on_generated_contexts: bool = option(
        True, "Also evaluate on generated contexts of the evaluation data (eval_generated_loss)."
    )
    eval_on_start: bool = option(True, "Evaluate before the first step if there are evaluation data.")
    generation_batch_size: int = option(64, "Number of rows in one generation batch; changes the speed only.")
    generation_max_batch_tokens: int | None = option(
        None, "Maximum number of tokens of a generation batch (rows x longest row); default: no limit."
    )
    generation_shard_size: int | None = option(
        None, "Number of examples in one shard of generated contexts; default: 512 with one process."
    )

    def own_errors(self) -> list[str]:
        errors: list[str] = []
        tokens = self.generation_max_batch_tokens
        if self.generation_batch_size >= 1 and (tokens is None or tokens >= 1):  # which it calls by other names
            try:
                self.sampling_params()
            except ConfigError as error:
                errors += error.errors
        return errors

    def sampling_params(self, suppress_tokens: tuple[int, ...] = (), **more: Any) -> SamplingParams:
        """How this round generates; `more` are further fields of `SamplingParams`."""
        batch_size, batch_tokens = self.generation_batch_size, self.generation_max_batch_tokens
        return super().sampling_params(
            suppress_tokens, round_index=self.round_index, batch_size=batch_size, batch_tokens=batch_tokens, **more
        )
