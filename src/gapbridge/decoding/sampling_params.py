"""How tokens are sampled. Free of torch, so that recipes are checked without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError, describe


@dataclass(frozen=True)
class SamplingParams:
    """What decides a sample beside model and context, and how many rows and tokens go into one pass.

    Args:
        temperature: 0 takes the most likely token.
        top_k, top_p, min_p: as in TRL; 0, 1 and 0 switch them off.
        suppress_tokens: ids that are never sampled; the probabilities of the others are rescaled to one.
        seed, round_index: with an example's id they fix its noise.
        batch_size: rows in one pass.
        batch_tokens: the most tokens that the cache of a pass has room for: rows times the longest of them; one row
            always goes. None sets no limit.
        verify_window: the most tokens that a row is fed in one pass of `mix_contexts`.

    The last three change memory and speed, not the tokens (up to floating-point ties).

    Raises:
        ConfigError: a value lies outside its range; all errors are listed.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    suppress_tokens: Sequence[int] = ()
    seed: int = 0
    round_index: int = 0
    batch_size: int = 64
    batch_tokens: int | None = None
    verify_window: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "suppress_tokens", tuple(self.suppress_tokens))
        ranges = (
            (self.temperature >= 0, "temperature", "at least 0, where 0 is greedy"),
            (self.top_k >= 0, "top_k", "at least 0, where 0 means off"),
            (0 < self.top_p <= 1, "top_p", "a number above 0 and up to 1, where 1 means off"),
            (0 <= self.min_p <= 1, "min_p", "a number from 0 to 1, where 0 means off"),
            (self.batch_size >= 1, "batch_size", "at least 1"),
            (self.verify_window >= 1, "verify_window", "at least 1"),
            (self.batch_tokens is None or self.batch_tokens >= 1, "batch_tokens", "at least 1, or None for no limit"),
        )
        wrong = [(name, expected) for holds, name, expected in ranges if not holds]
        if wrong:
            raise ConfigError(
                [describe(name, vars(self)[name], expected, "Correct the value") for name, expected in wrong]
            )

    def without(self, tokens: Sequence[int]) -> SamplingParams:
        """The same options, with which these ids are never sampled either."""
        return replace(self, suppress_tokens=tuple(dict.fromkeys([*self.suppress_tokens, *tokens])))


def vllm_errors(temperature: float, top_p: float, min_p: float | None) -> list[str]:
    """Why vLLM would not sample as this package does with these options."""
    errors = []
    if temperature != 0 and not 0.01 <= temperature <= 2:
        expected, advice = "0 (greedy) or 0.01 to 2 with vLLM", "Change it, or remove use_vllm"
        errors.append(describe("temperature", temperature, expected, advice))
    if temperature and min_p and top_p < 1:
        got, expected = (
            f"{min_p} and {top_p} with vLLM, which applies min_p first",
            "one of them: here min_p is last",
        )
        errors.append(describe("min_p and top_p", got, expected, "Keep one of them, or remove use_vllm"))
    return errors


def resolve_sampling_params(
    options: SamplingParams | None, draw: dict[str, Any], errors: Sequence[str] = ()
) -> SamplingParams:
    """The options given, or those that the keywords `draw` make.

    Raises:
        ConfigError: both are given, a keyword lies outside its range, or there are other `errors` to report with them.
        TypeError: a keyword is no field of `SamplingParams`.
    """
    found = list(errors)
    if options is not None and draw:
        found.append(f"options and {', '.join(draw)} are both given: put the latter into the options")
    try:
        options = options or SamplingParams(**draw)
    except ConfigError as error:
        found += error.errors
    if found or options is None:
        raise ConfigError(found)
    return options
