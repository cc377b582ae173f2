"""What lies in a model's folder beside its weights: it goes with the model, folders included.

A processor's files, code of its own, a licence: `save_pretrained` writes the model and the tokenizer that are in
memory, and knows nothing of these.
"""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..files import os_errors_as_run_error


# Weights in every format, and what only belongs to them.
_WEIGHTS = (
    "*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.gguf",
    "*.ggml", "*.ot", "*.tflite", "*.mlmodel", "*.npz", "*.distcp", "*.index.json",
)  # fmt: skip
# What is saved from memory: an old file beside the new ones would change what they mean.
_SAVED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.*", "additional_chat_templates", "adapter_config.json", "README.md",
)  # fmt: skip
# What other trainings and evaluations left there.
_LEFT = (
    ".*", "*.tmp", "__pycache__", "checkpoint-*", "round_[0-9]*", "runs", "wandb", "mlruns", "COMPLETE.json",
    "trainer_state.json", "*_results.json", "metrics.jsonl", "generation_stats.json", "timing.json",
)  # fmt: skip
# The names that a run has for its own files: a model's file of that name would take their place.
RUN_FILES = (
    "run.json", "config.resolved.yaml", "environment.json", "data.json", "samples", "report.md", "report.html",
    "loss.png", "eval", "gap", "completions", "_*",
)  # fmt: skip
_LEFT_OUT = (*_WEIGHTS, *_SAVED, *_LEFT, *RUN_FILES)


def copy_companions(source: Path, target: Path) -> list[str]:
    """Copy what lies beside the weights in `source` to `target`, where nothing has that name yet.

    Args:
        source: the folder of the model that was trained; another path is left alone (a hub's model has none here).
        target: the folder of a whole model. The folder of an adapter gets nothing: its base keeps its own.

    Returns:
        The names that were copied, with `/` between folders.

    Raises:
        RunError: the disk refuses it.
    """
    if not source.is_dir() or not (target / "config.json").is_file():
        return []
    copied = []
    for path in _companions(source):
        name = path.relative_to(source)
        if (target / name).exists():
            continue
        with os_errors_as_run_error(target / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
        copied.append(name.as_posix())
    return copied


def _companions(folder: Path) -> Iterator[Path]:
    """Files of a folder and of those in it; nothing of a folder that holds an adapter or another model."""
    for path in sorted(folder.iterdir()):
        if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in _LEFT_OUT):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and not path.is_symlink() and not (path / "adapter_config.json").exists():
            yield from _companions(path)
