"""Which token ends an answer in a recipe's chat template, found from a rendered conversation."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..data.chat_template import ChatTemplate
from ..data.eos_check import find_missing_eos
from ..data.special_tokens import stop_tokens
from ..errors import ConfigError, as_config_error


def missing_eos(recipe: dict[str, Any], fork: Path) -> tuple[str | None, str | None]:
    """The `eos_token` that an SFT recipe leaves out although its chat template ends answers with another token than
    the tokenizer does, and a remark where that is unknown. The recipe's paths are from `fork`, the top of the fork."""
    if recipe.get("eos_token"):
        return None, None
    tokenizer = _local_tokenizer(recipe, fork)
    if tokenizer is None:
        return None, "eos_token not looked for: the tokenizer is not on this machine"
    path = recipe.get("chat_template_path")
    if path and (fork / path).is_file():
        tokenizer.chat_template = (fork / path).read_text(encoding="utf-8")
    elif recipe.get("chat_template"):
        tokenizer.chat_template = recipe["chat_template"]
    if tokenizer.chat_template is None:
        return None, None
    try:
        with as_config_error():
            return ending(tokenizer)
    except ConfigError as error:
        return None, f"eos_token not found: the chat template cannot be rendered ({error})"


def ending(tokenizer: PreTrainedTokenizerBase) -> tuple[str | None, str | None]:
    """The token that ends an answer in the chat template, where it is not the tokenizer's EOS; and a remark."""
    end = find_missing_eos(ChatTemplate(tokenizer), stop_tokens(tokenizer))
    if end is None:
        return None, None
    return end.token, None if end.token else f"eos_token not found: {end.error}"


def _local_tokenizer(recipe: dict[str, Any], fork: Path) -> PreTrainedTokenizerBase | None:
    """That of the trained SFT model where it is here, else of the model that it starts from."""
    for key in ("output_dir", "model_name_or_path"):
        name = str(recipe.get(key) or "")
        here = fork / name
        if not name or (key == "output_dir" and not (here / "tokenizer_config.json").is_file()):
            continue
        source, revision = (here, "main") if here.is_dir() else (name, str(recipe.get("model_revision") or "main"))
        with suppress(ConfigError), as_config_error():
            return AutoTokenizer.from_pretrained(
                source, revision=revision, local_files_only=True, trust_remote_code=False
            )
    return None
