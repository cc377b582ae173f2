"""The card of a saved model: TRL's, and in it what the method did to it, with which settings and on which data."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig

from ..compat import reading_note
from ..data.example import ExampleSet
from ..files import write_text_atomic
from .config import BaseArgs, RoundArgs


_NO_BASE = "[None](https://huggingface.co/None)"  # what TRL writes where the base is a directory
_NO_NAME = 'model="None"'  # and where the model is not on a hub
_VERSIONS = "### Framework versions\n\n"

# They say how a run is carried out, stand elsewhere on the card, or go with the tokenizer.
_LEFT_OUT = frozenset(
    """
    num_rounds num_epochs_per_round round_index chat_template generation_shard_size eval_on_start
    eval_on_generated_contexts save_merged_model
    """.split()
)
_TRAINING = (
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "max_length", "seed",
)  # fmt: skip


def complete_card(
    card: Path,
    args: Any,
    examples: ExampleSet,
    described: str,
    log_history: Sequence[dict[str, Any]],
    *,
    base: str,
    model_name: str,
    adapter: PeftConfig | None = None,
    decoding_modes: Collection[str] = (),
) -> None:
    """Write into a card that TRL has written: decoding, settings, data, what was generated, losses, our version.

    Args:
        card: its file.
        args: the trainer's configuration.
        examples: what was trained.
        described: what was generated, in words; empty where nothing was.
        log_history: the trainer's logs.
        base: the model that was trained, a path or a hub id.
        model_name: what to load, where the model is not on a hub.
        adapter: the adapter that was trained; None where all weights were.
        decoding_modes: the method's own ways of answering.
    """
    text = card.read_text(encoding="utf-8")
    text = text.replace(_NO_BASE, f"`{'/'.join(Path(base).parts[-2:])}`")
    name = args.hub_model_id or model_name
    text = text.replace(_NO_NAME, f'model="{name}"')
    lines = [
        *_decoding(name, decoding_modes),
        *_settings(args, adapter),
        *_data(args, examples, described, log_history),
    ]
    section = "\n".join(lines)
    head, marker, tail = text.partition(_VERSIONS)
    version = f"- Gapbridge: {metadata.version('gapbridge')}\n{reading_note()}" if marker else ""
    write_text_atomic(card, f"{head}{section}\n{marker}{version}{tail}")


def _decoding(name: str, modes: Collection[str]) -> Iterator[str]:
    if modes:
        yield from ("### Decoding", "")
        yield from ("The quick start answers in a single pass. Gapbridge answers as the method does:", "", "```shell")
        yield from (f"gapbridge generate RECIPE.yaml --model {name} --decoding_mode {mode}" for mode in modes)
        yield from ("```", "")


def _settings(args: Any, adapter: PeftConfig | None) -> Iterator[str]:
    yield from ("### Settings", "", "| setting | value | |", "|---|---|---|")
    for name, help_text in _shown(args):
        value = vars(args)[name]
        if value is not None:
            yield f"| `{name}` | {_cell(value)} | {_escaped(help_text)} |"
    yield ""
    if isinstance(adapter, LoraConfig):
        modules = adapter.target_modules or ()
        names = modules if isinstance(modules, str) else ", ".join(sorted(modules))
        merged = " and is merged into the weights" if args.save_merged_model else ""
        yield (
            f"A LoRA adapter was trained{merged}: rank {adapter.r}, alpha {adapter.lora_alpha}, "
            f"dropout {adapter.lora_dropout}, modules {names}."
        )
        yield ""


def _data(args: Any, examples: ExampleSet, described: str, log_history: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from ("### Data", "", f"{len(examples):,} examples of {examples.source}.")
    if examples.bad_rows:
        yield f"{len(examples.bad_rows):,} rows could not be used and were left out."
    if examples.truncated:
        yield f"{examples.truncated:,} rows were cut to `max_length`."
    if examples.left_out:
        yield f"{examples.left_out:,} rows had nothing to learn within `max_length` and were left out."
    if examples.loss_on:
        yield f"Loss on {examples.loss_on}."
    if isinstance(args, RoundArgs):
        rounds = "1 round" if args.round_index == 1 else f"{args.round_index} rounds"
        yield f"{rounds} of generation and training.{f' In the last round: {described}.' if described else ''}"
    yield ""
    losses = list(_losses(log_history))
    if losses:
        yield from ("### Held-out losses", "", "| loss | first | last |", "|---|---|---|", *losses, "")


def _shown(args: Any) -> Iterator[tuple[str, str]]:
    """The method's own settings, its very own first, then some of training; each with its help."""
    kinds = [kind for kind in type(args).__mro__ if issubclass(kind, BaseArgs)]
    own = [name for kind in kinds for name in vars(kind).get("__annotations__", ())]
    hidden = _LEFT_OUT | args.runtime_only_keys()
    helps = {field.name: str(field.metadata.get("help", "")) for field in fields(args)}
    for name in own:
        # Without vLLM its keys say nothing.
        if name in helps and name not in hidden and ("vllm" not in name or vars(args)["use_vllm"]):
            yield name, helps[name]
    yield from ((name, "") for name in _TRAINING if name != "max_steps" or args.max_steps > 0)


def _losses(log_history: Sequence[dict[str, Any]]) -> Iterator[str]:
    for key, name in (("eval_loss", "reference contexts"), ("eval_generated_loss", "generated contexts")):
        values = [entry[key] for entry in log_history if key in entry]
        if values:
            yield f"| {name} (`{key}`) | {values[0]:.4f} | {values[-1]:.4f} |"


def _cell(value: Any) -> str:
    return f"`{_escaped(value if isinstance(value, str) else json.dumps(value))}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
