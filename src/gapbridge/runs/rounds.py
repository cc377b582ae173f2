"""Rounds: build contexts with the current weights, train on them, and again. Each round is a set of artefacts on disk.

    output_dir/round_1/{_contexts,checkpoint-*,model}  output_dir/round_2/…
    output_dir/{config.json,model.safetensors,…}

A stage that is whole is not repeated: contexts have their manifest, checkpoints their mark, and `model` is renamed
into place when all of it is written. A run that was interrupted anywhere continues with the first unfinished stage.
Optimizer and schedule start afresh each round.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..files import os_errors_as_run_error, sync
from ..signals import Interrupted, stop_after_step
from ..store.records import add_seconds
from ..training.checkpoints import SaveAndStop, agreed_checkpoint
from ..training.companions import copy_companions
from ..training.config import RoundArgs
from ..training.method import GapTrainerMixin
from ..training.trainer_guards import TrainerGuardMixin


MakeTrainer = Callable[[Path | None, Any], GapTrainerMixin]
OnSaved = Callable[[Path, Path], None]  # given a round's directory and where its whole model lies before it is renamed


def round_directory(output_dir: str | Path, round_index: int) -> Path:
    return Path(output_dir) / f"round_{round_index}"


def number_of_rounds(args: Any) -> int:
    """How many rounds a configuration asks for; methods without the key have one."""
    return args.num_rounds if isinstance(args, RoundArgs) else 1


def last_model(args: Any) -> Path:
    return round_directory(args.output_dir, number_of_rounds(args)) / "model"


def round_arguments(args: Any, round_index: int) -> Any:
    """The configuration of one round's trainer.

    It is built again rather than copied: accelerate gives each trainer a DeepSpeed plugin of its own or none.
    """
    changes: dict[str, Any] = {"output_dir": str(round_directory(args.output_dir, round_index))}
    if isinstance(args, RoundArgs):
        changes |= {
            "num_train_epochs": args.num_epochs_of_round(round_index),
            "round_index": round_index,
            "num_rounds": 1,
            "num_epochs_per_round": None,
        }
        if args.run_name and args.num_rounds > 1:
            changes["run_name"] = f"{args.run_name}-round-{round_index}"
    changed = dataclasses.replace(args, **changes)
    changed.trust_remote_code = args.trust_remote_code  # with older TRL no field
    return changed


def unfinished_rounds(args: Any) -> Iterator[tuple[int, Path | None]]:
    """The rounds without a whole model, each with the model it starts from (None: the recipe's)."""
    for index in range(1, number_of_rounds(args) + 1):
        if not (round_directory(args.output_dir, index) / "model").is_dir():
            yield index, None if index == 1 else round_directory(args.output_dir, index - 1) / "model"


def run_rounds(args: Any, make_trainer: MakeTrainer, on_saved: OnSaved | None = None) -> Path:
    """Run all rounds that are not finished and put the last model into `args.output_dir` as well.

    Args:
        args: the configuration of the whole run.
        make_trainer: given the directory of the model to start from (None: the first one) and the round's
        configuration, a new trainer.
        on_saved: called in the main process before a round counts as finished.

    Returns:
        `args.output_dir`, from which the final model loads.
    """
    for index, start in unfinished_rounds(args):
        trainer = make_trainer(start, round_arguments(args, index))
        train_round(trainer, args, on_saved)
        del trainer
    publish_last(args)
    return Path(args.output_dir)


def train_round(trainer: GapTrainerMixin, args: Any, on_saved: OnSaved | None = None) -> None:
    """Prepare, train and save one round; it goes on with what is there already, and from the last whole checkpoint.

    Args:
        args: the configuration of the whole run.

    Raises:
        Interrupted: SIGTERM or Ctrl-C came; a checkpoint of the step it came in is saved.
    """
    trainer.prepare_dataset()  # before a signal means: after this step
    directory = Path(trainer.args.output_dir)
    checkpoint = agreed_checkpoint(directory)
    started = time.perf_counter()
    try:
        with stop_after_step(announce=trainer.is_world_process_zero()) as request:
            trainer.add_callback(SaveAndStop(request))
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if request.signal_number:  # it came after the last step
            raise Interrupted(request.signal_number)
    finally:
        if trainer.is_world_process_zero():
            add_seconds(directory / "timing.json", time.perf_counter() - started)
    if directory != last_model(args).parent:
        trainer.args.save_merged_model = False  # the next round trains the adapter on
    save_model(trainer, directory / "model", on_saved and partial(on_saved, directory))


def publish_last(args: Any) -> None:
    """Make the files of the last round's model appear in `args.output_dir` as well: linked where the file system can,
    else copied."""
    model, output_dir = last_model(args), Path(args.output_dir)
    if PartialState().is_main_process:
        for source in sorted(path for path in model.rglob("*") if path.is_file()):
            target = output_dir / source.relative_to(model)
            with os_errors_as_run_error(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{source.name}.tmp")
                temporary.unlink(missing_ok=True)
                try:
                    os.link(source, temporary)
                except OSError:  # another file system, or one without links
                    shutil.copy2(source, temporary)
                os.replace(temporary, target)
        sync(output_dir)
    PartialState().wait_for_everyone()


def save_model(trainer: TrainerGuardMixin, directory: Path, on_saved: Callable[[Path], None] | None = None) -> None:
    """Save model, tokenizer and card under a temporary name, then rename: `directory` is whole or not there.

    Args:
        on_saved: called in the main process with the temporary name, when all is on the disk.
    """
    temporary = directory.with_name(f".{directory.name}.tmp")
    with os_errors_as_run_error(directory):
        if trainer.is_world_process_zero() and temporary.exists():
            shutil.rmtree(temporary)
        PartialState().wait_for_everyone()
        if trainer.is_fsdp_enabled:  # checkpoints may be in shards, a model is saved whole
            trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        trainer.save_model(str(temporary))
        if trainer.is_world_process_zero():
            trainer.create_model_card(model_name=Path(trainer.args.output_dir).absolute().parent.name)
            shutil.copy2(Path(trainer.args.output_dir) / "README.md", temporary / "README.md")
            copy_companions(Path(trainer.model.config._name_or_path), temporary)
            for path in temporary.rglob("*"):
                if path.is_file():
                    sync(path)
            if on_saved is not None:
                on_saved(temporary)
            os.replace(temporary, directory)
            sync(directory.parent)
    PartialState().wait_for_everyone()
