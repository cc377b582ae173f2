"""Whether a chat template renders what the turns of a conversation say.

A template passes over roles and keys that it does not know, without a word. A conversation of one shape (its roles,
its keys) is rendered once with a mark in every turn, every tool and every tool call, and each mark must be found.
After that the words of each row are looked for in its own rendering.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError, DataError, describe
from .chat_template import ChatTemplate
from .conversation import Conversation, Messages


REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_END_OF_THOUGHT = "</think>"
_MARK = "zq{}qz"


@dataclass
class RenderedWords:
    """Looks for the words of conversations in what one template makes of them."""

    template: ChatTemplate
    _known: dict[str, tuple[int, str] | None] = field(default_factory=dict, init=False)  # what is lost of a shape

    def error(self, conversation: Conversation, rendered: str, options: Mapping[str, Any]) -> str:
        """What of a conversation is missing in `rendered`; empty if nothing is."""
        # What decides which turns a template passes over: roles, keys, and its arguments.
        turns = [
            [turn["role"], *sorted(key for key, value in turn.items() if value)] for turn in conversation.messages
        ]
        arguments = {key: value for key, value in options.items() if key != "tools"}
        shape = json.dumps([turns, conversation.trained, bool(options.get("tools")), arguments], default=str)
        if shape not in self._known:
            self._known[shape] = self._lost_of_shape(conversation, options)
        lost = self._known[shape] or self._lost_words(conversation, rendered, options)
        if lost is None:
            return ""
        turn, what = lost
        if turn < 0:
            got, advice = "tools that the chat template omits", "Use a template that renders tools, or remove them"
            return describe("tools", got, "tools in the rendered text", advice)
        role = conversation.messages[turn]["role"]
        if what == "content":
            got = f"the role {role!r}, whose turn the chat template omits"
            expected = "a role that the template renders at this place"
            return describe(conversation.place(turn), got, expected, "Rename the role, or use another template")
        got = f"{what} that the chat template omits"
        advice = "Move it into the content, remove it, or use another template"
        return describe(f"{conversation.place(turn)} ({role})", got, "its words in the rendered text", advice)

    def _lost_of_shape(self, conversation: Conversation, options: Mapping[str, Any]) -> tuple[int, str] | None:
        messages, tools = deepcopy(conversation.messages), deepcopy(options.get("tools"))
        marks = _put_marks(messages, tools)
        try:
            text = self.template.text(messages, **{**options, "tools": tools}).lower()
        except ConfigError:
            raise
        except DataError:  # it takes the conversation, but not with marks
            return None
        partly = {turn for mark, turn, _ in marks if mark in text}
        for mark, turn, what in marks:
            # Templates drop the thoughts of earlier turns; the rest of such a turn must be there.
            is_dropped = _is_earlier_answer(conversation, turn) and (what in REASONING_KEYS or turn in partly)
            if mark not in text and not is_dropped:
                return turn, what
        return None

    def _lost_words(
        self, conversation: Conversation, rendered: str, options: Mapping[str, Any]
    ) -> tuple[int, str] | None:
        for turn, message in enumerate(conversation.messages):
            content = message.get("content")
            if not isinstance(content, str):
                continue
            pieces = [content]
            if message["role"] == "assistant":
                thought, _, said = content.rpartition(_END_OF_THOUGHT)
                pieces = [said, thought.rpartition("<think>")[2]] if turn in conversation.trained else [said]
            for piece in filter(None, (piece.strip() for piece in pieces)):
                if piece in rendered:
                    continue
                as_json = (json.dumps(piece, ensure_ascii=False)[1:-1], json.dumps(piece)[1:-1])
                if not any(form in rendered for form in as_json) and self._lost(conversation, turn, piece, options):
                    return turn, "content"
        return None

    def _lost(self, conversation: Conversation, turn: int, piece: str, options: Mapping[str, Any]) -> bool:
        """Whether a piece of a turn that a template does not write as it stands is missing at either end."""
        first, last = _MARK.format(0), _MARK.format(1)
        messages: Messages = list(conversation.messages)
        content = messages[turn]["content"]
        start = content.rindex(piece)
        marked = f"{content[:start]}{first} {piece} {last}{content[start + len(piece) :]}"
        messages[turn] = {**messages[turn], "content": marked}
        try:
            text = self.template.text(messages, **options).lower()
        except ConfigError:
            raise
        except DataError:
            return False
        if _is_earlier_answer(conversation, turn) and messages[turn].get("tool_calls"):  # taken for thoughts (gpt-oss)
            return False
        return first not in text or last not in text


def _put_marks(messages: Messages, tools: Any) -> list[tuple[str, int, str]]:
    """Put a word that stands in no data into each text, call and tool; of each mark its turn (-1: the tools) and key.

    What is one text under several names (thoughts) gets one mark.
    """
    marks: list[tuple[str, int, str]] = []
    for turn, message in [*enumerate(messages), (-1, {"tools": tools})]:
        for names in (("content",), REASONING_KEYS, ("refusal",)):
            keys = [key for key in names if isinstance(message.get(key), str) and message[key].strip()]
            if keys:
                marks.append((_MARK.format(len(marks)), turn, keys[0]))
                message.update({key: f"{message[key]} {marks[-1][0]}" for key in keys})
        for what in ("tools",) if turn < 0 else ("tool_calls", "function_call"):
            entries = [message.get(what)] if what == "function_call" else message.get(what)
            for entry in entries if isinstance(entries, list) else ():
                named = entry.get("function", entry) if isinstance(entry, dict) else None  # OpenAI's form, or flat
                if isinstance(named, dict) and isinstance(named.get("name"), str):
                    marks.append((_MARK.format(len(marks)), turn, what))
                    named["name"] += marks[-1][0]
    return marks


def _is_earlier_answer(conversation: Conversation, turn: int) -> bool:
    """Whether the assistant wrote a turn that carries no loss; the turn of tools, -1, never is one."""
    return turn >= 0 and conversation.messages[turn]["role"] == "assistant" and turn not in conversation.trained
