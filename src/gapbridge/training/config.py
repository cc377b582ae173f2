"""What the methods share on top of TRL's `SFTConfig`: bad rows, and for some of them rounds and sampling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig

from ..decoding.sampling import SamplingOptions
from ..errors import ConfigError


@dataclass
class ExampleConfig(SFTConfig):
    """`SFTConfig` with the treatment of bad rows and an inline chat template.

    Args:
        on_bad_rows (`str`, *optional*, defaults to `"raise"`):
            What to do with rows that cannot be used: `"raise"` stops with a list of them, `"skip"` leaves them out and
            lists them.
        truncate_long_rows (`bool`, *optional*, defaults to `False`):
            Cut answers that do not fit into `max_length`, as TRL does (they lose their EOS), instead of counting them
            as bad rows.
        chat_template (`str`, *optional*):
            A chat template in Jinja, set on the tokenizer. For a file use `chat_template_path`.
    """

    on_bad_rows: str = field(
        default="raise", metadata={"help": "Rows that cannot be used: raise or skip.", "choices": ["raise", "skip"]}
    )
    truncate_long_rows: bool = field(
        default=False, metadata={"help": "Cut answers that do not fit into max_length instead of refusing the row."}
    )
    chat_template: str | None = field(
        default=None, metadata={"help": "Chat template (Jinja) to set on the tokenizer."}
    )

    def faults(self) -> list[str]:
        """Everything wrong with the values, one sentence each."""
        faults = []
        if self.on_bad_rows not in ("raise", "skip"):
            faults.append(f"on_bad_rows is {self.on_bad_rows!r}: choose raise or skip")
        if self.chat_template is not None and self.chat_template_path is not None:
            faults.append("both chat_template and chat_template_path are given: keep one")
        if self.max_length is not None and self.max_length < 2:
            faults.append(f"max_length is {self.max_length}: a row needs at least 2 tokens")
        if self.packing and self.packing_strategy == "wrapped":
            faults.append(
                "packing_strategy: wrapped lets documents attend to each other and cuts them anywhere; use bfd"
            )
        return faults

    def check(self) -> None:
        """Raise one ConfigError that lists all faults."""
        faults = self.faults()
        if faults:
            raise ConfigError(faults)


@dataclass
class SelfGenerationConfig(ExampleConfig):
    r"""What methods share that train on the model's own tokens: rounds, and how tokens are drawn.

    Args:
        num_rounds (`int`, *optional*, defaults to `1`):
            How often contexts are built with the current weights and trained on. Rounds are chained by the command
            line or by [`~gapbridge.rounds.run_rounds`]; one trainer trains one round.
        round_epochs (`list[float]`, *optional*):
            Epochs of each round: one number for all, or one per round. Defaults to `num_train_epochs` in each.
        round_index (`int`, *optional*, defaults to `1`):
            The round that this trainer trains, counted from 1. It enters the noise, so that rounds draw differently.
        eval_own_contexts (`bool`, *optional*, defaults to `True`):
            Evaluate on held-out rows with own contexts as well (`eval_own_loss`), beside `eval_loss` on references.
        temperature (`float`, *optional*, defaults to `1.0`): Temperature; 0 takes the most likely token.
        top_p (`float`, *optional*, defaults to `1.0`): Nucleus sampling; 1 is off.
        top_k (`int`, *optional*, defaults to `0`): Top-k sampling; 0 is off.
        min_p (`float`, *optional*): Smallest probability relative to the most likely token.
        generation_batch_size (`int`, *optional*, defaults to `64`): Rows in one pass. No influence on the contexts.
        shard_size (`int`, *optional*, defaults to `512`): Examples in one shard: what an interruption can cost.
    """

    num_rounds: int = field(default=1, metadata={"help": "Rounds of building contexts and training on them."})
    round_epochs: list[float] | None = field(
        default=None, metadata={"help": "Epochs of each round: one number, or one per round."}
    )
    round_index: int = field(default=1, metadata={"help": "The round this trainer trains, counted from 1."})
    eval_own_contexts: bool = field(default=True, metadata={"help": "Evaluate on held-out own contexts as well."})
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature; 0 is greedy."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling; 1 is off."})
    top_k: int = field(default=0, metadata={"help": "Top-k sampling; 0 is off."})
    min_p: float | None = field(default=None, metadata={"help": "Min-p sampling; empty is off."})
    generation_batch_size: int = field(default=64, metadata={"help": "Rows in one generation pass."})
    shard_size: int = field(default=512, metadata={"help": "Examples in one shard of the context store."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.round_epochs, (int, float)):
            self.round_epochs = [float(self.round_epochs)]
        self.check()

    def faults(self) -> list[str]:
        faults = super().faults()
        for name in ("num_rounds", "round_index", "generation_batch_size", "shard_size"):
            if getattr(self, name) < 1:
                faults.append(f"{name} is {getattr(self, name)}: it must be at least 1")
        epochs = self.round_epochs
        if epochs is not None and len(epochs) not in (1, self.num_rounds):
            faults.append(
                f"round_epochs has {len(epochs)} numbers for {self.num_rounds} rounds: give one, or one per round"
            )
        if epochs is not None and any(not number > 0 for number in epochs):
            faults.append(f"round_epochs is {epochs}: each must be larger than 0")
        try:
            self.sampling()
        except ConfigError as error:
            faults += error.faults
        return faults

    def sampling(self, suppress_tokens: tuple[int, ...] = ()) -> SamplingOptions:
        return SamplingOptions(self.temperature, self.top_k, self.top_p, self.min_p or 0.0, suppress_tokens)

    def generation_options(self) -> dict[str, Any]:
        """The options that the functions of `gapbridge.decoding` share."""
        return {
            "seed": self.seed,
            "round_index": self.round_index,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p or 0.0,
            "batch_size": self.generation_batch_size,
        }

    def epochs_of_round(self, round_index: int) -> float:
        """How many epochs round `round_index` (counted from 1) trains."""
        if self.round_epochs is None:
            return self.num_train_epochs
        return self.round_epochs[0 if len(self.round_epochs) == 1 else round_index - 1]
