"""RAC rows (Cen et al. 2025, Algorithm 2): x ⊕ ŷ ⊕ cue ⊕ y, the loss on y alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from ...data.chat_template import ChatTemplate
from ...data.pauses import pauses_after_prompt
from ...data.special_tokens import UndecodableTokens, completion_end, special_token_ids
from ...decoding import Completion
from ...errors import ConfigError, DataError, describe
from ...training.rows import masked_row


def rac_row(
    x: Sequence[int], y_hat: Sequence[int], cue: Sequence[int], y: Sequence[int], trailer: Sequence[int] = ()
) -> dict[str, list[int]]:
    """The row whose loss is -Σ_t log π(y_t | x, ŷ, cue, y_<t): `input_ids` = x ⊕ ŷ ⊕ cue ⊕ y ⊕ trailer, `labels` the
    same with -100 before y.

    Args:
        x: prompt. y_hat: the model's completion as it stands in the context. y: reference, ending with a stop token.
        cue: the correction request with all that the chat template puts around it.
        trailer: what the template puts after y.
    """
    return masked_row([*x, *y_hat, *cue], [*y, *trailer])


@dataclass
class CorrectionTemplates:
    """What stands between a completion and the reference, read off the chat template once for each of its arguments.

    Where the template renders an earlier turn differently (Qwen3 drops its reasoning), the ids are those of TRL's
    training variant.

    stops: token ids that end an answer, from `stop_tokens`. conversational: whether the request is a turn of a chat,
    or a paragraph of plain text. date: as `build_examples` takes it.
    """

    tokenizer: PreTrainedTokenizerBase
    correction_prompt: str
    stops: Sequence[int]
    conversational: bool
    date: str | None = None
    _known: dict[str, tuple[int, list[int]]] = field(default_factory=dict, init=False)

    def of(self, arguments: Mapping[str, Any]) -> tuple[int, list[int]]:
        """The token that closes a completion's turn, and the ids between it and the reference, the request among them.

        Args:
            arguments: those of the chat template.

        Raises:
            ConfigError: the template cannot carry a completion as it was sampled, with another turn after it.
        """
        key = json.dumps(arguments, sort_keys=True, default=str)
        if key not in self._known:
            if self.conversational:
                closing, cue = self._turns_after_completion(arguments)
            else:
                request = self.tokenizer(f"\n\n{self.correction_prompt}\n", add_special_tokens=False)
                closing, cue = int(self.tokenizer.eos_token_id), request["input_ids"]
            self._known[key] = closing, [*cue, *pauses_after_prompt(self.tokenizer)]
        return self._known[key]

    def completion_and_cue(self, completion: Completion, arguments: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """A completion as it stands in the context, and the ids between it and the reference.

        In a chat the turn is closed as the template closes it: its closing token replaces the stop token, which a cut
        completion lacks. In plain text an EOS would end the document, so a completion loses its stop token.
        """
        closing, cue = self.of(arguments)
        words = completion.tokens[:-1] if completion.finished else completion.tokens
        return [*words, closing] if self.conversational else words, cue

    def _turns_after_completion(self, arguments: Mapping[str, Any]) -> tuple[int, list[int]]:
        template = ChatTemplate(self.tokenizer, date=self.date, arguments=arguments)
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        asked = [*turns, {"role": "user", "content": self.correction_prompt}]
        fillers = UndecodableTokens(self.tokenizer, self.stops)
        control = {*special_token_ids(self.tokenizer), *self.stops}
        errors = []
        for candidate in filter(None, (template, template.training_variant())):
            try:
                first = candidate.ids(turns)
                both = candidate.ids(asked, ask=True)
            except DataError as error:
                got = f"a turn that the chat template refuses ({error})"
                advice = "Use another template"
                errors.append(describe("correction_prompt", got, "a template that renders it", advice))
                continue
            end = completion_end(first, self.stops, fillers)
            if not end:
                got, advice = "no stop token after an assistant turn", "Set eos_token to the token that it uses"
                errors.append(describe("chat template", got, "one", advice))
            elif both[: end - 1] != first[: end - 1] or both[end - 1] not in control:
                names = " or ".join(template.thinking_arguments())
                ways = f"Set {names} in chat_template_kwargs, or use" if names else "Use"
                got = "an assistant turn that is rendered differently once another turn follows"
                advice = f"{ways} a template that does not change earlier turns"
                errors.append(describe("chat template", got, "the completion as it was sampled", advice))
            else:
                # The last turn may end with another token: gpt-oss ends it with <|return|>, earlier ones with <|end|>.
                return both[end - 1], both[end:]
        raise ConfigError(errors[0])
