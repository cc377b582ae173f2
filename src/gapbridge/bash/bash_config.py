"""Configuration of BASH."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..config import ExampleConfig
from ..decoding.sampling import SamplingOptions
from ..errors import ConfigError


@dataclass
class BASHConfig(ExampleConfig):
    r"""
    Configuration for [`BASHTrainer`]: everything of [`~trl.SFTConfig`], and how contexts are mixed.

    Args:
        > Parameters of the method

        mixture_coefficient (`float`, *optional*, defaults to `0.2`):
            β, the probability that a position of the context holds the model's own token. 0 is SFT.
        num_rounds (`int`, *optional*, defaults to `1`):
            How often contexts are built with the current weights and trained on. Rounds are chained by `gapbridge
            bash` or [`~gapbridge.rounds.run_rounds`]; one trainer trains one round.
        round_epochs (`list[float]`, *optional*):
            Epochs of each round: one number for all, or one per round. Defaults to `num_train_epochs` in each.
        round_index (`int`, *optional*, defaults to `1`):
            The round that this trainer trains, counted from 1. It enters the noise, so that rounds draw differently.
        eval_own_contexts (`bool`, *optional*, defaults to `True`):
            Evaluate on held-out rows with mixed contexts as well (`eval_own_loss`), beside `eval_loss` on reference
            contexts.

        > Parameters that control generation

        temperature (`float`, *optional*, defaults to `1.0`): Temperature; 0 takes the most likely token.
        top_p (`float`, *optional*, defaults to `1.0`): Nucleus sampling; 1 is off.
        top_k (`int`, *optional*, defaults to `0`): Top-k sampling; 0 is off.
        min_p (`float`, *optional*): Smallest probability relative to the most likely token.
        suppress_tokens (`list[int]`, *optional*):
            Token ids never sampled into a context. Defaults to the stop tokens, all special tokens and ids beyond the
            tokenizer's.
        generation_batch_size (`int`, *optional*, defaults to `64`): Rows in one pass. No influence on the contexts.
        lookahead (`int`, *optional*, defaults to `16`): Most tokens a row is fed in one pass. No influence on the
        contexts. shard_size (`int`, *optional*, defaults to `512`): Examples in one shard: what an interruption can
        cost.
    """

    mixture_coefficient: float = field(default=0.2, metadata={"help": "β: share of positions sampled from the model."})
    num_rounds: int = field(default=1, metadata={"help": "Rounds of building contexts and training on them."})
    round_epochs: list[float] | None = field(
        default=None, metadata={"help": "Epochs of each round: one number, or one per round."}
    )
    round_index: int = field(default=1, metadata={"help": "The round this trainer trains, counted from 1."})
    eval_own_contexts: bool = field(default=True, metadata={"help": "Evaluate on held-out mixed contexts as well."})
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature; 0 is greedy."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling; 1 is off."})
    top_k: int = field(default=0, metadata={"help": "Top-k sampling; 0 is off."})
    min_p: float | None = field(default=None, metadata={"help": "Min-p sampling; empty is off."})
    suppress_tokens: list[int] | None = field(
        default=None, metadata={"help": "Token ids never sampled into a context."}
    )
    generation_batch_size: int = field(default=64, metadata={"help": "Rows in one generation pass."})
    lookahead: int = field(default=16, metadata={"help": "Most tokens a row is fed in one generation pass."})
    shard_size: int = field(default=512, metadata={"help": "Examples in one shard of the context store."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.round_epochs, (int, float)):
            self.round_epochs = [float(self.round_epochs)]
        self.check()

    def faults(self) -> list[str]:
        faults = super().faults()
        if not 0 <= self.mixture_coefficient <= 1:
            faults.append(f"mixture_coefficient is {self.mixture_coefficient}: it must lie in [0, 1]")
        for name in ("num_rounds", "round_index", "generation_batch_size", "lookahead", "shard_size"):
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

    def epochs_of_round(self, round_index: int) -> float:
        """How many epochs round `round_index` (counted from 1) trains."""
        if self.round_epochs is None:
            return self.num_train_epochs
        return self.round_epochs[0 if len(self.round_epochs) == 1 else round_index - 1]
