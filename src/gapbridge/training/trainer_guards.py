"""Guards on a TRL trainer: it learns and saves nothing that is not finite, and resumes from whole checkpoints only."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from ..compat import rotate_checkpoints
from ..errors import ConfigError, RunError, as_config_error
from ..files import directory_removed_on_error, os_errors_as_run_error
from .checkpoints import SaveAfterEvaluation, StopAtLastStep, agreed_checkpoint, mark_complete
from .distributed_checks import CheckSharding, check_accelerator
from .epoch_order import OrderedByEpoch
from .evaluation import EvaluationByTokens
from .finite_updates import FiniteUpdates
from .preflight import preflight_errors


logger = logging.getLogger(__name__)


class TrainerGuardMixin(FiniteUpdates, EvaluationByTokens, OrderedByEpoch):
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
            errors = preflight_errors(
                self.args,
                self.model,
                own_optimizer=self.optimizer is not None or self.optimizer_cls_and_kwargs is not None,
                metrics=None if self.compute_metrics is not None else self.own_metrics(),
            )
            if errors:
                raise ConfigError(errors)

    @classmethod
    def refused_configs(cls, args: Any, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, ...]:
        """Names of the accelerate configurations under which this refuses to train.

        Args:
            tokenizer: the model's own, as it is loaded; None where it is not at hand.
        """
        return ()

    def own_metrics(self) -> list[str] | None:
        """The metrics that evaluations return without `compute_metrics`, without their `eval_`; None: not known."""
        return None

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

    def checkpoint_to_resume(self, asked: str | bool | None) -> str | None:
        """The checkpoint that `train` goes on from; `True` asks for the last *complete* one.

        Raises:
            RunError: `True` was given and there is none.
        """
        if asked is not True:
            return asked or None
        checkpoint = agreed_checkpoint(Path(self.args.output_dir))
        if checkpoint is None:
            raise RunError(
                self.args.output_dir,
                "no complete checkpoint",
                "one to resume from",
                "Set resume_from_checkpoint: false, or correct output_dir",
            )
        return str(checkpoint)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """As in transformers, but a tied weight (`lm_head`) is not missing: a checkpoint holds it once."""
        every = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        tied = every - {name for name, _ in self.model.named_parameters()}
        if load_result.unexpected_keys or not tied.issuperset(load_result.missing_keys):
            super()._issue_warnings_after_load(load_result)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; `True` resumes from the last *complete* checkpoint.

        Raises:
            RunError: `True` was given and there is no complete checkpoint.
            TrainingError: the loss, the gradient or a trained weight is not finite.
        """
        resume_from_checkpoint = self.checkpoint_to_resume(resume_from_checkpoint)
        if resume_from_checkpoint:
            self.args.eval_on_start = False  # that evaluation has been made
            if self.args.should_save:
                logger.info("going on from %s", resume_from_checkpoint)
        output = super().train(resume_from_checkpoint, *args, **kwargs)
        self.check_weights()
        return output

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; nothing at the last step of a run, where a resumed run may begin."""
        if self.state.global_step >= self.state.max_steps:
            return [], None
        self.step_batches, count = super().get_batch_samples(*args, **kwargs)
        return self.step_batches, count
