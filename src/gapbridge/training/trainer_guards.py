"""Guards on a TRL trainer: it refuses what would stop it later, and saves whole checkpoints of finite weights."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from ..compat import rotate_checkpoints
from ..errors import ConfigError, as_config_error
from ..files import directory_removed_on_error, os_errors_as_run_error
from .checkpoints import SaveAfterEvaluation, StopAtLastStep, mark_complete
from .distributed_checks import CheckSharding, check_accelerator
from .epoch_order import OrderedByEpoch
from .evaluation import EvaluationByTokens
from .finite_updates import FiniteUpdates
from .hooks import MethodHooks
from .preflight import preflight_errors


class TrainerGuardMixin(FiniteUpdates, EvaluationByTokens, OrderedByEpoch, MethodHooks):
    """Put before a TRL trainer.

    Args:
        callbacks, **kwargs: as for TRL's trainer.

    Raises:
        ConfigError: TRL's trainer refuses an option, or would when training starts. RunError: the processes do
        not work together. Nothing is left on disk then.
    """

    def __init__(self, *args: Any, callbacks: list[TrainerCallback] | None = None, **kwargs: Any) -> None:
        settings = kwargs["args"]
        # transformers makes it too, before it has refused everything.
        with directory_removed_on_error(Path(settings.output_dir)) if settings.should_save else nullcontext():
            with as_config_error():
                super().__init__(
                    *args,
                    callbacks=[CheckSharding(), SaveAfterEvaluation(), StopAtLastStep(), *(callbacks or [])],
                    **kwargs,
                )
            check_accelerator(self.args, self.accelerator, self.model)
            metrics = None
            if self.args.metric_for_best_model is not None and self.compute_metrics is None:
                names = self.eval_dataset if isinstance(self.eval_dataset, dict) else None
                metrics = self.evaluated_names(self.args, names, experts=self.aux_loss_enabled)
            own_optimizer = self.optimizer is not None or self.optimizer_cls_and_kwargs is not None
            errors = preflight_errors(self.args, self.model, own_optimizer=own_optimizer, metrics=metrics)
            if errors:
                raise ConfigError(errors)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As in [`~trl.SFTTrainer`], then the mark, and only then older checkpoints go: one is whole at any moment.

        Raises:
            RunError: it cannot be written. TrainingError: a weight is not finite; nothing is written then.
        """
        self.check_weights()
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with os_errors_as_run_error(checkpoint):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(checkpoint, self.args.world_size, only_model=self.args.save_only_model)
            rotate_checkpoints(self)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """As in transformers, but a tied weight (`lm_head`) is not missing: a checkpoint holds it once."""
        every = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        tied = every - {name for name, _ in self.model.named_parameters()}
        if load_result.unexpected_keys or not tied.issuperset(load_result.missing_keys):
            super()._issue_warnings_after_load(load_result)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; nothing at the last step of a run, where a resumed run may begin."""
        if self.state.global_step >= self.state.max_steps:
            return [], None
        self.step_batches, count = super().get_batch_samples(*args, **kwargs)
        return self.step_batches, count
