"""What differs between the versions of TRL, transformers and huggingface_hub that this package takes, in one place.

`docs/how-to/handbook.md`, section Versions, has the range and what runs where. Nothing heavy is imported before it is
used.
"""

from __future__ import annotations

import os
from importlib import import_module, metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from .errors import describe, require


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
    from trl import ModelConfig

TRL, TRANSFORMERS = (Version(metadata.version(package)) for package in ("trl", "transformers"))

_TRAINS_LABELS = Version("1.7")  # of rows that are packed, or whose loss is liger's
_FUSED_HEAD = Version("1.16")  # the loss is a part of the model's forward pass
_TAKES_PAIRS = Version("1.14")  # as token ids; older versions down to that are not tried


class Defaults:
    """Today's keys that older configurations lack, with the value they then have. No fields: a recipe that sets one is
    refused where the installed version does not know it."""

    dataloader_multiprocessing_context = None
    enable_jit_checkpoint = False
    shuffle_dataset = False
    truncation_mode = "keep_start"
    trust_remote_code = False


def label_support_errors(args: Any) -> list[str]:
    """The options with which TRL before 1.7 drops a row's labels, and learns the tokens of its context instead."""
    got = f"with TRL {TRL}, which would train on the tokens of the contexts"
    expected, advice = f"TRL {_TRAINS_LABELS} or newer", "Remove the key, or install a newer TRL"
    options = (("packing", args.packing), ("use_liger_kernel", args.use_liger_kernel)) if TRL < _TRAINS_LABELS else ()
    return [describe(key, f"{value} {got}", expected, advice) for key, value in options if value]


def pair_support_errors() -> list[str]:
    """Why nothing is learned from preferences here: older trainers take them as text alone."""
    advice = "Install a newer TRL, or run DPO with `trl dpo`"
    got, expected = f"one that trains on pairs of completions, with TRL {TRL}", f"TRL {_TAKES_PAIRS} or newer"
    return require(TRL >= _TAKES_PAIRS, "method", got, expected, advice)


def fused_head_errors() -> list[str]:
    """Why no head but the model's own is trained here."""
    advice = "Install a newer TRL, or set num_future_tokens to 1, which is SFT"
    got, expected = f"a value above 1 with TRL {TRL}", f"TRL {_FUSED_HEAD} or newer"
    return require(TRL >= _FUSED_HEAD, "num_future_tokens", got, expected, advice)


def backfill_trust_remote_code(args: Any, model_config: ModelConfig) -> None:
    """Give `args` the `trust_remote_code` that TRL before 1.7 has among the model's keys."""
    if TRL < Version("1.7"):
        args.trust_remote_code = model_config.trust_remote_code


def mixed_precision(args: Any) -> str:
    """`no`, `fp16` or `bf16`: what the trainer's steps run in; the launcher may ask for it where `args` does not."""
    if args.fp16 or args.bf16:
        return "fp16" if args.fp16 else "bf16"
    return os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def is_warmup_ratio(key: str, value: Any) -> bool:
    """Whether a `warmup_steps` is a share of the steps, and transformers is 4, which calls that `warmup_ratio`."""
    if key != "warmup_steps" or TRANSFORMERS.major >= 5:
        return False
    try:
        return 0 <= float(value) < 1
    except (TypeError, ValueError):
        return False


def normalize_warmup_args(args: Any) -> None:
    """A share in `warmup_steps` becomes a `warmup_ratio` where it is no share."""
    if is_warmup_ratio("warmup_steps", args.warmup_steps) and args.warmup_steps:
        args.warmup_ratio, args.warmup_steps = args.warmup_steps, 0


def rotate_checkpoints(trainer: Trainer) -> None:
    """Delete a trainer's oldest checkpoints above `save_total_limit`."""
    args = trainer.args
    try:
        rotate = import_module("transformers.trainer_utils").rotate_checkpoints
    except AttributeError:
        trainer._rotate_checkpoints(use_mtime=True, output_dir=args.output_dir)
    else:
        rotate(args.output_dir, args.save_total_limit, trainer.state.best_model_checkpoint, use_mtime=True)


def training_chat_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """TRL's variant of a chat template for training, which marks what the assistant wrote; None where it has none.

    Raises:
        ValueError, TypeError, TemplateError: TRL has none, or its probe is more than the template takes.
    """
    try:
        templates = import_module("trl.chat_template_utils")
        templates.has_generation_markers  # noqa: B018 - variants without marks are of no use
    except (ImportError, AttributeError):
        return None
    variant: str | None = templates.get_training_chat_template(tokenizer)
    return variant


def vocabulary_size(model: PreTrainedModel) -> int:
    """How many ids a model takes. PEFT's wrapper of embeddings with trained rows does not pass the number on."""
    layer: Any = model.get_input_embeddings()
    if isinstance(layer, import_module("peft.utils.other").AuxiliaryTrainingWrapper):
        layer = layer.original_module
    return int(layer.num_embeddings)


def show_head_bias(model: PreTrainedModel) -> None:
    """Have PEFT's wrapper of an output head with trained rows pass on the head's bias: TRL's fused loss reads it."""
    head: Any = model.get_output_embeddings()
    if isinstance(head, import_module("peft.utils.other").TrainableTokensWrapper):
        vars(head)["bias"] = head.original_module.bias  # not as a parameter of its own


def http_client() -> ModuleType:
    """The module `httpx`, or that which huggingface_hub uses in its place."""
    try:
        client: ModuleType = import_module("huggingface_hub.utils").httpx
    except AttributeError:  # before huggingface_hub 1.0
        client = import_module("httpx")
    return client


def http_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises for a hub that cannot be reached, that refuses, or that must not be asked."""
    utilities = import_module("huggingface_hub.utils")
    # The client's own errors are no OSError where that is httpx.
    return (OSError, utilities.HfHubHTTPError, utilities.HFValidationError, *_client_errors())


def _client_errors() -> tuple[type[Exception], ...]:
    try:
        return (http_client().HTTPError,)
    except ImportError:  # requests, whose errors are OSError
        return ()


def model_version_errors(path: str, revision: str | None) -> list[str]:
    """What transformers 4 would read wrongly, and without a word, of a model that transformers 5 saved.

    Raises what transformers raises for a model without a configuration.
    """
    if TRANSFORMERS.major >= 5:
        return []
    config, _ = import_module("transformers").PretrainedConfig.get_config_dict(path, revision=revision or "main")
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    if any("rope_parameters" in part and "rope_theta" not in part for part in parts):
        return [_misread_error(path, "rope_parameters", '"rope_theta" with its number', "config.json")]
    return []


def repair_generation_config(model: PreTrainedModel) -> None:
    """Have a generation config that transformers 4 reads, and would not save: one that samples in all but `do_sample`.

    Raises:
        ValueError: it is invalid otherwise.
    """
    generation = model.generation_config
    if TRANSFORMERS.major >= 5 or generation is None:
        return
    try:
        generation.validate(strict=True)
    except ValueError:
        generation.do_sample = True
        generation.validate(strict=True)


def tokenizer_version_errors(path: str, revision: str | None) -> list[str]:
    """What transformers 4 could not read of a tokenizer that transformers 5 saved."""
    if TRANSFORMERS.major >= 5:
        return []
    auto = import_module("transformers.models.auto.tokenization_auto")
    config = auto.get_tokenizer_config(path, revision=revision or "main")
    errors = []
    if config.get("tokenizer_class") in ("TokenizersBackend", "SentencePieceBackend"):
        errors.append(_misread_error(path, "tokenizer_class", '"PreTrainedTokenizerFast"', "tokenizer_config.json"))
    if isinstance(config.get("extra_special_tokens"), list):
        errors.append(
            _misread_error(path, "extra_special_tokens", '"additional_special_tokens"', "tokenizer_config.json")
        )
    return errors


def reading_note() -> str:
    """What a saved model's card says about older versions; nothing where an old one saves it."""
    if TRANSFORMERS.major < 5:
        return ""
    return "- Load it with transformers 5: transformers 4 reads another `rope_theta` and cannot read the tokenizer\n"


def _misread_error(path: str, key: str, portable: str, file: str) -> str:
    got = f"a file of transformers 5, which transformers {TRANSFORMERS} misreads"
    advice = "Install transformers 5, or write the file in the older form"
    return describe(f"{path}/{file}, {key}", got, f"{portable} instead of {key}", advice)


def fuse_head(model: Any) -> None:
    """Give a model the loss of TRL's trainers, which makes no logits of whole rows, as they do themselves.

    TRL before 1.16 makes them; there the model's own forward pass is given a loss under the same name of its option.
    """
    utilities = import_module("trl.trainer.utils")
    if _FUSED_HEAD <= TRL:
        utilities.add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
        return
    forward = model.forward

    def without_option(*args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    model.forward = without_option
