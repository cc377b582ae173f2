"""What transformers refuses only when training starts, when everything has been generated: asked beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, get_scheduler
from transformers.utils import is_liger_kernel_available

from ..errors import ConfigError, as_config_error, describe
from .arguments import TRAIN


_STEPS = 1000  # of the schedule that is tried where the run's own length is not known yet


def preflight_errors(
    args: Any,
    model: PreTrainedModel | PeftModel | None = None,
    *,
    own_optimizer: bool = False,
    metrics: Sequence[str] | None = None,
) -> list[str]:
    """Everything in a configuration that would stop the trainer when it begins to train, or at its first evaluation.

    Args:
        model: the model, for what depends on it; None leaves that out.
        own_optimizer: the trainer was given its optimizer or schedule.
        metrics: what its evaluations return, without `eval_`; None where `compute_metrics` names more.
    """
    errors: list[str] = []
    if not own_optimizer:
        with _collected(errors, "optim"):  # a missing package, an unknown argument or a value out of range
            kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
            if isinstance(kind, type) and kind.__module__.startswith("torch.optim"):
                kind([torch.nn.Parameter(torch.zeros(1, device=args.device))], **options)
        steps = args.max_steps if args.max_steps > 0 else _STEPS
        with _collected(errors, "lr_scheduler_type, lr_scheduler_kwargs"):
            get_scheduler(
                args.lr_scheduler_type,
                optimizer=torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1),
                num_warmup_steps=args.get_warmup_steps(steps),
                num_training_steps=steps,
                scheduler_specific_kwargs=args.lr_scheduler_kwargs,
            )
    with _collected(errors, "dataloader"):  # no worker is started
        for batch_size in (args.per_device_train_batch_size, args.per_device_eval_batch_size):
            DataLoader(
                [0],  # type: ignore[arg-type]
                batch_size=batch_size,
                num_workers=args.dataloader_num_workers,
                prefetch_factor=args.dataloader_prefetch_factor,
                persistent_workers=args.dataloader_persistent_workers,
                multiprocessing_context=args.dataloader_multiprocessing_context,
            )
    return errors + _support_errors(args, model, metrics)


@contextmanager
def _collected(errors: list[str], what: str) -> Iterator[None]:
    """What a library refuses inside becomes one of `errors`, which begins with `what`."""
    try:
        with as_config_error(f"{what}: "):
            yield
    except ConfigError as error:
        errors += error.errors


def _support_errors(args: Any, model: PreTrainedModel | PeftModel | None, metrics: Sequence[str] | None) -> list[str]:
    """What the installed packages, the model or the evaluations do not have."""
    errors = []
    if args.use_liger_kernel and not is_liger_kernel_available():
        got, advice = "true without the package liger-kernel", "Install liger-kernel, or remove the key"
        errors.append(describe("use_liger_kernel", got, "an installed package", advice))
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if base is not None and args.gradient_checkpointing and not base.supports_gradient_checkpointing:
        got, advice = f"true for {type(base).__name__}, which does not support it", "Set gradient_checkpointing: false"
        errors.append(describe("gradient_checkpointing", got, "false", advice))
    metric = args.metric_for_best_model
    if metric is not None and metrics is not None and metric.removeprefix("eval_") not in metrics:
        expected = f"one of {', '.join(metrics)}"
        errors.append(describe("metric_for_best_model", repr(metric), expected, "Choose one of them"))
    return errors


def batch_errors(args: Any, rows: Mapping[str, int]) -> list[str]:
    """Parts with fewer rows than one batch of all processes, where `dataloader_drop_last` drops it.

    Args:
        rows: how many rows each part has, `train` or another; packed rows are fewer than that.
    """
    errors = []
    for part, count in rows.items():
        batch = (args.train_batch_size if part == TRAIN else args.eval_batch_size) * args.world_size
        if args.dataloader_drop_last and count < batch:
            got, expected = f"{count} rows with dataloader_drop_last", f"at least {batch}, one batch of all processes"
            errors.append(describe(part, got, expected, "Remove the key, or lower the batch size"))
    return errors
