"""Hashes of whole files and of models on disk: what lies under a name, compared with what lay there before."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from ..errors import RunError
from ..files import sha256


_MODEL_SUFFIXES = frozenset({".safetensors", ".bin", ".model", ".jinja", ".tiktoken", ".py"})
_MODEL_FILES = frozenset(
    """
    config.json generation_config.json adapter_config.json tokenizer.json tokenizer_config.json vocab.json merges.txt
    special_tokens_map.json added_tokens.json chat_template.json model.safetensors.index.json
    pytorch_model.bin.index.json
    """.split()
)
_NO_MODEL_FILES = frozenset({"training_args.bin"})  # how a model was trained: no pass reads it


def hash_file(path: str | Path) -> str:
    """The sha256 of a file's content. Raises RunError where it cannot be read."""
    try:
        return sha256(Path(path))
    except OSError as error:
        advice = "Repair its permissions or its disk"
        raise RunError(f"{path}, content", error.strerror, "a file that can be read", advice) from error


def hash_model(name: str | Path, revision: str | None = None) -> str | None:
    """A hash of a model: of a directory's files, by name; of one on a hub, of the commit that was loaded last, which
    names its content. With an adapter its base enters, too. None where there is neither on this machine."""
    place = _snapshot_path(str(name), revision)
    if place is None:
        return None
    base, base_revision = "", None
    with suppress(OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):  # no adapter, or damaged
        config = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
        base, base_revision = str(config["base_model_name_or_path"] or ""), config.get("revision")
    parts: list[list[list[str]] | None] = []
    for part in (place, _snapshot_path(base, base_revision) if base else None):
        if part is None:
            parts.append(None)
        elif part.parent.name == "snapshots":  # of a hub's cache, named by the commit
            parts.append([["commit", part.name]])
        else:
            parts.append([[path.relative_to(part).as_posix(), hash_file(path)] for path in model_files(part)])
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def hash_path(path: str | Path) -> str | None:
    """`hash_file` of a file, `hash_model` of anything else."""
    return hash_file(path) if Path(path).is_file() else hash_model(path)


def model_files(directory: Path) -> list[Path]:
    """The files of a directory that make the model. A run's directory also holds reports, which change."""
    found = [
        path
        for path in directory.iterdir()
        if (path.suffix in _MODEL_SUFFIXES or path.name in _MODEL_FILES) and path.name not in _NO_MODEL_FILES
    ]
    return sorted([*found, *(directory / "additional_chat_templates").glob("*.jinja")])


def _snapshot_path(name: str, revision: str | None) -> Path | None:
    """A model's directory: itself, or where the copy of a hub's model lies on this machine."""
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (HFValidationError, OSError):  # no name on a hub; no copy here
        return None
