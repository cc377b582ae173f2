"""What is not finite is found before an update is made with it, and before it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import recipe, refused
from torch import Tensor
from trl import get_peft_config

from gapbridge.errors import TrainingError
from gapbridge.runs.load_inputs import load_examples, load_initial_model
from gapbridge.runs.rounds import round_arguments
from gapbridge.runs.run_config import read_job
from gapbridge.training.checkpoints import COMPLETE_FILE
from gapbridge.training.method import GapTrainerMixin


def trainer_in(folder: Path, method: str = "sft", **keys: Any) -> GapTrainerMixin:
    """Of eight rows in batches of two, that saves each step."""
    settings = {"max_steps": 3, "save_steps": 1, "per_device_train_batch_size": 2, "warmup_steps": 0, **keys}
    job = read_job(recipe(folder, method=method, **settings), method)
    model, tokenizer = load_initial_model(job)
    return job.method(
        model=model,
        args=round_arguments(job.args, 1),
        train_dataset=load_examples(job, tokenizer, model)["train"],
        processing_class=tokenizer,
        peft_config=get_peft_config(job.model),
    )


def spoil(trainer: GapTrainerMixin, name: str, value: float, *, call: int) -> None:
    """Have a weight's gradient of the given backward pass, counted from 1, hold `value`."""
    calls = []

    def hook(gradient: Tensor) -> Tensor:
        calls.append(None)
        return gradient.index_fill(0, torch.tensor([0]), value) if len(calls) == call else gradient

    [weight] = [weight for found, weight in trainer.model.named_parameters() if found.endswith(name)]
    weight.register_hook(hook)


LORA = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "v_proj"]}


@pytest.mark.parametrize(
    ("keys", "name", "value", "call", "rows"),
    [
        pytest.param({}, "layers.1.mlp.up_proj.weight", float("nan"), 2, 2, id="one batch a step"),
        pytest.param(
            {"gradient_accumulation_steps": 2, "max_grad_norm": 0.0}, "layers.0.mlp.up_proj.weight", float("inf"), 3,
            4, id="the first of two batches, not clipped",
        ),
        pytest.param(
            {"method": "mtp", "num_future_tokens": 2}, "future_heads.heads.0.mlp.up_proj.weight", float("nan"), 3, 2,
            id="a future head: in sequence they have a backward pass of their own",
        ),
        pytest.param(LORA, "layers.0.self_attn.q_proj.lora_B.default.weight", float("nan"), 2, 2, id="an adapter"),
    ],
)  # fmt: skip
def test_a_gradient_that_is_not_finite(
    keys: dict[str, Any], name: str, value: float, call: int, rows: int, tmp_path: Path
) -> None:
    trainer = trainer_in(tmp_path, **keys)
    spoil(trainer, name, value, call=call)
    seen: list[dict[str, Tensor]] = []
    check = type(trainer).check_weights

    def noted(self: GapTrainerMixin) -> None:
        check(self)
        seen.append({key: weight.clone() for key, weight in self.model.state_dict().items()})

    trainer.check_weights = noted.__get__(trainer)  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="step 2, a batch with .* got a gradient norm of (nan|inf)") as told:
        trainer.train()
    assert str(told.value).count("train-") == rows, "the rows of all batches of the step are named"
    assert "checkpoint-1)." in str(told.value) and "before any update with it" in str(told.value)
    [before] = seen  # when the first checkpoint was saved
    assert all(torch.equal(weight, before[key]) for key, weight in trainer.model.state_dict().items())
    assert [path.parent.name for path in (tmp_path / "run").rglob(COMPLETE_FILE)] == ["checkpoint-1"]


def test_weights_that_an_update_made_infinite_are_not_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gradient is finite, the rate is not sane."""
    keys = {"learning_rate": 1e38, "weight_decay": 100.0, "max_steps": 1, "method": "sft", "warmup_steps": 0}
    for strategy in ("steps", "no"):
        options = recipe(tmp_path, save_strategy=strategy, save_steps=1, output_dir=str(tmp_path / strategy), **keys)
        said = refused(capsys, "sft", *options)
        assert "TrainingError: step 1: got weights that are not finite (model.embed_tokens.weight" in said
        assert "expected finite ones (there is no complete checkpoint)." in said
        assert (
            not list((tmp_path / strategy).rglob(COMPLETE_FILE))
            and not (tmp_path / strategy / "round_1" / "model").exists()
        )
