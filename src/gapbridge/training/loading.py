"""Models and tokenizers as TRL's scripts load them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config
from trl import ModelConfig, clone_chat_template, get_quantization_config

from ..compat import model_version_errors, repair_generation_config, tokenizer_version_errors, vocabulary_size
from ..decoding.mtp_heads import load_heads, saved_heads
from ..errors import ConfigError, describe, reading


logger = logging.getLogger(__name__)

_MOST_LAYERS = 10_000
_OURS = ("outputs", "recipes")  # where the recipes and models of this package lie


def model_init_kwargs(model_config: ModelConfig, args: Any) -> dict[str, Any]:
    """What `from_pretrained` gets, from the recipe's model keys."""
    options: dict[str, Any] = {
        "revision": model_config.model_revision,
        "attn_implementation": model_config.attn_implementation,
        "dtype": model_config.dtype,
        "quantization_config": get_quantization_config(model_config),
        **(args.model_init_kwargs or {}),
    }
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def disable_zero3_init(args: Any) -> Iterator[None]:
    """Models that are loaded inside are whole in every process, also when they are to be trained under ZeRO-3.

    From the moment a configuration asks for ZeRO-3, transformers shards models while it loads them, whatever
    `zero3_init_flag` says; it reads the wish from a reference that is put away here and put back. The engine shards a
    whole model when training starts.
    """
    if not is_deepspeed_zero3_enabled() or args.deepspeed_plugin is None:
        yield
        return
    wish = args.hf_deepspeed_config if args.deepspeed else args.deepspeed_plugin.dschf
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(wish)


def load_model(
    path: str | Path, args: Any, *, whole: bool = True, with_heads: bool = False, **options: Any
) -> PreTrainedModel:
    """Load a model, or a PEFT adapter on its base model with the adapter trainable.

    float32 unless `dtype` says otherwise, as in TRL. Quantised models are placed on this process's device. Under
    ZeRO-3 a model that is not wanted `whole` is sharded while it is loaded. `revision` is that of the model, or of the
    base where `path` is a directory with an adapter; `with_heads` puts the future heads on it that lie beside an
    adapter.

    Raises:
        ConfigError: there is no such model, an adapter belongs to another revision of its base, or transformers 5
        saved it and this is 4.
    """
    require_local(path, "model")
    options = {**(args.model_init_kwargs or {}), **options}
    dtype = options.pop("dtype", "float32")
    options["dtype"] = dtype if dtype in (None, "auto") or isinstance(dtype, torch.dtype) else getattr(torch, dtype)
    options.setdefault("trust_remote_code", args.trust_remote_code)
    if options.get("quantization_config") is not None:
        options.setdefault("device_map", {"": args.device})
    adapter = Path(path) if (Path(path) / "adapter_config.json").is_file() else None
    with reading(f"model {path!s}"), disable_zero3_init(args) if whole else nullcontext():
        base, revision = str(path), options.pop("revision", None)
        if adapter is not None:
            base, revision = _adapter_base(adapter, revision)
        _require_readable(base, revision)
        model = AutoModelForCausalLM.from_pretrained(base, revision=revision or "main", **options)
        repair_generation_config(model)
        if adapter is None:
            return model
        _grow_for_adapter(model, adapter)
        if with_heads and (heads := saved_heads(adapter)):
            load_heads(model, heads)  # before the adapter, which would be copied with the last layer
        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
        record_revision(model.active_peft_config, revision)
        return model


def grow_vocabulary(model: PreTrainedModel, size: int) -> None:
    """Give the embeddings, and the output head, `size` rows where they have fewer; the new ones are zero."""
    before = vocabulary_size(model)
    if before >= size:
        return
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for layer in filter(None, (model.get_input_embeddings(), model.get_output_embeddings())):
            layer.weight[before:] = 0


def _grow_for_adapter(model: PreTrainedModel, adapter: Path) -> None:
    """Room for tokens that an adapter brings with their rows."""
    rows = vars(PeftConfig.from_pretrained(str(adapter))).get("trainable_token_indices") or []
    indices = [index for own in rows.values() for index in own] if isinstance(rows, dict) else rows
    grow_vocabulary(model, max(indices, default=-1) + 1)


def _require_readable(folder: str | Path, revision: str | None) -> None:
    """Raise ConfigError for a model that is not loaded, or not in a lifetime.

    A number of layers that no model has would keep transformers building for hours, before it looks at weights.
    """
    path = Path(folder) / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    parts = [config, *config.values()] if isinstance(config, dict) else []
    counts = [part.get("num_hidden_layers") for part in parts if isinstance(part, dict)]
    errors = [
        describe(f"{path}, num_hidden_layers", count, f"at most {_MOST_LAYERS:,}", "Correct the file")
        for count in counts
        if isinstance(count, (int, float)) and count > _MOST_LAYERS
    ]
    if errors := [*errors, *model_version_errors(str(folder), revision)]:
        raise ConfigError(errors)


def _adapter_base(adapter: Path, revision: str | None) -> tuple[str, str | None]:
    """The base model of an adapter and the revision to load it at: the one asked for, else the adapter's own record.

    "main" is what a recipe says that names no revision.
    """
    config = PeftConfig.from_pretrained(str(adapter))
    if not config.base_model_name_or_path:
        raise ConfigError(
            f"{adapter}, adapter_config.json", "no base model", "base_model_name_or_path", "Add the key to the file"
        )
    asked = None if revision == "main" else revision
    if asked and config.revision and asked != config.revision:
        got = f"{asked!r}"
        expected = f"{config.revision!r}, the revision of {config.base_model_name_or_path} under the adapter"
        raise ConfigError("model_revision", got, expected, f"Remove the key, or set it to {config.revision!r}")
    return config.base_model_name_or_path, asked or config.revision


def record_revision(adapter: PeftConfig, revision: str | None) -> None:
    """Note in an adapter's configuration which revision of its base it belongs to: it is saved with the adapter."""
    if revision not in (None, "main"):
        adapter.revision = revision


def require_local(path: str | Path, what: str) -> None:
    """Refuse a path that can only be meant for this machine and is not there, before a hub is asked for it.

    That are all paths but `name` and `owner/name`, and also these where `owner` is a directory here.

    Raises:
        ConfigError: there is no such directory.
    """
    text, place = str(path), Path(path)
    if place.is_dir():
        return
    first, *rest = place.parts or (".",)
    among_ours = bool(rest) and (first in _OURS or Path(first).is_dir())
    if text.startswith((".", "/", "~")) or len(rest) > 1 or among_ours:
        if place.is_file():
            raise ConfigError(
                f"{what} {text}", "a file, which cannot be loaded", "a directory or hub id", "Give the directory"
            )
        got, advice = f"no such directory (looked from {Path.cwd()})", "Correct the path, or train that run first"
        raise ConfigError(f"{what} {text}", got, "a saved model, for example the output of a finished run", advice)


def load_meta_model(path: Path, args: Any) -> PreTrainedModel | PeftModel | None:
    """The model or adapter of a local directory without weights, on torch's `meta` device: for what its configuration
    says. None for an adapter whose base is no directory here.

    Raises:
        ConfigError: the directory holds no model's configuration, or one that is unknown.
    """
    adapter = path if (path / "adapter_config.json").is_file() else None
    with reading(f"model {path}"):
        source = Path(_adapter_base(adapter, None)[0]) if adapter else path
        if not source.is_dir():
            return None
        _require_readable(source, None)
        config = AutoConfig.from_pretrained(source, trust_remote_code=args.trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=args.trust_remote_code)
        if (source / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(source)
        model.hf_device_map = {"": "meta"}  # in place: transformers moves it nowhere
        if adapter:
            _grow_for_adapter(model, adapter)
        return get_peft_model(model, PeftConfig.from_pretrained(str(adapter))) if adapter else model


def load_generation_config(path: str | Path, args: Any, revision: str | None = None) -> GenerationConfig | None:
    """What a model will generate with, without the model; None where it cannot be had (an adapter has none)."""
    options = {"revision": revision or "main"}
    try:
        with reading("generation_config.json"):
            return GenerationConfig.from_pretrained(str(path), **options)
    except ConfigError:
        pass
    try:
        with reading("config.json"):
            config = AutoConfig.from_pretrained(str(path), trust_remote_code=args.trust_remote_code, **options)
            return GenerationConfig.from_model_config(config)
    except ConfigError:
        return None


def load_tokenizer(path: str | Path, args: Any, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer. Raises ConfigError if there is none."""
    require_local(path, "tokenizer")
    with reading(f"tokenizer {path!s}"):
        if errors := tokenizer_version_errors(str(path), revision):
            raise ConfigError(errors)
        return AutoTokenizer.from_pretrained(
            str(path), revision=revision or "main", trust_remote_code=args.trust_remote_code
        )


def prepare_tokenizer(
    model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase, args: Any, *, uses_peft: bool
) -> None:
    """Apply `eos_token`, `chat_template` and `chat_template_path` before any text is tokenised, as `SFTTrainer` will.

    Raises:
        ConfigError: an unknown EOS token, a missing template file, or a template to clone for an adapter.
    """
    if args.eos_token is not None:
        if args.eos_token not in tokenizer.get_vocab():
            raise ConfigError(
                "eos_token", f"{args.eos_token!r}", "a token of the tokenizer's vocabulary", "Correct the token"
            )
        tokenizer.eos_token = args.eos_token
    if args.chat_template is not None:
        tokenizer.chat_template = args.chat_template
    if args.chat_template_path is not None:
        path = Path(args.chat_template_path)
        if path.suffix in (".jinja", ".j2"):
            if not path.is_file():
                got = f"no such file (looked from {Path.cwd()})"
                raise ConfigError(f"chat_template_path {path}", got, "a Jinja file", "Correct the path")
            tokenizer.chat_template = path.read_text(encoding="utf-8")
        elif uses_peft:
            got = "a model, whose template adds tokens that an adapter does not train"
            advice = "Give a file, or run the SFT stage without an adapter first"
            raise ConfigError("chat_template_path", got, "a .jinja file", advice)
        elif model is not None:
            require_local(path, "chat_template_path")
            clone_chat_template(model, tokenizer, str(path))
