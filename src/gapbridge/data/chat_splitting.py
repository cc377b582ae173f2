"""Where the answers are in a rendered conversation, as token ids.

The prompt is what the template asks with: the turns before, and its generation prompt. It never depends on the answer.
So a conversation is taken only if its rendering goes on exactly where the prompt ends; what a template renders
otherwise is an error with its reason, and never cut where the two happen to part.
So is what it leaves out (`text_coverage.py`).

With several assistant turns, the tokens that carry loss are those of TRL's `assistant_only_loss`: the template's
`{% generation %}` marks, or those of TRL's training variant of it. Only a role header that a template's marks take in
and its generation prompt already holds is not trained. For templates without any marks a turn runs from the end of its
generation prompt to the end of the conversation's rendering up to that turn, which is what TRL's variants mark.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import BatchEncoding

from ..errors import DataError, describe
from .chat_template import ChatTemplate
from .conversation import Conversation
from .special_tokens import UndecodableTokens, completion_end, special_token_ids
from .text_coverage import RenderedWords


@dataclass(frozen=True)
class PromptCompletionMask:
    """A row in two: `prompt` and `answer`, or the `error` that makes it a bad row.

    Attributes:
        loss_mask: one flag for each token of the answer; None when all are trained.
        generation_prompt_ids: the tokenised prompt where `prompt` is cut before its end; None where they are the same.
        has_prompt: False where the row's first token, which then is `prompt`, is trained.
    """

    prompt: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    loss_mask: list[bool] | None = None
    generation_prompt_ids: list[int] | None = None
    error: str = ""
    has_prompt: bool = True


def common_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How far two sequences agree."""
    length = min(len(first), len(second))
    return next((at for at in range(length) if first[at] != second[at]), length)


def split_pair(prompt: list[int], whole: list[int]) -> PromptCompletionMask:
    """TRL's cut: after the longest common prefix of the prompt's ids and the whole row's ids."""
    common = common_length(prompt, whole)
    return PromptCompletionMask(
        whole[:common], whole[common:], generation_prompt_ids=None if common == len(prompt) else prompt
    )


class ChatSplitter:
    """Splits conversations for one tokenizer. Tries the template as it is, then TRL's training variant of it."""

    def __init__(self, template: ChatTemplate, stops: Collection[int], fillers: UndecodableTokens) -> None:
        templates = [template, template.training_variant()]
        self._ways = [(way, RenderedWords(way)) for way in templates if way is not None]
        self._stops, self._fillers = stops, fillers
        self._control = set(special_token_ids(template.tokenizer)) | set(stops)

    def split(self, conversation: Conversation, **options: Any) -> PromptCompletionMask:
        """The turns that carry loss as the answer; it runs from the first of them to the end of the last.

        Args:
            options: arguments of the chat template, `tools` among them.

        Raises:
            DataError: the chat template refuses the conversation. ConfigError: it never ends, or is no Jinja.
        """
        ways = [(*way, False) for way in self._ways]
        single = len(conversation.trained) == 1
        if not single:
            if not ways[0][0].tokenizer.is_fast:
                got = "a slow one, which does not map characters to tokens, for several trained turns"
                advice = "Use a fast one, or train the last turn alone (train_on_assistant_turns: last)"
                return PromptCompletionMask(error=describe("tokenizer", got, "a fast tokenizer", advice))
            marked = [(*way, True) for way in self._ways if way[0].has_markers(**options)]
            ways = marked if marked and marked[0][0] is ways[0][0] else [*marked, ways[0]]
        refused = []
        for template, words, has_marks in ways:
            if single:
                split, text = _one_answer(template, conversation, options)
            else:
                split, text = self._all_answers(template, has_marks, conversation, options)
            error = split.error or words.error(conversation, text, options)
            split = PromptCompletionMask(error=error) if error else split
            if not error and completion_end(split.answer, self._stops, self._fillers):
                return split
            refused.append(split)
        return refused[0]

    def whole(self, conversation: Conversation, **options: Any) -> list[int]:
        """The ids of all turns; options and errors as in `split`. DataError also where the template leaves out one."""
        template, words = self._ways[0]
        text = template.text(conversation.messages, **options)
        if error := words.error(conversation, text, options):
            raise DataError(error)
        return template.tokens(text)

    def _all_answers(
        self, template: ChatTemplate, has_marks: bool, conversation: Conversation, options: dict[str, Any]
    ) -> tuple[PromptCompletionMask, str]:
        """The row, and its text."""
        messages, turns, place = conversation.messages, conversation.trained, conversation.place
        text = template.text(messages, **options)
        starts, ends = [], []
        for turn in turns:
            asked = template.text(messages[:turn], ask=True, **options)
            if not text.startswith(asked):
                return _parting(place(turn), template, asked, text, options), text
            starts.append(len(asked))
        for turn, start in zip(turns, starts, strict=True):
            end = self._turn_end(template, text, template.text(messages[: turn + 1], **options), start)
            if end is None:
                got = "a turn that the chat template renders differently once later turns follow"
                advice = "Train the last turn alone (train_on_assistant_turns: last)"
                advice = f"{advice}, or {_template_advice(template, options)}"
                return PromptCompletionMask(error=describe(place(turn), got, "the same text", advice)), text
            ends.append(end)
        ends[-1] = len(text)
        spans = [(start, end) for start, end in zip(starts, ends, strict=True)]
        if has_marks:
            spans = _marked_spans(template.marked(messages, **options), starts, len(text))
        encoded = _Encoded(template.tokenizer, text, starts)
        prompt = template.tokens(text[: starts[0]])
        first = encoded.token_at(starts[0])
        trained = [False] * (len(encoded.ids) - first)
        for turn, start, end in zip(turns, starts, [*starts[1:], len(text) + 1], strict=True):
            tokens = [
                at
                for a, b in spans
                if start <= a < end
                for at in range(encoded.token_at(a), encoded.token_after(b - 1))
            ]
            if all(encoded.ids[at] in self._fillers for at in tokens):
                got, advice = "a turn that the chat template omits", "Change the turn, or use another template"
                return PromptCompletionMask(error=describe(place(turn), got, "its words in the row", advice)), text
            for at in tokens:
                trained[at - first] = True
        known = encoded.ids[:first]
        return PromptCompletionMask(known, encoded.ids[first:], trained, None if known == prompt else prompt), text

    def _turn_end(self, template: ChatTemplate, text: str, own: str, start: int) -> int | None:
        """Where a turn ends in the whole text, its closing token with it; None if it is rendered differently there.

        Args:
            own: the conversation up to this turn.
            start: where the turn's words begin.
        """
        if text.startswith(own):
            return len(own)
        full = template.tokenizer(text, add_special_tokens=False)
        ids, own_ids = full["input_ids"], template.tokens(own)
        common = common_length(own_ids, ids)
        if any(token not in self._fillers for token in own_ids[common:]):
            return None
        # What the two differ in closes the conversation (Phi-3's end of text) or the turn (gpt-oss' <|return|>, which
        # is <|end|> in an earlier turn). In the latter case the closing token of the earlier turn belongs to it.
        last = common
        while last and ids[last - 1] in self._fillers and ids[last - 1] not in self._control:
            last -= 1
        if last and ids[last - 1] not in self._control and common < len(ids) and ids[common] in self._control:
            common += 1
        end = int(full.token_to_chars(common - 1).end)
        return end if end > start else None


def _one_answer(
    template: ChatTemplate, conversation: Conversation, options: dict[str, Any]
) -> tuple[PromptCompletionMask, str]:
    """The row whose last turn alone is trained, and its text."""
    asked = template.text(conversation.messages[:-1], ask=True, **options)
    text = template.text(conversation.messages, **options)
    before, full = template.tokens(asked), template.tokens(text)
    if full[: len(before)] == before:
        return PromptCompletionMask(before, full[len(before) :]), text
    if not text.startswith(asked):
        return _parting(conversation.place(conversation.trained[0]), template, asked, text, options), text
    # Tokens merge across the border. A model that is asked writes its answer after the prompt's own tokens.
    answer = template.tokens(text[len(asked) :])
    if template.tokenizer.decode([*before, *answer]) == template.tokenizer.decode(full):
        return PromptCompletionMask(before, answer), text
    return split_pair(before, full), text  # pieces of text get another first token here (SentencePiece's space)


def _parting(
    place: str, template: ChatTemplate, asked: str, text: str, options: dict[str, Any]
) -> PromptCompletionMask:
    """The error of a prompt that does not begin the rendered conversation."""
    start = max(0, common_length(asked, text) - 20)
    shown = [f"…{part[start : start + 60]}{'…' * (len(part) > start + 60)}" for part in (asked, text)]
    got = f"a prompt rendered as {shown[0]!r} alone and as {shown[1]!r} before the answer"
    advice = f"Change the data, or {_template_advice(template, options)}"
    return PromptCompletionMask(error=describe(place, got, "the same text", advice))


def _template_advice(template: ChatTemplate, options: dict[str, Any]) -> str:
    names = template.thinking_arguments(**options)
    arguments = f"set {' or '.join(names)} in chat_template_kwargs, or use" if names else "use"
    return f"{arguments} a chat template that renders every turn in one way"


def _marked_spans(encoded: BatchEncoding, starts: list[int], length: int) -> list[tuple[int, int]]:
    """The template's marks as character spans, each within its turn and without the header that was asked with."""
    mask = [0, *encoded["assistant_masks"], 0]
    edges = [at for at, (a, b) in enumerate(pairwise(mask)) if a != b]
    runs = [
        (encoded.token_to_chars(first).start, encoded.token_to_chars(end - 1).end)
        for first, end in zip(edges[::2], edges[1::2], strict=True)
    ]
    spans = []
    for start, following in zip(starts, [*starts[1:], length], strict=True):
        spans += [(max(a, start), b) for a, b in runs if a < following and start < b <= following]
    return spans


class _Encoded:
    """A text as ids, with the place of each character; no token reaches across a border where that can be had."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str, borders: list[int]) -> None:
        full = tokenizer(text, add_special_tokens=False)
        self._pieces: list[tuple[int, int, BatchEncoding]] = [(0, 0, full)]
        self._length = len(text)
        self.ids: list[int] = list(full["input_ids"])
        crossed = [border for border in borders if self._crossed(border)]
        if not crossed:
            return
        pieces: list[tuple[int, int, BatchEncoding]] = []
        ids: list[int] = []
        for start, end in pairwise([0, *crossed, len(text)]):
            encoded = tokenizer(text[start:end], add_special_tokens=False)
            pieces.append((start, len(ids), encoded))
            ids += encoded["input_ids"]
        if tokenizer.decode(ids) == tokenizer.decode(self.ids):
            self._pieces, self.ids = pieces, ids

    def token_at(self, character: int) -> int:
        """The token that holds a character; where none does (white space that a token swallows), the next one."""
        while character < self._length:
            start, before, encoded = max((p for p in self._pieces if p[0] <= character), key=lambda piece: piece[0])
            at = encoded.char_to_token(character - start)
            if at is not None:
                return before + int(at)
            character += 1
        return len(self.ids)

    def token_after(self, character: int) -> int:
        """The first token that begins after a character: one past the token that holds it, or the one before."""
        while character >= 0:
            start, before, encoded = max((p for p in self._pieces if p[0] <= character), key=lambda piece: piece[0])
            at = encoded.char_to_token(character - start)
            if at is not None:
                return before + int(at) + 1
            character -= 1
        return 0

    def _crossed(self, border: int) -> bool:
        encoded = self._pieces[0][2]
        at = encoded.char_to_token(border)
        return at is not None and encoded.token_to_chars(at).start < border
