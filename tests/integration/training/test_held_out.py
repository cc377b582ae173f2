"""Held-out data: one data set or several, given to the constructor or to `evaluate`, are read in one way."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_llama
from datasets import Dataset, DatasetDict, IterableDatasetDict
from transformers import AutoTokenizer, TrainingArguments
from trl import DPOTrainer, SFTConfig, SFTTrainer

from gapbridge import methods
from gapbridge.errors import ConfigError, DataError, GapbridgeError
from gapbridge.methods.bash.trainer import BASHConfig
from gapbridge.training.method import GapTrainerMixin


WORDS = ["two", "three apples", "four apples and a pear", "five"]
CHATS = Dataset.from_list(
    [{"messages": [{"role": role, "content": word} for role in ("user", "assistant")] * 2} for word in WORDS]
)
OTHERS = Dataset.from_list([{"prompt": f"{word}\n", "completion": f" {word} or {word}"} for word in WORDS[:3]])
PAIRS = Dataset.from_list([{"prompt": f"{word}\n", "chosen": f" {word}", "rejected": " one"} for word in WORDS])
TIMES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
# What makes a method's rows other than SFT's, or its drawing small.
OPTIONS: dict[str, dict[str, Any]] = {
    "bash": {"mixture_coefficient": 0.5},
    "rac": {"max_completion_length": 4},
    "spin": {"max_completion_length": 4},
    "mtp": {"num_future_tokens": 2},
}

Make = Callable[..., Any]


def others(*cases: Any) -> list[Any]:
    """The same for other methods: nightly, since each builds trainers of its own."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.nightly) for case in cases]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A method's trainer on a tiny random model; a second call starts elsewhere with the same weights."""

    def build(name: str, train: Dataset | None = None, eval_dataset: Any = None, **given: Any) -> Any:
        method = methods.get_method(name)
        tokenizer = AutoTokenizer.from_pretrained("recipes/tiny/base")
        arguments = {key: given.pop(key) for key in ("compute_metrics", "args") if key in given}
        options = {
            "use_cpu": True, "bf16": False, "report_to": "none", "max_length": None, "save_strategy": "no",
            "disable_tqdm": True, "gradient_checkpointing": False, **OPTIONS.get(name, {}), **given,
        }  # fmt: skip
        args = method.config_class(str(tmp_path / str(len(list(tmp_path.iterdir())))), **options)
        data = PAIRS if method.data_format == "preferences" else CHATS
        if name == "dpo":  # another reference: with the model's own weights every loss is log 2
            arguments["ref_model"] = tiny_llama(len(tokenizer), 2.0, max_position_embeddings=512)
        return method(
            model=tiny_llama(len(tokenizer), max_position_embeddings=512),
            processing_class=deepcopy(tokenizer),  # some methods add tokens
            train_dataset=(train or None) if train is not None else data,
            eval_dataset=eval_dataset,
            **{"args": args, **arguments},
        )

    return build


@pytest.mark.parametrize("name", ["sft", "bash", "dpo", *others("rac", "scheduled_sampling", "mtp", "pause")])
def test_evaluate_reads_as_the_constructor_does(name: str, make: Make) -> None:
    held_out = PAIRS if name == "dpo" else CHATS
    options = {} if name == "dpo" else {"assistant_only_loss": True}
    given = make(name, eval_dataset=held_out, **options)
    wanted = given.evaluate()["eval_loss"]
    asked = make(name, **options)
    forms = [held_out, held_out.to_iterable_dataset(), given.eval_dataset, given.examples]
    assert [asked.evaluate(form)["eval_loss"] for form in forms] == [wanted] * 4
    assert asked.predict(held_out).metrics["test_loss"] == wanted
    several = asked.evaluate({"a": held_out, "b": held_out.select([0])}, metric_key_prefix="other")
    assert several["other_a_loss"] == wanted != several["other_b_loss"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bash", dict), ("dpo", IterableDatasetDict),
        *others(("spin", DatasetDict), ("sft", DatasetDict), ("rac", IterableDatasetDict)),
    ],
)  # fmt: skip
def test_several_held_out_data_sets(name: str, kind: type[Any], make: Make) -> None:
    first, second = (PAIRS, PAIRS.select([2])) if name == "dpo" else (CHATS, CHATS.select([2]))
    parts = {"first": first, "a/b-c": second}
    if kind is IterableDatasetDict:
        parts = {key: part.to_iterable_dataset() for key, part in parts.items()}
    trainer = make(name, eval_dataset=kind(parts), eval_strategy="steps", eval_steps=1, max_steps=1)
    trainer.train()
    metrics = trainer.evaluate()
    trainer.eval_dataset, several = trainer.eval_dataset["a/b-c"], trainer.eval_dataset
    assert metrics["eval_a/b-c_loss"] == trainer.evaluate(several["a/b-c"])["eval_loss"] != metrics["eval_first_loss"]
    assert ("eval_first_generated_loss" in metrics) == (name in ("bash", "rac"))
    logged = [key for entry in trainer.state.log_history for key in entry]
    assert {"eval_first_loss", "eval_a/b-c_loss"} <= set(logged)


def test_one_of_several_is_evaluated_by_name(make: Make) -> None:
    trainer = make("bash", eval_dataset={"a": CHATS, "generated": OTHERS})
    both = trainer.evaluate()
    names = {key for key in both if key.endswith("loss")}
    assert names == {"eval_a_loss", "eval_a_generated_loss", "eval_generated_loss", "eval_generated_generated_loss"}
    assert (
        both["eval_generated_loss"]
        == trainer.evaluate("generated", metric_key_prefix="x")["x_loss"]
        != both["eval_a_loss"]
    )
    with pytest.raises(DataError, match=r"eval_dataset: got the name 'b', expected one of \['a', 'generated'\]"):
        trainer.evaluate("b")


def test_prepared_rows_are_evaluated_as_they_are(make: Make) -> None:
    """Mixed contexts are no examples: they would be refused, were they read."""
    trainer = make("bash", packing=True, max_length=200)
    rows = trainer.train_dataset
    assert trainer.evaluate(rows)["eval_loss"] != trainer.evaluate(CHATS)["eval_loss"]
    assert trainer.evaluate(rows.select([0]))["eval_loss"] > 0
    plain = trainer.row_ids.select_columns(["input_ids", "labels"])
    with pytest.raises(DataError, match="as in rows of contexts"):
        trainer.evaluate(plain)


@pytest.mark.parametrize(
    ("name", "several"),
    [
        ("sft", True), ("bash", False), ("dpo", False), ("mtp", False),
        *others(*((name, several) for name in methods.list_methods() for several in (False, True))),
    ],
)  # fmt: skip
def test_best_model_by_any_metric(name: str, several: bool, make: Make) -> None:
    held_out = PAIRS if name == "dpo" else CHATS
    trainer = make(name, eval_dataset={"a": held_out, "b": held_out} if several else held_out)
    returned = {key.removeprefix("eval_") for key in trainer.evaluate()} - {"epoch"}
    returned = {key for key in returned if not key.endswith("model_preparation_time")}
    assert returned == set(trainer.evaluated_names(trainer.args, ["a", "b"] if several else None))
    for metric in ("loss", "entropy"):
        options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "best", "max_steps": 1}
        options["metric_for_best_model"] = f"eval_b_{metric}" if several and metric == "loss" else metric
        if name == "sft":
            best = make(name, eval_dataset={"a": CHATS, "b": CHATS} if several else CHATS, **options)
            best.train()
            assert best.state.best_metric is not None


def test_metrics_that_no_evaluation_returns_are_refused(make: Make, tmp_path: Path) -> None:
    strategies = {"eval_strategy": "steps", "save_strategy": "steps", "load_best_model_at_end": True}
    for metric, held_out in (("accuracy", CHATS), ("loss", {"a": CHATS}), ("c_loss", {"a": CHATS})):
        with pytest.raises(ConfigError, match=f"metric_for_best_model: got '{metric}', expected one of .*loss"):
            make("bash", eval_dataset=held_out, metric_for_best_model=metric, **strategies)
    assert not list(tmp_path.iterdir())
    make("sft", eval_dataset=CHATS, metric_for_best_model="x", compute_metrics=lambda found: {"x": 1.0}, **strategies)


@pytest.mark.parametrize(
    ("held_out", "words"),
    [
        ([{"prompt": "a", "completion": "b"}], "eval_dataset: got a list, expected a datasets.Dataset"),
        ({"a": CHATS, "b": "path"}, r"eval_dataset\['b'\]: got a str, expected"),
        ({1: CHATS}, "eval_dataset, 1: got a key that is no text"),
        ({"a": CHATS, "a_generated": CHATS}, "eval_dataset, a_generated: got the name of the metrics of a"),
        ({"a": CHATS, "b": Dataset.from_list([{"x": 1}])}, r"eval_dataset\['b'\]: got the columns x, expected"),
    ],
)
def test_refused_held_out_data(held_out: Any, words: str, make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        make("bash", eval_dataset=held_out)
    assert not list(tmp_path.iterdir()), "the output directory is as it was"


def test_evaluate_refuses_what_the_constructor_refuses(make: Make) -> None:
    trainer = make("sft")
    long = Dataset.from_list([{"x": 1}])
    for held_out, words in (
        (long, "eval_dataset: got the columns x, expected `messages`"),
        ({"a": CHATS, "b": long}, r"eval_dataset\['b'\]: got the columns x"),
    ):
        with pytest.raises(DataError, match=words):
            trainer.evaluate(held_out)
    assert not trainer.state.log_history, "all are read before one is evaluated"
    with pytest.raises(DataError, match="eval_dataset: got a data set after the completions were generated"):
        make("spin").evaluate(CHATS)


def test_streams_have_no_numbers_for_precomputed_references(make: Make, tmp_path: Path) -> None:
    stream = PAIRS.to_iterable_dataset()
    for given in ({"train": stream}, {"eval_dataset": stream}, {"eval_dataset": {"a": stream}}):
        with pytest.raises(DataError, match="precompute_ref_log_probs is not supported with IterableDataset"):
            make("dpo", precompute_ref_log_probs=True, **given)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"eval_dataset\['a'\]: got a stream.*, expected a datasets.Dataset"):
        make("dpo", precompute_ref_log_probs=True).evaluate({"a": stream})


def test_faults_of_both_data_sets_are_told_at_once(make: Make) -> None:
    with pytest.raises(GapbridgeError) as raised:
        make("sft", train=CHATS.to_iterable_dataset(), eval_dataset={"a": 1})
    assert len(raised.value.errors) == 2
    with pytest.raises(DataError, match="train_dataset: got"):
        make("sft", train=[])


@pytest.mark.parametrize("name", methods.list_methods())
def test_positions_are_trls(name: str) -> None:
    method = methods.get_method(name)
    behind = DPOTrainer if issubclass(method, DPOTrainer) else SFTTrainer
    theirs = list(inspect.signature(behind).parameters)
    ours = [key for key, one in inspect.signature(method).parameters.items() if one.kind == one.POSITIONAL_OR_KEYWORD]
    assert [key for key in ours if key in theirs] == theirs
    assert all(key in theirs or key == "quantization_config" for key in ours)


@pytest.mark.parametrize("name", ["sft", "dpo", *others("bash", "spin")])
def test_all_arguments_by_position(name: str, make: Make) -> None:
    trainer = make(name)
    method: type[GapTrainerMixin] = methods.get_method(name)
    model, tokenizer = tiny_llama(len(trainer.processing_class), max_position_embeddings=512), trainer.processing_class
    reference = tiny_llama(len(tokenizer), max_position_embeddings=512)
    data = PAIRS if name == "dpo" else CHATS
    if name in ("dpo", "spin"):
        last = [reference] if name == "dpo" else [None]
        again = method(model, *last, trainer.args, None, data, data, tokenizer, None, [], (None, None))
    else:
        again = method(model, trainer.args, None, data, data, tokenizer, None, None, [], (None, None))
    assert again.train_dataset[:] == trainer.train_dataset[:] and again.eval_dataset is not None
    second = method(model, trainer.args, train_dataset=data, processing_class=tokenizer)
    assert second.args is trainer.args, "the configuration may stand second"


@pytest.mark.parametrize("name", ["bash", "dpo", *others("sft", "spin")])
def test_plain_training_arguments(name: str, make: Make, tmp_path: Path) -> None:
    plain = TrainingArguments(
        str(tmp_path / "plain"), use_cpu=True, report_to=[], learning_rate=3e-4, warmup_steps=2, hub_token="secret",
        accelerator_config={"split_batches": False}, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = make(name, args=plain)
    method = methods.get_method(name)
    assert type(trainer.args) is method.config_class
    for key in ("output_dir", "learning_rate", "warmup_steps", "hub_token", "lr_scheduler_type", "report_to"):
        assert vars(trainer.args)[key] == vars(plain)[key]


def test_other_configurations_are_refused(make: Make, tmp_path: Path) -> None:
    @dataclass
    class Longer(TrainingArguments):
        own_key: int = 0

    (tmp_path / "0").mkdir()
    options: dict[str, Any] = {"use_cpu": True, "report_to": []}
    for args, words in (
        (SFTConfig(str(tmp_path / "x"), **options), "args: got a SFTConfig, expected a RACConfig for RACTrainer"),
        (BASHConfig(str(tmp_path / "x"), **options), "args: got a BASHConfig, expected a RACConfig"),
        (Longer(str(tmp_path / "x"), **options), "args, own_key: got a key of Longer, expected a key of RACConfig"),
        ({}, "args: got a dict"),
    ):
        with pytest.raises(ConfigError, match=words):
            make("rac", args=args)
    assert not (tmp_path / "x").exists()
