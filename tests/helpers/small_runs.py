"""What the trainers of most tests have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel


MakeBase = Callable[[], PreTrainedModel]  # the fixture `make_base`
SMALL_RUN: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none",
    "per_device_train_batch_size": 4, "save_strategy": "no",
}  # fmt: skip
