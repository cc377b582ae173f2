"""`gapbridge gap`: how much models are disturbed by their own words; several models in one picture.

gap/gap.json   settings, versions, every measure with 95 % intervals
gap/gap.png    the picture
gap/answers/   the completions, and the answers after forced errors; a killed measurement continues from them
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.example import ExampleSet
from ..decoding.vllm_generation import ServerEngine
from ..display import say
from ..errors import ConfigError, describe
from ..files import write_json_atomic
from ..generation.common import job_for, load_evaluated, output_directory
from ..generation.held_out_completions import ExampleCompletions, complete_examples, completion_options
from ..generation.recorded_settings import asked_identity, finished_record, recorded_settings, shown_recipe
from ..generation.server import connect, server_errors
from ..intervals import paired_difference
from ..reporting.gap_plot import draw_gaps
from ..reporting.gaps import RECOVERY_LABELS, caption, gap_tables
from ..reporting.plots import save
from ..reporting.tables import print_table, short_name
from ..runs.run_config import RunConfig
from ..runs.run_directory import environment
from ..training.vocabulary import check_vocabulary
from .error_recovery import score_recovery
from .forced_errors import SELF, ForcedErrorSet, continuations_after_errors, sample_forced_errors
from .measure import GapReport, measure_gap


Completed = tuple[ExampleSet, list[ExampleCompletions]]


def run_gap(args: argparse.Namespace, others: list[str]) -> Path:
    """`gapbridge gap`. Returns the file with the measures.

    Args:
        args: its options, see `gapbridge gap --help`.
        others: recipe keys, as on the command line.

    Raises:
        ConfigError, DataError, StoreError: see the messages; nothing is overwritten.
    """
    _check(args)
    directory = output_directory(args) / "gap"
    sources = [args.completions_from, args.error_source if args.error_positions else None]
    further = [source for source in dict.fromkeys(sources) if source not in (None, SELF, *args.model)]
    path = directory / "gap.json"
    jobs = {model: job_for(model, args.config, others) for model in [*args.model, *further]}
    asked = {model: asked_identity(job, model, args.max_examples) for model, job in jobs.items()}
    settings = {**recorded_settings(args, others, [*jobs]), "asked": asked}
    recipe = {model: shown_recipe(job) for model, job in jobs.items()}
    if path.exists():
        print_gap(finished_record(path, settings, recipe))
        print(f"{path}: this measurement is complete; remove the file to do it again")
        return path
    gaps = _Measurement(args, jobs, connect(args, args.model), directory / "completions").run()
    record: dict[str, Any] = {
        "settings": settings,
        "recipe": recipe,
        "environment": environment(),
        "models": [{"model": name, **asdict(gap)} for name, gap in gaps.items()],
        "differences": _differences({name: gap.recovery.by_example for name, gap in gaps.items()}),
        "loss_differences": _loss_differences(gaps),
        "entropy_differences": _differences({name: gap.entropy.by_example for name, gap in gaps.items()}),
        "recovery_differences": _recovery_differences(gaps),
    }
    models = {short_name(gap["model"], args.model): gap for gap in record["models"]}
    save(draw_gaps(models, caption(record)), directory / "gap.png")
    write_json_atomic(path, record)
    print_gap(record)
    print(f"measures: {path}   picture: {directory / 'gap.png'}")
    return path


def _check(args: argparse.Namespace) -> None:
    models, lengths, places = args.model, args.prefix_lengths, args.error_positions
    outside = any(not 0 <= share < 1 for share in places)
    idle = args.error_source is not None and not places
    cases = (
        (not models, "--model", "none", "at least one model", "Give a model with --model (once or several times)"),
        (len({*models}) < len(models), "--model", "a model twice", "every model once", "Remove one of them"),
        (not args.config, "recipe", "none", "the recipe whose held-out data are used", "Give it with --config RECIPE"),
        (min(lengths, default=1) < 1, "--prefix_lengths", lengths, "lengths of at least 1", "Correct the list"),
        (outside, "--error_positions", places, "relative positions from 0 to below 1", "Correct the list"),
        (len({*places}) < len(places), "--error_positions", "a position twice", "each once", "Correct the list"),
        (idle, "--error_source", "a value without positions", "--error_positions", "Add positions or remove it"),
    )
    errors = [describe(key, got, want, advice) for holds, key, got, want, advice in cases if holds]
    errors += server_errors(args, models)
    if errors:
        raise ConfigError([f"command line, {error}" for error in errors])


@dataclass(frozen=True)
class _Measurement:
    """Measures models one after another.

    args: the command's options. jobs: of each model. engines: the servers that generate, by model. directory: where
    completions are stored.
    """

    args: argparse.Namespace
    jobs: Mapping[str, RunConfig]
    engines: Mapping[str, ServerEngine]
    directory: Path

    def run(self) -> dict[str, GapReport]:
        """The gap of each model. The one whose forced errors all are given is measured first."""
        args = self.args
        given: Completed | None = None
        shared: ForcedErrorSet | None = None
        if args.completions_from is not None:
            given = self._complete(args.completions_from, *self._load(args.completions_from))
            gc.collect()  # the models that are measured need the room
        source = args.error_source or args.model[0]
        if args.error_positions and source not in (SELF, *args.model):
            shared = self._sample_forced_errors(source, *self._load(source))
            gc.collect()
        gaps = {}
        for name in sorted(args.model, key=lambda name: name != source):
            gaps[name], forced_errors = self._measure(name, shared, given)
            shared = None if source == SELF else forced_errors
            gc.collect()
        return {name: gaps[name] for name in args.model}

    def _measure(
        self, name: str, forced_errors: ForcedErrorSet | None, given: Completed | None
    ) -> tuple[GapReport, ForcedErrorSet | None]:
        """A model's gap, and the forced errors that it was given, or its own where it was given none.

        Args:
            given: what `--completions_from` generated; None takes the model's own completions.
        """
        args, job = self.args, self.jobs[name]
        model, tokenizer, examples = self._load(name)
        check_vocabulary(model, tokenizer, {"held out": examples})  # references are fed to it
        if forced_errors is not None:
            forced_errors.check(examples, name)
        elif args.error_positions:
            forced_errors = self._sample_forced_errors(name, model, tokenizer, examples)
        source, answers = given or self._complete(name, model, tokenizer, examples)
        if [(e.id, e.completion_ids) for e in source] != [(e.id, e.completion_ids) for e in examples]:
            raise ConfigError(
                f"command line, --completions_from {args.completions_from}",
                f"other tokens for the same examples from {name}",
                "the same tokens",
                "Remove the model or the option",
            )
        measured = {
            "prefix_lengths": args.prefix_lengths, "batch_size": args.batch_size, "own_completions": given is None,
        }  # fmt: skip
        gap = measure_gap(model, tokenizer, list(examples), answers, job.args, **measured)
        if forced_errors is not None:
            engine = self.engines.get(name)
            most = {"max_completion_length": args.max_completion_length, "batch_size": args.batch_size}
            completions = continuations_after_errors(
                model, tokenizer, examples, forced_errors, job.args, self.directory, engine=engine, **most
            )
            gap = replace(gap, forced_errors=score_recovery(tokenizer, list(examples), forced_errors, completions))
        return gap, forced_errors

    def _load(self, name: str) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase, ExampleSet]:
        return load_evaluated(self.jobs[name], name, self.args.max_examples)

    def _complete(self, name: str, model: Any, tokenizer: Any, examples: ExampleSet) -> Completed:
        """The examples as the model's tokenizer makes them, and the model's completions."""
        args, options, engine = self.jobs[name].args, completion_options(self.args), self.engines.get(name)
        return examples, complete_examples(model, tokenizer, examples, args, options, self.directory, engine=engine)

    def _sample_forced_errors(self, name: str, model: Any, tokenizer: Any, examples: ExampleSet) -> ForcedErrorSet:
        args = self.args
        return sample_forced_errors(
            model,
            tokenizer,
            examples,
            self.jobs[name].args,
            source=name,
            places=args.error_positions,
            max_completion_length=args.max_completion_length,
            seed=args.seed,
            batch_size=args.batch_size,
        )


def _differences(by_example: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Each model's mean less the first one's, over the examples they share.

    Args:
        by_example: model → example → value.
    """
    (first, base), *rest = by_example.items()
    found = []
    for name, own in rest:
        shared = [key for key in own if key in base]
        if shared:
            difference = paired_difference([base[key] for key in shared], [own[key] for key in shared])
            found.append({"first": first, "second": name, "examples": len(shared), "difference": vars(difference)})
    return found


def _recovery_differences(gaps: Mapping[str, GapReport]) -> list[dict[str, Any]]:
    """`_differences` of each score after forced errors that every model has."""
    found = []
    for measure in RECOVERY_LABELS:
        scores = {name: vars(gap.forced_errors)[measure] for name, gap in gaps.items() if gap.forced_errors}
        known = {name: score.by_example for name, score in scores.items() if score}
        if len(known) == len(gaps):
            found += [{"measure": measure, **row} for row in _differences(known)]
    return found


def _loss_differences(gaps: Mapping[str, GapReport]) -> list[dict[str, Any]]:
    """`_differences` of each loss that every model has, with its temperature and prefix."""
    losses: dict[tuple[str, str], dict[str, Mapping[str, float]]] = {}
    for name, gap in gaps.items():
        for kinds in (gap.losses.overall, gap.losses.by_prefix_length):
            for temperature, by_prefix in kinds.items():
                for prefix, loss in by_prefix.items():
                    losses.setdefault((temperature, prefix), {})[name] = loss.by_example
    return [
        {"temperature": temperature, "prefix": prefix, **row}
        for (temperature, prefix), by_model in losses.items()
        if len(by_model) == len(gaps)
        for row in _differences(by_model)
    ]


def print_gap(record: dict[str, Any]) -> None:
    """Print the tables of a measurement."""
    say(f"The gap. {caption(record)}", "")
    for table in gap_tables(record):
        print_table(table)
