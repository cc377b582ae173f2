"""Packages that a recipe needs and that are not installed, named before anything is loaded.

Those of optimizers and of fused losses are asked for in `training/preflight.py`.
"""

from __future__ import annotations

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
    args, model = job.args, job.model
    attention = (args.model_init_kwargs or {}).get("attn_implementation") or model.attn_implementation
    # A name with a slash is a kernel of a hub.
    kernels = ("kernels",) if isinstance(attention, str) and "/" in attention else ()
    needed: list[tuple[str, Any, tuple[str, ...]]] = [
        ("attn_implementation", attention, _ATTENTION.get(attention, kernels)),
        *((key, True, ("bitsandbytes",)) for key in ("load_in_4bit", "load_in_8bit") if vars(model)[key]),
        ("deepspeed", args.deepspeed, ("deepspeed",) if args.deepspeed else ()),
        *(("report_to", name, _TRACKERS.get(name, ())) for name in args.report_to or []),
    ]
    return [
        describe(
            key, f"{value} without the package {' or '.join(packages)}", "an installed package",
            "Install it, or remove the key",
        )
        for key, value, packages in needed
        if packages and not any(map(_is_installed, packages))
    ]  # fmt: skip


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the package that it is a part of
        return False
