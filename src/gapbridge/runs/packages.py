"""Packages that a recipe needs and that are not installed, named before anything is loaded.

Those of optimizers and of fused losses are asked for in `training/preflight.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from ..errors import describe
from .run_config import RunConfig


# Any one of the packages will do. transformers takes a kernel of the hub where flash-attn is not installed.
_ATTENTION = {
    "flash_attention_2": ("flash_attn", "kernels"),
    "flash_attention_3": ("flash_attn_interface", "flash_attn_3", "kernels"),
    "flash_attention_4": ("flash_attn.cute", "kernels"),
}
_TRACKERS = {
    "wandb": ("wandb",), "mlflow": ("mlflow",), "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",), "comet_ml": ("comet_ml",), "swanlab": ("swanlab",), "clearml": ("clearml",),
    "dvclive": ("dvclive",), "neptune": ("neptune",), "codecarbon": ("codecarbon",), "dagshub": ("dagshub", "mlflow"),
    "azure_ml": ("azureml",), "flyte": ("flytekit",),
}  # fmt: skip


def package_errors(job: RunConfig) -> list[str]:
    """One sentence for each key whose package is not installed."""
    return [
        describe(
            key,
            f"{value} without the package {' or '.join(packages)}",
            "an installed package",
            "Install it, or remove the key",
        )
        for key, value, packages in _needed(job)
        if not any(_is_installed(package) for package in packages)
    ]


def _needed(job: RunConfig) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    args, model = job.args, job.model
    attention = (args.model_init_kwargs or {}).get("attn_implementation") or model.attn_implementation
    if attention in _ATTENTION:
        yield "attn_implementation", attention, _ATTENTION[attention]
    elif isinstance(attention, str) and "/" in attention:  # a kernel of a hub
        yield "attn_implementation", attention, ("kernels",)
    for key in ("load_in_4bit", "load_in_8bit"):
        if vars(model)[key]:
            yield key, True, ("bitsandbytes",)
    if args.deepspeed:
        yield "deepspeed", args.deepspeed, ("deepspeed",)
    for name in args.report_to or []:
        if name in _TRACKERS:
            yield "report_to", name, _TRACKERS[name]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the package that it is a part of
        return False
