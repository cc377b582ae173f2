"""Whether a chat template renders what the turns of a conversation say.

A template passes over roles and keys that it does not know, without a word. A conversation of one shape (its roles,
its keys) is rendered once with a mark in every turn, every tool and every tool call, and each mark must be found.
After that the words of each row are looked for in its own rendering.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from ..errors import ConfigError, DataError, describe
from .chat_template import ChatTemplate
from .conversation import Conversation, Messages


REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_TEXT_KEYS = ("refusal",)
_END_OF_THOUGHT = "</think>"


class RenderedWords:
    """Looks for the words of conversations in what one template makes of them."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._known: dict[str, tuple[int, str] | None] = {}  # what is lost of a shape

    def error(self, conversation: Conversation, rendered: str, options: Mapping[str, Any]) -> str:
        """What of a conversation is missing in `rendered`; empty if nothing is."""
        shape = _shape(conversation, options)
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
            return describe(
                conversation.place(turn),
                f"the role {role!r}, whose turn the chat template omits",
                "a role that the template renders at this place",
                "Rename the role, or use another template",
            )
        return describe(
            f"{conversation.place(turn)} ({role})",
            f"{what} that the chat template omits",
            "its words in the rendered text",
            "Move it into the content, remove it, or use another template",
        )

    def _lost_of_shape(self, conversation: Conversation, options: Mapping[str, Any]) -> tuple[int, str] | None:
        marks = _Marks()
        messages, tools = deepcopy(conversation.messages), deepcopy(options.get("tools"))
        for turn, message in enumerate(messages):
            marks.put_into(turn, message)
        marks.put_into_tools(tools)
        try:
            text = self._template.text(messages, **{**options, "tools": tools}).lower()
        except ConfigError:
            raise
        except DataError:  # it takes the conversation, but not with marks
            return None
        found: dict[int, list[bool]] = {}
        for mark, turn, _ in marks.places:
            found.setdefault(turn, []).append(mark in text)
        for mark, turn, what in marks.places:
            earlier = turn >= 0 and _said_by_assistant(conversation, turn) and turn not in conversation.trained
            # Templates drop the thoughts of earlier turns; the rest of such a turn must be there.
            if mark not in text and not (earlier and (what in REASONING_KEYS or any(found[turn]))):
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
            if _said_by_assistant(conversation, turn):
                thought, _, said = content.rpartition(_END_OF_THOUGHT)
                pieces = [said, thought.rpartition("<think>")[2]] if turn in conversation.trained else [said]
            for piece in filter(None, (piece.strip() for piece in pieces)):
                if not any(form in rendered for form in _written(piece)) and self._lost(
                    conversation, turn, piece, options
                ):
                    return turn, "content"
        return None

    def _lost(self, conversation: Conversation, turn: int, piece: str, options: Mapping[str, Any]) -> bool:
        """Whether a piece of a turn that a template does not write as it stands is missing at either end."""
        marks = _Marks()
        first, last = marks.new(turn, "content"), marks.new(turn, "content")
        messages: Messages = list(conversation.messages)
        content = messages[turn]["content"]
        start = content.rindex(piece)
        marked = f"{content[:start]}{first} {piece} {last}{content[start + len(piece) :]}"
        messages[turn] = {**messages[turn], "content": marked}
        try:
            text = self._template.text(messages, **options).lower()
        except ConfigError:
            raise
        except DataError:
            return False
        earlier = _said_by_assistant(conversation, turn) and turn not in conversation.trained
        if earlier and messages[turn].get("tool_calls"):  # taken for thoughts (gpt-oss)
            return False
        return first not in text or last not in text


class _Marks:
    """Words that stand in no data, put into a conversation, each with its turn (-1: the tools) and its key."""

    def __init__(self) -> None:
        self.places: list[tuple[str, int, str]] = []

    def new(self, turn: int, what: str) -> str:
        mark = f"zq{len(self.places)}qz"
        self.places.append((mark, turn, what))
        return mark

    def put_into(self, turn: int, message: dict[str, Any]) -> None:
        content = message.get("content")
        if isinstance(content, str) and content.strip():
            message["content"] = f"{content} {self.new(turn, 'content')}"
        thoughts = [key for key in REASONING_KEYS if isinstance(message.get(key), str) and message[key].strip()]
        if thoughts:  # one text under several names
            mark = self.new(turn, thoughts[0])
            message.update({key: f"{message[key]} {mark}" for key in thoughts})
        for key in _TEXT_KEYS:
            if isinstance(message.get(key), str) and message[key].strip():
                message[key] = f"{message[key]} {self.new(turn, key)}"
        calls = message.get("tool_calls")
        for key, call in [
            *(("tool_calls", call) for call in (calls if isinstance(calls, list) else ())),
            ("function_call", message.get("function_call")),
        ]:
            for named in _named(call):
                named["name"] = f"{named['name']}{self.new(turn, key)}"

    def put_into_tools(self, tools: Any) -> None:
        for tool in tools if isinstance(tools, list) else ():
            for named in _named(tool):
                named["name"] = f"{named['name']}{self.new(-1, 'tools')}"


def _named(call: Any) -> Iterator[dict[str, Any]]:
    """The mapping that holds the name of a call or of a tool, in OpenAI's form or flat."""
    inner = call.get("function", call) if isinstance(call, dict) else None
    if isinstance(inner, dict) and isinstance(inner.get("name"), str):
        yield inner


def _said_by_assistant(conversation: Conversation, turn: int) -> bool:
    return bool(conversation.messages[turn]["role"] == "assistant")


def _shape(conversation: Conversation, options: Mapping[str, Any]) -> str:
    """What decides which turns a template passes over: roles, keys, and the template's arguments."""
    turns = [[message["role"], *sorted(key for key, value in message.items() if value)]
             for message in conversation.messages]  # fmt: skip
    arguments = {key: value for key, value in options.items() if key != "tools"}
    return json.dumps([turns, conversation.trained, bool(options.get("tools")), arguments], default=str)


def _written(words: str) -> Iterator[str]:
    """The words as they are, and as JSON writes them."""
    yield words
    yield json.dumps(words, ensure_ascii=False)[1:-1]
    yield json.dumps(words)[1:-1]
