"""What of a text counts as the model's answer: its own turn, without thoughts, and of that what it asserts."""

from __future__ import annotations

import re
from typing import NamedTuple

from .units import quantity


_THOUGHT_NAMES = "think|thinking|thoughts?|reasoning|reflection|scratchpad|seed:think"
_THOUGHT = re.compile(
    rf"""
    (?P<opens><(?:{_THOUGHT_NAMES})>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|START_THINKING|think)\|>
      |<\|channel>thought\b)
    |</(?:{_THOUGHT_NAMES})>|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|END_THINKING|/think)\|>|<channel\|>
    """,
    re.I | re.X,
)
# A base model goes on with a problem of its own, a chat model with the other side's turn. Templates write turns with
# special tokens, and what is left of these where they were taken out of the text (`\nuser\n`, `assistantfinal`).
_BORDER = re.compile(
    r"""
    (?:<\|(?:im_start|start_header_id|header_start|start_of_role|start)\|>|<start_of_turn>|<\|turn>)[ \t]*(?P<role>\w+)
      (?:<\|(?:end_header_id|header_end|end_of_role)\|>)?
    |<\|(?P<name>user|human|prompter|system|developer|tool|observation|assistant|bot|model)\|>
    |<\|channel\|>[ \t]*(?P<channel>\w+)[^<\n]{0,100}(?:<\|message\|>)?
    |(?P<inst>\[INST\])|(?P<inst_end>\[/INST\])
    |(?-i:(?:(?<![A-Za-z])assistant|\A)(?P<bare_channel>final|analysis|commentary)(?=[A-Z\d$\\]))
    |(?-i:(?:^|(?<=[.!?)}\]$*]))(?P<bare_role>user|assistant|model|system|tool)[ \t]*$)
    |^[ \t\#*>]*(?P<label>user|human|prompter|instruction)\b[ \t]*\d*[ \t*]*[:.]
    |^[ \t\#*>]*(?P<own_label>assistant|ai|bot|model|response)[ \t*]*:
    |(?P<problem>^[ \t\#*>]*(?:question|problem|exercise|q)\b[ \t]*\d*[ \t*]*[:.])
    |</?s>|<(?:eos|bos|end_of_turn|turn\|)>|<\|[a-z_]+\|>|<｜[^｜\n]{1,40}｜>
    """,
    re.I | re.M | re.X,
)
_OWN = frozenset(("assistant", "bot", "model", "ai", "final"))

_VALUE = r"[\\$*_({\[]{0,4}(?:\\?(?:boxed|fbox)\{)?(?<![\d.,/])[-+−]?[$€£]?\d+(?:[.,/]\d+)*%?[\\$*_)}\]]{0,4}"
_PLAIN = r"(?<![\d.,/])[-+−]?[$€£]?\d+(?:[.,/]\d+)*%?(?![\d$])"
_DOUBT = (
    r"(?:\b(?:whether|suppose|assume|doubt|pretend|false|wrong|untrue|incorrect)"
    r"|(?:n['’]t|\bnot)\s+(?:think|believe|say|mean|agree|know|sure|certain|true))"
)
_DENIED = re.compile(
    rf"""
    (?:\b(?:not|never|neither|nor|cannot|no[ ]longer|(?:different|far|distinct)[ ]from)|n['’]t|≠|!=)\s*
      (?:\b(?:be|been|is|are|was|equals?|to|the|a|an|exactly|really|simply|actually|number|value|of)\s+){{0,5}}{_VALUE}
      (?:(?:\s*,|\s+or|\s+and|\s+nor)\s+{_VALUE}(?!\s*(?:is|are|was)\b))*
    |(?<!\bno\s)(?<!\bnot\s)\b\w{{2,12}}\s+than\s+(?:the\s+|a\s+|about\s+)?{_VALUE}
    |\b(?:just|slightly|well|somewhere|a\s+(?:little|bit))\s+(?:over|under|above|below)\s+{_VALUE}
    |\bbetween\s+{_VALUE}\s+(?:and|to)\s+{_VALUE}
    |(?<!\bfrom\s){_PLAIN}\s+to\s+{_PLAIN}
    |{_VALUE}\s+(?:(?:is|was|would\s+be)(?:\s+not|n['’]t)|cannot\s+be|can['’]t\s+be)\s+
      (?:the\s+)?(?:(?:right|correct|final)\s+)?(?:answer|right|correct|true|it|possible)\b
    |{_VALUE}\s+(?:is|was|would\s+be|seems)\s+(?:\w+\s+)?(?:wrong|incorrect|false|impossible|too\s+\w+)
    |(?:{_DOUBT}|\bif\s+(?:the|my|your)\s+(?:final\s+)?answer)\b[^.,;!?\n\d]{{0,60}}?{_VALUE}
    """,
    re.I | re.X,
)
_EITHER = re.compile(rf"(?P<first>{_PLAIN})\s+or\s+(?P<second>{_PLAIN})", re.I)
_SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s)|(?<=\n)")
# In front of `the answer is 18` or a box: it is doubted, supposed or denied.
_DOUBTED = re.compile(
    rf"""
    (?:\bif|{_DOUBT}(?:\s+\w+)?)(?:\s+that)?(?:\s+(?:the|my|your|an?))?(?:\s+(?:final|correct|right))?\s*$
    |(?:\b(?:not|never|neither|nor|cannot)|n['’]t)(?:\s+(?:be|equals?|to|the))*[\s$*_(\\\[]*$
    """,
    re.I | re.X,
)


class _Part(NamedTuple):
    """A piece of a text: who wrote it, and whether it opens a problem of its own."""

    own: bool
    problem: bool
    text: str


def without_thoughts(text: str) -> str:
    """The text without a reasoning model's thoughts: what tags enclose, what stands in front of a closing tag that
    none opens (the prompt did), and what follows one that nothing closes."""
    remaining: list[str] = []
    start, inside = 0, False
    for tag in _THOUGHT.finditer(text):
        if not inside:
            remaining.append(text[start : tag.start()])
        if tag["opens"]:
            inside = True
        else:
            remaining = remaining if inside else []
            start, inside = tag.end(), False
    return "".join(remaining if inside else [*remaining, text[start:]])


def own_parts(text: str) -> list[str]:
    """What the model says for itself and to the question, in the order in which an answer is looked for.

    Thoughts, other speakers' turns, and everything after the first turn are left out. What follows the start of
    another problem (`Question:`) is a further part where no number stands before it: a repeated question.
    """
    parts = _parts(without_thoughts(text))
    first = next((at for at, part in enumerate(parts) if part.own and part.text.strip()), None)
    if first is None:
        return []
    if not parts[first].problem and re.search(r"\d", parts[first].text):
        return [parts[first].text]
    found = [parts[first].text]
    for part in parts[first + 1 :]:
        if not part.problem:
            break
        found.append(part.text)
    return found


def asserted(text: str) -> str:
    """The text without the numbers that it denies, asks for or leaves open: `It is not 72`, `between 70 and 72`."""
    text = "".join(part for part in _SENTENCE_END.split(text) if not part.rstrip("*_ \n").endswith("?"))
    return _EITHER.sub(_equal_values, _DENIED.sub(" ", text))


def denies(text: str) -> bool:
    """Whether the text denies a number, or leaves open which it is."""
    return _DENIED.search(text) is not None


def is_doubted(before: str) -> bool:
    """Whether the words in front of a statement deny, doubt or suppose it: `I don't think` the answer is 18."""
    return _DOUBTED.search(before[-80:]) is not None


def _parts(text: str) -> list[_Part]:
    parts: list[_Part] = []
    start, own, problem = 0, True, False
    for border in _BORDER.finditer(text):
        if border["own_label"] and own:  # `AI: 18` in a turn of its own begins no other
            continue
        parts.append(_Part(own, problem, text[start : border.start()]))
        start, problem = border.end(), False
        role = border["role"] or border["name"] or border["channel"] or border["bare_channel"] or border["bare_role"]
        if role is not None:
            own = role.casefold() in _OWN
        elif border["label"] or border["inst"]:
            own = False
        elif border["own_label"] or border["inst_end"]:
            own = True
        elif border["problem"]:
            problem, start = own, border.start()
    parts.append(_Part(own, problem, text[start:]))
    return parts


def _equal_values(found: re.Match[str]) -> str:
    """Two numbers of one value (`3/8 or 0.375`) stay, and two others are no answer."""
    first, second = quantity(found["first"]), quantity(found["second"])
    return found[0] if first and second and first.value == second.value else " "
