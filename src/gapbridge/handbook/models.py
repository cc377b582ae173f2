"""The handbook's `get_model` for trainers that generate contexts first."""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel
from trl import ModelConfig

from ..compat import backfill_trust_remote_code
from ..decoding.model_state import check_loading
from ..training.loading import load_model, model_init_kwargs


def get_model(model_args: ModelConfig, training_args: Any) -> PreTrainedModel | PeftModel:
    """Take the place of a fork's `get_model` in its `scripts/sft.py`.

    Every process gets whole weights, also under ZeRO-3, whose engine shards them when training starts: contexts are
    generated before. Quantised models are placed on the process's device. The weights are float32 unless `dtype` says
    otherwise, as in TRL. An adapter's directory gives the adapter on its base, trainable.

    Args:
        model_args: TRL's model keys.
        training_args: the configuration of the trainer, such as `BASHConfig`. Its `model_init_kwargs` go into the
            loading and are used up.

    Raises:
        ConfigError: there is no such model. RunError: FSDP would load the weights into one process only.
    """
    check_loading()
    backfill_trust_remote_code(training_args, model_args)
    options = model_init_kwargs(model_args, training_args)
    training_args.model_init_kwargs = None
    return load_model(str(model_args.model_name_or_path), training_args, **options)
