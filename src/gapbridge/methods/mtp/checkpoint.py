"""Models with future heads on disk.

A directory holds the next-token model as any other (or an adapter), and beside it `future_heads.safetensors`, which
transformers passes over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import cached_file

from ...decoding.mtp_heads import HEADS_FILE, load_heads, saved_heads
from ...errors import ConfigError
from ...training.loading import require_local


def load(path: str | Path, *, revision: str | None = None, **options: Any) -> PreTrainedModel | PeftModel:
    """A model with its future heads, in evaluation mode.

    Args:
        path: the directory of a model that [`MTPTrainer`] saved, or of its adapter; or a hub id.
        revision: that of the model on its hub.
        options: as for `AutoModelForCausalLM.from_pretrained`.

    Raises:
        ConfigError: there is no such model, or it has no heads.
    """
    require_local(path, "model")
    file = saved_heads(path)
    if file is None and not Path(path).is_dir():
        found = cached_file(str(path), HEADS_FILE, revision=revision, _raise_exceptions_for_missing_entries=False)
        file = None if found is None else Path(found)
    if file is None:
        expected = "the file of MTPTrainer with num_future_tokens above 1"
        raise ConfigError(path, f"no {HEADS_FILE}", expected, "Restore the file, or load the model with transformers")
    source, adapter = str(path), (Path(path) / "adapter_config.json").is_file()
    if adapter:
        config = PeftConfig.from_pretrained(source)
        source, revision = config.base_model_name_or_path, config.revision
    model = AutoModelForCausalLM.from_pretrained(source, revision=revision or "main", **options)
    load_heads(model, file)  # before the adapter, which would be copied with the last layer
    return (PeftModel.from_pretrained(model, str(path)) if adapter else model).eval()
