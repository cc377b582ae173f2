"""The chat templates that TRL ships, a small tokenizer for each, and conversations to put through them."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import trl
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


FOLDER = Path(trl.__file__).parent / "chat_templates"
VISION = ("idefics3", "llava_next", "smolvlm", "qwen2_5_vl", "qwen3_vl", "lfm2_2_5_vl")
NAMES = [path.stem for path in sorted(FOLDER.glob("*.jinja")) if not path.stem.startswith(VISION)]

# The first is the tokenizer's EOS; all end an answer, as in the models' generation configurations.
STOPS = {
    "cohere": ["<|END_OF_TURN_TOKEN|>"],
    "deepseek": ["<｜end▁of▁sentence｜>"],
    "diffusion_gemma": ["<turn|>"],
    "gemma": ["<eos>", "<end_of_turn>"],
    "gemma4": ["<eos>", "<turn|>", "<|tool_response>"],
    "glm4": ["<|endoftext|>", "<|user|>", "<|observation|>"],
    "gptoss": ["<|return|>", "<|endoftext|>", "<|call|>"],
    "lfm2": ["<|im_end|>"],
    "llama3": ["<|eot_id|>", "<|end_of_text|>"],
    "muse": ["<|eot|>"],
    "nemotron": ["<|im_end|>", "<|endoftext|>"],
    "phi3": ["<|endoftext|>", "<|end|>"],
    "qwen": ["<|im_end|>", "<|endoftext|>"],
}
_MARK = re.compile(
    r"<\|[^|<>{}\s']{1,30}\|>|<｜[^｜<>]{1,40}｜>|<(?:start|end)_of_turn>|<\|[a-z_]+>|<[a-z_]+\|>|<\|\"\|>|\[gMASK\]|<sop>"
)


def stop_names(name: str) -> list[str]:
    return STOPS[max((key for key in STOPS if name.startswith(key)), key=len)]


def byte_tokenizer(template: str, stops: list[str]) -> Any:
    """One token a byte and one a mark of the template; two line breaks merge, as they do in real vocabularies."""
    vocabulary = {character: at for at, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary["ĊĊ"] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, [("Ċ", "Ċ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    marks = sorted({*_MARK.findall(template), *stops, "<bos>", "<pad>"})
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    backend.add_tokens(["<think>", "</think>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token=stops[0], pad_token="<pad>"
    )
    tokenizer.chat_template = template
    return tokenizer


@functools.cache
def tokenizer_of(name: str) -> tuple[Any, list[int]]:
    """The tokenizer of a template that TRL ships, and the ids that end an answer."""
    template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    tokenizer = byte_tokenizer(template, stop_names(name))
    return tokenizer, tokenizer.convert_tokens_to_ids(stop_names(name))


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


SYSTEM = {"role": "system", "content": "Be brief."}
_CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
_NUMBER = {"type": "integer", "description": "A number."}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers.",
            "parameters": {"type": "object", "properties": {"a": _NUMBER, "b": _NUMBER}, "required": ["a", "b"]},
        },
    }
]
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": [user("Ask one."), assistant("First.")]},
    "system turn": {"messages": [SYSTEM, user("Ask one."), assistant("First.")]},
    "several turns": {
        "messages": [
            user("Ask one."), assistant("First."), user("Ask two."), assistant("Second\n\none."), user("Ask three."),
            assistant("Third."),
        ]
    },
    "reasoning": {"messages": [user("Ask one."), assistant("<think>\nHm.\n</think>\n\nFirst.")]},
    "reasoning, several turns": {
        "messages": [
            user("Ask one."), assistant("<think>\nHm.\n</think>\n\nFirst."), user("Ask two."),
            assistant("<think>\nOh.\n</think>\n\nSecond."),
        ]
    },
    "tools": {
        "tools": TOOLS,
        "messages": [
            user("Add them."), assistant("", tool_calls=[_CALL]),
            {"role": "tool", "name": "add", "tool_call_id": "c1", "content": "three"}, assistant("It is 3."),
        ],
    },
}  # fmt: skip
