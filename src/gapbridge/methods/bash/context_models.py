"""Models from disk that sample contexts in the place of the one that is trained: an earlier checkpoint, or one a fold.

A model samples what it has not seen in training where it was trained without a fold of the examples (`holdout_fold`)
and samples for that fold alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...compat import vocabulary_size
from ...data.hash_sampling import hash_fold
from ...decoding.model_state import move_to_device
from ...errors import ConfigError, GapbridgeError
from ...store.fingerprint import weights_fingerprint
from ...training.loading import load_model, load_tokenizer


def check_context_models(paths: Sequence[str], tokenizer: PreTrainedTokenizerBase, args: Any) -> None:
    """Raise a ConfigError that lists the models that are not there or have other tokens; no weights are read."""
    errors = []
    for path in paths:
        try:
            other = load_tokenizer(path, args)
        except GapbridgeError as error:
            errors += [f"generator_model_name_or_path: {message}" for message in error.errors]
            continue
        if other.get_vocab() != tokenizer.get_vocab():
            errors.append(
                f"generator_model_name_or_path {path}: its tokenizer has other tokens than the model's: their ids "
                "differ"
            )
    if errors:
        raise ConfigError(errors)


class ContextModels:
    """The models at `paths`, of which one is held at a time; with several the i-th samples for the examples of fold i.

    Args:
        like: the model that is trained: the others are loaded in its type.
        args: the configuration of its trainer.
    """

    def __init__(self, paths: Sequence[str], like: PreTrainedModel, args: Any) -> None:
        self._paths, self._like, self._args = paths, like, args
        self._held: tuple[str, PreTrainedModel] | None = None

    def fingerprint(self) -> str:
        """Those of the models' weights, in the order of the folds. Raises ConfigError where one cannot sample."""
        return ", ".join(weights_fingerprint(self._model(path)) for path in self._paths)

    def shares(self, ids: Sequence[str]) -> Iterator[tuple[PreTrainedModel, Sequence[int]]]:
        """Each model, and which of the examples with these ids it samples for; models without one are left out."""
        folds = len(self._paths)
        for fold, path in enumerate(self._paths):
            share = [at for at, example_id in enumerate(ids) if folds == 1 or hash_fold(example_id, folds) == fold]
            if share:
                yield self._model(path), share

    def close(self) -> None:
        self._held = None

    def _model(self, path: str) -> PreTrainedModel:
        if self._held is None or self._held[0] != path:
            self._held = None  # the one before goes first
            attention = self._like.config._attn_implementation
            model = load_model(
                path, self._args, dtype=self._like.dtype, attn_implementation=attention, revision="main"
            )
            size, wanted = (vocabulary_size(m) for m in (model, self._like))
            if size != wanted:
                raise ConfigError(
                    f"generator_model_name_or_path {path}: its vocabulary has {size} ids, that of the model {wanted}"
                )
            move_to_device(model, self._args)
            self._held = (path, model)
        return self._held[1]
