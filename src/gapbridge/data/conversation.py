"""A conversation of a row: its turns without padding, and which of them carry loss.

Keys of a turn that say whether it is learnt: `weight` of OpenAI's format, 0 or 1, and `train` (`training`, `loss`) of
others, true or false. The remaining keys go to the chat template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import LargeList, List

from ..errors import DataError
from .chat_template import Messages


LOSS_KEYS = ("weight", "train", "training", "loss")
PARTIAL_LOSS_KEYS = ("train_detail", "training_detail", "loss_scale")
CONVERSATION_COLUMNS = (
    "messages", "conversations", "prompt", "completion", "chosen", "rejected", "tools", "chat_template_kwargs",
)  # fmt: skip


@dataclass(frozen=True)
class Conversation:
    """Turns up to the last one that carries loss, as the chat template gets them.

    Attributes:
        trained: the numbers of the turns that carry loss, all of them the assistant's.
        names: the columns of the turns before `border` and of those after it.
    """

    messages: Messages
    trained: tuple[int, ...]
    names: tuple[str, str] = ("messages", "messages")
    border: int = 0

    def place(self, turn: int) -> str:
        """Where a turn stands, for messages: `completion, turn 0`."""
        first, second = self.names
        is_answer = turn >= self.border and first != second
        return f"{second}, turn {turn - self.border}" if is_answer else f"{first}, turn {turn}"


def read_conversation(
    before: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    names: tuple[str, str],
    *,
    all_turns: bool,
) -> Conversation:
    """The conversation of a row, up to its last trained turn.

    Args:
        before: turns that carry no loss, whoever wrote them.
        answers: turns of which the assistant's carry loss: all of them, or the last with `all_turns` false.
        names: the columns of the two.

    Raises:
        DataError: no turn can be trained, or the keys of one contradict that.
    """
    border, turns = len(before), [*before, *answers]
    full = Conversation([turn_as_rendered(turn) for turn in turns], (), names, border)
    candidates = [at for at in range(border, len(turns)) if turns[at]["role"] == "assistant"]
    if not candidates or candidates[-1] != len(turns) - 1:
        got, advice = f"a {turns[-1]['role']} turn at the end", "Remove the turns after the last answer"
        raise DataError(names[1], got, "an assistant turn, which is trained", advice)
    untrained = set()
    for at in range(border, len(turns)):
        learnt = _is_learnt(full, at, turns[at])
        if learnt and turns[at]["role"] != "assistant":
            place, got = f"{full.place(at)} ({turns[at]['role']}), loss", "a turn that no assistant wrote"
            raise DataError(place, got, "an assistant turn", "Remove the key of the loss")
        if learnt is False:
            untrained.add(at)
    chosen = [at for at in (candidates if all_turns else candidates[-1:]) if at not in untrained]
    if not chosen:
        which = "every assistant turn" if all_turns else "the last assistant turn"
        got, advice = f"{which} excluded from the loss (weight 0 or train false)", "Change the key of a turn"
        raise DataError(names[1], got, "a turn that is trained", f"{advice}, or remove the row")
    if len(turns) == 1:
        raise DataError(names[0], "no turn before the answer", "a prompt", "Add the user's turn, or remove the row")
    if not chosen[0]:
        advice = "Remove the turn, or train the last turn alone (train_on_assistant_turns: last)"
        raise DataError(names[0], "an assistant turn at the start", "a prompt before it", advice)
    return Conversation(full.messages[: chosen[-1] + 1], tuple(chosen), names, border)


def read_whole_conversation(
    before: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]], names: tuple[str, str]
) -> Conversation:
    """The conversation of a row that is trained from its first token on; the arguments are `read_conversation`'s.

    Raises:
        DataError: a turn says that it is not to be learnt.
    """
    full = Conversation([turn_as_rendered(turn) for turn in [*before, *answers]], (), names, len(before))
    for at, turn in enumerate([*before, *answers]):
        if _is_learnt(full, at, turn) is False:
            place, got = f"{full.place(at)} ({turn['role']}), loss", "a turn that is excluded"
            expected = "none, since assistant_only_loss: false trains complete rows"
            raise DataError(place, got, expected, "Remove the key of the turn")
    return full


def turn_as_rendered(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn without nulls, without empty tool calls and without the keys of the loss."""
    hidden = (*LOSS_KEYS, *PARTIAL_LOSS_KEYS)
    return {
        key: value
        for key, value in turn.items()
        if value is not None and key not in hidden and not (key == "tool_calls" and not value)
    }


def _is_learnt(conversation: Conversation, at: int, turn: Mapping[str, Any]) -> bool | None:
    """Whether the keys of a conversation's turn say that it is learnt; None: they do not say.

    Raises:
        DataError: they say neither yes nor no.
    """
    for key in PARTIAL_LOSS_KEYS:
        if turn.get(key) is not None:
            place, got = f"{conversation.place(at)} ({turn['role']}), {key}", "a key that is not supported"
            raise DataError(place, got, "loss on a complete turn", "Use weight 0 or 1, or remove the key")
    said: list[bool] = []
    for key in LOSS_KEYS:
        value = turn.get(key)
        if value is None:
            continue
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            number = isinstance(value, (int, float)) and -1e9 < value < 1e9
            place = f"{conversation.place(at)} ({turn['role']}), {key}"
            got = repr(value) if number else type(value).__name__
            raise DataError(place, got, "0, 1, true or false", "Correct or remove the key")
        said.append(bool(value))
    return all(said) if said else None


def without_padding(value: Any, feature: Any) -> Any:
    """A value without the nulls with which Arrow pads nested columns whose keys differ from row to row.

    Nulls that JSON Lines hold are data: `datasets` reads nested values of several shapes as JSON, and these stay.
    """
    if isinstance(feature, (List, LargeList)) and isinstance(value, list):
        return [without_padding(item, feature.feature) for item in value]
    if isinstance(feature, dict) and isinstance(value, dict):
        return {key: without_padding(item, feature.get(key)) for key, item in value.items() if item is not None}
    return value
