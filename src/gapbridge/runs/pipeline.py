"""What the commands do: recipe → data → examples → trainer → report, for one method each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from accelerate import PartialState
from peft import PeftModel
from rich.console import Console
from rich.text import Text
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import ModelConfig, ScriptArguments, get_peft_config

from ..contexts.fill import place_for_generation
from ..contexts.fingerprint import tokenizer_fingerprint, weights_sketch
from ..contexts.store import ContextStore
from ..errors import ConfigError
from ..examples.build import build_examples
from ..examples.data import DataConfig, load_data
from ..examples.example import ExampleSet
from ..examples.tokens import stop_tokens
from ..files import write_json_atomic, write_text_atomic
from ..methods.bash.config import BASHConfig
from ..methods.bash.contexts import build_contexts, context_store, mix_examples
from ..methods.bash.trainer import BASHTrainer
from ..methods.rac.config import RACConfig
from ..methods.rac.contexts import build_drafts, cue_for, draft_examples, draft_store
from ..methods.rac.rows import draft_in_context
from ..methods.rac.trainer import RACTrainer
from ..recipe.parser import Recipe, RecipeParser
from ..training.config import ExampleConfig, SelfGenerationConfig
from ..training.guards import GuardedSFTTrainer
from ..training.loading import is_sharded, load_model, load_tokenizer, model_init_kwargs, prepare_tokenizer
from ..training.method import SelfGenerationTrainer
from ..training.parallel import check_processes
from ..training.rows import reference_dataset
from .directory import RunDirectory, require_output_dir
from .preview import bash_preview, print_previews, rac_preview
from .report import MetricsFile, write_data_record, write_report
from .rounds import publish, round_arguments, round_directory, run_rounds, save_model, train_stage, unfinished_rounds


logger = logging.getLogger(__name__)

CONFIGS: dict[str, type[ExampleConfig]] = {"sft": ExampleConfig, "bash": BASHConfig, "rac": RACConfig}
PREVIEW_ROWS = 3


@dataclass
class Job:
    """A parsed recipe with its parts by name."""

    method: str
    recipe: Recipe
    data: DataConfig
    script: ScriptArguments
    model: ModelConfig
    args: ExampleConfig
    resume: str = "auto"

    @property
    def uses_peft(self) -> bool:
        return bool(self.model.use_peft)


def parser_for(method: str) -> RecipeParser:
    owners: dict[str, list[str]] = {}
    for other, config in CONFIGS.items():
        for key in fields(config):
            owners.setdefault(key.name, []).append(other)
    return RecipeParser(
        [DataConfig, ScriptArguments, CONFIGS[method], ModelConfig],
        other_keys={key: " and ".join(others) for key, others in owners.items() if method not in others},
        prog=f"gapbridge {method}",
        description=(
            f"Run the {method} recipe given with --config FILE.yaml. Every key of it is an option, too. Besides: "
            "--resume auto (continue the run in output_dir, or start one), never (refuse to continue) or must "
            "(refuse to start)."
        ),
    )


def read_job(argv: Sequence[str], method: str | None = None) -> Job:
    """Parse a recipe. The method is the command's, or the recipe's `method` key.

    Raises:
        ConfigError: listing every fault.
    """
    chosen = method or _method_of(argv)
    recipe = parser_for(chosen).parse_recipe(argv)
    if recipe.method not in (None, chosen):
        raise ConfigError(f"{recipe.path}: is a recipe for {recipe.method}: run it with `gapbridge {recipe.method}`")
    data, script, args, model = recipe.parts
    if not model.model_name_or_path:
        raise ConfigError(f"{recipe.path}: model_name_or_path is not set")
    require_output_dir(recipe.settings.get("output_dir"))
    args.check()
    return Job(chosen, recipe, data, script, model, args)


def _method_of(argv: Sequence[str]) -> str:
    from ..recipe.parser import METHODS
    from ..recipe.values import read_yaml

    arguments = [part for argument in argv for part in argument.split("=", 1)]
    if "--config" not in arguments or arguments[-1] == "--config":
        raise ConfigError("no recipe: give one with --config FILE.yaml")
    path = Path(arguments[arguments.index("--config") + 1])
    method = read_yaml(path).get("method")
    if method not in METHODS:
        raise ConfigError(f"{path}: method is {method!r}: the recipe must say which of {', '.join(METHODS)} it is for")
    return str(method)


def load_examples(
    job: Job, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None
) -> dict[str, ExampleSet]:
    """`train`, and `eval` where the recipe evaluates."""
    loaded = load_data(job.data, job.script, seed=job.args.seed, needs_eval=str(job.args.eval_strategy.value) != "no")
    parts = {"train": (loaded.train, loaded.source)}
    if loaded.eval is not None:
        parts["eval"] = (loaded.eval, loaded.eval_source)
    stops = stop_tokens(tokenizer, model)
    return {
        name: build_examples(
            dataset,
            tokenizer,
            stops=stops,
            max_length=job.args.max_length,
            on_bad_rows=job.args.on_bad_rows,
            truncate_long_rows=job.args.truncate_long_rows,
            num_proc=job.args.dataset_num_proc,
            source=source,
        )
        for name, (dataset, source) in parts.items()
    }


def load_held_out(
    job: Job, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None, *, limit: int | None = None
) -> ExampleSet:
    """The examples that a model is evaluated on: the recipe's held-out data, or its data where it has no others.

    Nothing is left out for its length: an evaluation on fewer examples is another evaluation.
    """
    data, script = job.data, job.script
    needs_eval = str(job.args.eval_strategy.value) != "no" and bool(data.test_split_size or script.dataset_name)
    if data.eval_datasets:  # the training data need not be loaded
        data = replace(data, eval_datasets=[], max_train_examples=data.max_eval_examples)
        data.datasets = job.data.eval_datasets
        script, needs_eval = replace(script, dataset_name=None), False
    loaded = load_data(data, script, seed=job.args.seed, needs_eval=needs_eval)
    dataset, source = (loaded.train, loaded.source) if loaded.eval is None else (loaded.eval, loaded.eval_source)
    if limit is not None:
        dataset = dataset.select(range(min(limit, len(dataset))))
    return build_examples(
        dataset,
        tokenizer,
        stops=stop_tokens(tokenizer, model),
        max_length=None,
        on_bad_rows=job.args.on_bad_rows,
        num_proc=job.args.dataset_num_proc,
        source=source,
    )


def load_start(
    job: Job, path: str | Path | None = None, *, whole: bool = True
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Model and tokenizer that a run, or one of its rounds, starts from; `whole` as in `load_model`."""
    source = path or job.model.model_name_or_path
    set_seed(job.args.seed)
    options = model_init_kwargs(job.model, job.args)
    if path is not None:
        options.pop("revision", None)
    model = load_model(source, job.args, whole=whole, **options)
    tokenizer = load_tokenizer(source, job.args, None if path else job.model.model_revision)
    prepare_tokenizer(model, tokenizer, job.args, uses_peft=job.uses_peft)
    return model, tokenizer


def run_sft(job: Job) -> Path:
    """Supervised fine-tuning with TRL's trainer on the same examples that the other methods get."""
    check_processes(job.args)
    run = RunDirectory(require_output_dir(job.args.output_dir), job.method, job.recipe.settings)
    if run.check(job.resume) == "complete":
        _say(f"{run.path}: this run is complete, nothing to do")
        return run.path
    args = job.args
    args.push_to_hub, push = False, args.push_to_hub
    model, tokenizer = load_start(job, whole=False)
    sketch = None if is_sharded(model) else weights_sketch(model)
    examples = load_examples(job, tokenizer, model)
    if not (run.path / "model").is_dir():
        rows = reference_dataset(examples["train"])
        evaluation = examples.get("eval")
        trainer = GuardedSFTTrainer(
            model=model,
            args=args,
            train_dataset=rows.remove_columns("id"),
            eval_dataset=None if evaluation is None else reference_dataset(evaluation).remove_columns("id"),
            processing_class=tokenizer,
            peft_config=None if isinstance(model, PeftModel) else get_peft_config(job.model),
            callbacks=[MetricsFile()],
            row_ids=rows,
        )
        _enter(run, job, examples, _checked_inputs(run, examples, tokenizer, sketch))
        train_stage(trainer)
        save_model(trainer, run.path / "model")
    if PartialState().is_main_process:
        publish(run.path / "model", run.path)
    return _finish(run, job, push)


def run_rounds_of(job: Job) -> Path:
    """All rounds of a method that trains on its own tokens, from the first unfinished stage on."""
    check_processes(job.args)
    args, method = _rounds_args(job), METHODS[job.method]
    run = RunDirectory(require_output_dir(args.output_dir), job.method, job.recipe.settings)
    if run.check(job.resume) == "complete":
        _say(f"{run.path}: this run is complete, nothing to do")
        return run.path
    args.push_to_hub, push = False, args.push_to_hub  # the trainer's own push would upload the contexts as well
    first_start = next((start for _, start in unfinished_rounds(args)), _last_model(job))
    loaded = [load_start(job, first_start)]  # emptied when a trainer takes it: a model must not outlive its round
    place_for_generation(loaded[0][0], args)
    examples = load_examples(job, loaded[0][1], loaded[0][0])
    inputs = _checked_inputs(run, examples, loaded[0][1] if first_start is None else None)
    _check_stores(job, *loaded[0], examples)
    _enter(run, job, examples, inputs)
    if first_start is None and PartialState().is_main_process:
        previews = method.preview(*loaded[0], examples["train"], args, PREVIEW_ROWS)
        Console(stderr=True, soft_wrap=True).print(previews[0])
        write_text_atomic(run.path / "samples" / "first_rows.txt", "\n".join(preview.plain for preview in previews))

    def make_trainer(start: Path | None, round_args: SelfGenerationConfig) -> GuardedSFTTrainer:
        model, tokenizer = loaded.pop() if loaded else load_start(job, start)
        trainer = method.trainer(
            model=model,
            args=round_args,
            train_dataset=examples["train"],
            eval_dataset=examples.get("eval"),
            processing_class=tokenizer,
            # An adapter, of an SFT stage or of the round before, is trained on rather than topped with another.
            peft_config=None if isinstance(model, PeftModel) else get_peft_config(job.model),
            callbacks=[MetricsFile()],
        )
        if trainer.is_world_process_zero():
            write_json_atomic(Path(round_args.output_dir) / "counts.json", vars(trainer.counts))
        return trainer

    run_rounds(args, make_trainer)
    return _finish(run, job, push)


def run_generate(job: Job) -> Path:
    """Build the contexts of the first unfinished round and stop; training later finds them in the store."""
    check_processes(job.args)
    args, method = _rounds_args(job), METHODS[job.method]
    run = RunDirectory(require_output_dir(args.output_dir), job.method, job.recipe.settings)
    state = run.check()
    following = next(unfinished_rounds(args), None)
    if state == "complete" or following is None:
        _say(f"{run.path}: every round is trained, nothing to generate")
        return run.path
    index, start = following
    model, tokenizer = load_start(job, start)
    place_for_generation(model, args)
    examples = load_examples(job, tokenizer, model)
    inputs = _checked_inputs(run, examples, tokenizer if start is None else None)
    _check_stores(job, model, tokenizer, examples)
    _enter(run, job, examples, inputs)
    directory = round_directory(args.output_dir, index) / "contexts"
    round_args = round_arguments(args, index)
    method.build(model, tokenizer, examples["train"], round_args, directory)
    if "eval" in examples and args.eval_own_contexts:
        method.build(model, tokenizer, examples["eval"], round_args, directory.with_name("eval_contexts"))
    _say(f"{directory}: {len(examples['train'])} contexts, complete")
    return directory


def run_preview(job: Job, count: int) -> list[Text]:
    """The first rows as round 1 trains on them; nothing is written."""
    model, tokenizer = load_start(job)
    place_for_generation(model, job.args)
    job.data.max_train_examples = min(count, job.data.max_train_examples or count)
    job.args.eval_strategy = type(job.args.eval_strategy)("no")
    examples = load_examples(job, tokenizer, model)["train"]
    if job.method in METHODS:
        previews = METHODS[job.method].preview(model, tokenizer, examples, _rounds_args(job), count)
    else:
        previews = [bash_preview(e, e.reference, [False] * len(e.reference), tokenizer) for e in examples]
    print_previews(previews)
    return previews


def preview_bash(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: BASHConfig, count: int
) -> list[Text]:
    """The first rows of round 1, mixed as the run will mix them (the noise is keyed, so they are the same)."""
    part = examples.part(0, count)
    contexts = mix_examples(model, tokenizer, part, args)
    return [
        bash_preview(example, context.tokens, context.sampled, tokenizer)
        for example, context in zip(part, contexts, strict=True)
    ]


def preview_rac(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: ExampleSet, args: RACConfig, count: int
) -> list[Text]:
    """The first correction rows of round 1, with the drafts that the run will make."""
    part = examples.part(0, count)
    cue = cue_for(tokenizer, examples, args, stop_tokens(tokenizer, model))
    drafts = draft_examples(model, tokenizer, part, args)
    return [
        rac_preview(
            example,
            draft_in_context(draft, conversational=examples.conversational, eos_token_id=tokenizer.eos_token_id),
            draft.finished,
            cue,
            tokenizer,
        )
        for example, draft in zip(part, drafts, strict=True)
    ]


@dataclass(frozen=True)
class Method:
    """What the commands need to know of a method that trains on its own tokens."""

    trainer: type[SelfGenerationTrainer]
    store: Callable[..., ContextStore]
    build: Callable[..., ContextStore]
    preview: Callable[..., list[Text]]


METHODS = {
    "bash": Method(BASHTrainer, context_store, build_contexts, preview_bash),
    "rac": Method(RACTrainer, draft_store, build_drafts, preview_rac),
}


def _rounds_args(job: Job) -> SelfGenerationConfig:
    if not isinstance(job.args, SelfGenerationConfig):
        raise ConfigError(f"{job.recipe.path}: method {job.method} generates nothing before training")
    return job.args


def _check_stores(
    job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: dict[str, ExampleSet]
) -> None:
    """Refuse contexts of the first unfinished round that cannot be used, before anything is written."""
    args = _rounds_args(job)
    index, _ = next(unfinished_rounds(args), (None, None))
    if index is None or not PartialState().is_main_process:
        return
    for part, name in (("train", "contexts"), ("eval", "eval_contexts")):
        directory = round_directory(args.output_dir, index) / name
        if part in examples and directory.is_dir():
            round_args = round_arguments(args, index)
            METHODS[job.method].store(model, tokenizer, examples[part], round_args, directory).check()


def _checked_inputs(
    run: RunDirectory,
    examples: dict[str, ExampleSet],
    tokenizer: PreTrainedTokenizerBase | None,
    sketch: str | None = None,
) -> dict[str, str]:
    """Fingerprints of what the run starts from, after they were compared with those it was started with.

    `tokenizer` is the recipe's own, None in later rounds. The weights that contexts were made with are in the store's
    identity; `sketch` stands for those of SFT.
    """
    if not PartialState().is_main_process:
        return {}
    inputs = {f"{name} examples": part.fingerprint() for name, part in examples.items()}
    if tokenizer is not None:
        inputs["tokenizer"] = tokenizer_fingerprint(tokenizer)
    if sketch is not None:
        inputs["weights"] = sketch
    run.check_inputs(inputs)
    return inputs


def _enter(run: RunDirectory, job: Job, examples: dict[str, ExampleSet], inputs: dict[str, str]) -> None:
    PartialState().wait_for_everyone()  # each has looked at the directory before one writes to it
    if PartialState().is_main_process:
        run.enter(job.recipe, inputs)
        write_data_record(run.path, examples)
    PartialState().wait_for_everyone()


def _finish(run: RunDirectory, job: Job, push: bool) -> Path:
    if PartialState().is_main_process:
        report = write_report(run.path)
        if push:
            _push(run.path / "model" if job.method == "sft" else _last_model(job), job.args)
        run.complete()
        _say(f"model: {run.path}   report: {report}")
    PartialState().wait_for_everyone()
    return run.path


def _last_model(job: Job) -> Path:
    args = _rounds_args(job)
    return round_directory(args.output_dir, args.num_rounds) / "model"


def _push(model: Path, args: ExampleConfig) -> None:
    """Upload the final model, and nothing else of the run."""
    from huggingface_hub import HfApi

    api = HfApi(token=args.hub_token)
    repo = api.create_repo(
        args.hub_model_id or Path(args.output_dir).name, private=args.hub_private_repo, exist_ok=True
    )
    api.upload_folder(repo_id=repo.repo_id, folder_path=model, revision=args.hub_revision)


def _say(text: str) -> None:
    if PartialState().is_main_process:
        print(text, flush=True)
