"""Which token ids end an answer, control a chat, or mean nothing."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ConfigError


def stop_tokens(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None = None) -> list[int]:
    """The ids that end an answer: the tokenizer's EOS and what the model's generation config names.

    Raises:
        ConfigError: there is none.
    """
    stops = set() if tokenizer.eos_token_id is None else {int(tokenizer.eos_token_id)}
    if model is not None and model.generation_config is not None and tokenizer.eos_token_id is not None:
        configured = model.generation_config.eos_token_id
        stops |= set(configured if isinstance(configured, list) else [] if configured is None else [configured])
    if not stops:
        raise ConfigError(
            f"the tokenizer {tokenizer.name_or_path!r} has no EOS token: an answer could never end. Set eos_token to "
            f"the "
            "token that ends an answer"
        )
    return sorted(stops)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens: EOS, PAD, roles and turn marks. They are never sampled into a context."""
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted(special | set(tokenizer.all_special_ids))


def unnamed_tokens(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[int]:
    """Ids that the model can give but the tokenizer cannot decode: rows that pad the embedding."""
    return list(range(len(tokenizer), model.get_input_embeddings().num_embeddings))
