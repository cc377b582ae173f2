"""In every format of TRL's data, SFT and BASH at β = 0 train what `SFTTrainer` trains with the same seed and settings:
losses and gradient norms to the last bit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from gapbridge import (
    BASHConfig,
    BASHTrainer,
    ConfigError,
    DataError,
    GapCallback,
    MTPConfig,
    MTPTrainer,
    PauseConfig,
    PauseTrainer,
    RACConfig,
    RACTrainer,
    ScheduledSamplingConfig,
    ScheduledSamplingTrainer,
    SPINConfig,
    SPINTrainer,
    build_examples,
)
from gapbridge.compat import label_support_errors, pair_support_errors
from gapbridge.methods.sft.trainer import GapSFTConfig, GapSFTTrainer


WORDS = ["two apples", "three apples are many", "four apples and a pear", "five"]
TEXT = [{"text": f"{word}, and then {word} and {word}."} for word in WORDS]
CHAT = [
    {"messages": [{"role": "user", "content": f"Is it {word}?"}, {"role": "assistant", "content": f"It is {word}."}]}
    for word in WORDS
]
TALK = [{"conversations": [{"from": t["role"], "value": t["content"]} for t in row["messages"]]} for row in CHAT]
PAIRS = [{"prompt": f"Count: {word}.\n", "completion": f"{word} it is"} for word in WORDS]
CHAT_PAIRS = [{"prompt": row["messages"][:1], "completion": row["messages"][1:]} for row in CHAT]
IDS = [list(range(5, 12 + 3 * at)) for at in range(4)]
PIECES = [[index if at % 4 in (0, 3) else -100 for at, index in enumerate(ids)] for ids in IDS]
LATE = [[-100, *pieces[1:]] for pieces in PIECES]
MASK = [[int(at > 2) for at in range(len(ids))] for ids in IDS]
OTHER = [[at % 2 for at in range(len(ids))] for ids in IDS]


def rows(**columns: Any) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


WHOLE = {"assistant_only_loss": False, "completion_only_loss": False}
# What TRL is told in the place of ours, where its defaults are others.
FORMATS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "plain text": (TEXT, {}, {}),
    "prompt and completion": (PAIRS, {}, {}),
    "turns as prompt and completion": (CHAT_PAIRS, {}, {}),
    "pairs trained as a whole": (PAIRS, {"completion_only_loss": False}, {"completion_only_loss": False}),
    "turns trained as a whole": (CHAT_PAIRS, {"completion_only_loss": False}, {"completion_only_loss": False}),
    "messages trained as a whole": (CHAT, {"assistant_only_loss": False}, {}),
    "from and value trained as a whole": (TALK, {"assistant_only_loss": False}, {}),
    "ids alone": (rows(input_ids=IDS), {}, {}),
    "labels in pieces": (rows(input_ids=IDS, labels=PIECES), {}, {}),
    "labels behind a prompt": (rows(input_ids=IDS, labels=LATE), {}, {}),
    "completion_mask": (rows(input_ids=IDS, completion_mask=MASK), {}, {"completion_only_loss": True}),
    "completion_mask passed over": (rows(input_ids=IDS, completion_mask=MASK), WHOLE, {"completion_only_loss": False}),
    "assistant_masks": (rows(input_ids=IDS, assistant_masks=OTHER), {}, {}),
    "both masks": (
        rows(input_ids=IDS, completion_mask=MASK, assistant_masks=OTHER), {}, {"completion_only_loss": True},
    ),
}  # fmt: skip
SETTINGS = {
    "max_length": 64, "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "max_steps": 2,
    "logging_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "seed": 3, "disable_tqdm": True,
    "lr_scheduler_type": "constant", "gradient_checkpointing": False,
}  # fmt: skip
OURS: list[tuple[Any, Any, dict[str, Any]]] = [
    (BASHTrainer, BASHConfig, {"mixture_coefficient": 0.0}),
    (GapSFTTrainer, GapSFTConfig, {}),
]

Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, make_base: Callable[[], PreTrainedModel], tokenizer: Any) -> Make:
    """A trainer on `data`, in a folder of its own."""

    def build(trainer: Any, config: Any, data: Any, given: dict[str, Any] | None = None, **options: Any) -> Any:
        args = config(str(tmp_path / f"{len(list(tmp_path.iterdir()))}"), **{**SETTINGS, **options})
        Path(args.output_dir).mkdir(exist_ok=True)
        data = Dataset.from_list(data) if isinstance(data, list) else data
        own = deepcopy(tokenizer)  # some methods add tokens
        return trainer(make_base(), args=args, train_dataset=data, processing_class=own, **(given or {}))

    return build


def trained(trainer: Any) -> list[tuple[float, float]]:
    trainer.train()
    return [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("name", FORMATS)
def test_the_degenerate_case_is_trl_in_every_format(name: str, make: Make) -> None:
    data, own, theirs = FORMATS[name]
    wanted = trained(make(SFTTrainer, SFTConfig, data, **theirs))
    assert len(wanted) == 2
    bash, plain = (make(trainer, config, data, **own, **options) for trainer, config, options in OURS)
    assert plain.train_dataset[:] == bash.train_dataset[:]
    assert trained(bash) == wanted
    if name == "plain text":
        assert trained(plain) == wanted


@pytest.mark.skipif(
    bool(label_support_errors(SFTConfig("unused", packing=True, max_length=8, use_cpu=True, bf16=False))),
    reason="rows lose their labels when this TRL packs them",
)
@pytest.mark.parametrize("strategy", ["bfd", "bfd_split", "wrapped"])
def test_the_degenerate_case_is_trl_when_packed(strategy: str, make: Make) -> None:
    """Rows above `max_length` among them: cut with `bfd`, split with the others."""
    packed = {"packing": True, "packing_strategy": strategy, "max_length": 16}
    wanted = make(SFTTrainer, SFTConfig, TEXT * 2, **packed)
    columns = wanted.train_dataset[:]
    losses = trained(wanted)
    for trainer, config, options in OURS:
        own = make(trainer, config, TEXT * 2, **packed, **options)
        assert own.train_dataset[:] == columns and trained(own) == losses


def test_conversations_train_what_messages_train(make: Make) -> None:
    """`human` and `gpt` are the roles of templates; the default trains the assistant's turns alone."""
    spoken = [
        {"conversations": [{"from": who, "value": t["content"]} for who, t in zip(("human", "gpt"), row["messages"])]}
        for row in CHAT
    ]
    found = [make(GapSFTTrainer, GapSFTConfig, data).train_dataset[:] for data in (CHAT, TALK, spoken)]
    assert found[0] == found[1] == found[2]
    assert all(labels.count(-100) > 4 for labels in found[0]["labels"])


@pytest.mark.parametrize("style", ["torch", "numpy"])
def test_formats_of_datasets_change_nothing(style: str, make: Make) -> None:
    for data in (PAIRS, rows(input_ids=IDS, labels=LATE), TEXT):
        plain = make(GapSFTTrainer, GapSFTConfig, data).train_dataset[:]
        dressed = Dataset.from_list(data).with_format(style)
        assert make(GapSFTTrainer, GapSFTConfig, dressed).train_dataset[:] == plain


def test_rows_above_max_length_are_cut_as_in_trl(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Rows whose prompt fills `max_length` are left out, and one warning counts everything."""
    data = [*PAIRS, {"prompt": "Count the apples " * 8, "completion": "one"}]
    wanted = make(SFTTrainer, SFTConfig, PAIRS, max_length=24)  # old versions keep rows without loss
    caplog.clear()
    own = make(GapSFTTrainer, GapSFTConfig, data, max_length=24)
    assert len(own.train_dataset) == len(wanted.train_dataset) == 4
    cut = sum(not set(row["input_ids"]) & set(own.examples.stops) for row in own.train_dataset)
    assert cut == own.examples.truncated > 0 and own.examples.left_out == 1
    said = [record.getMessage() for record in caplog.records if "longer than max_length" in record.getMessage()]
    assert len(said) == 1
    assert (
        f"{cut + 1} of 5 rows" in said[0]
        and f"{cut} of them lose their stop token. 1 have no trained token" in said[0]
    )
    assert trained(own) == trained(wanted)
    with pytest.raises(DataError, match="row 4 .*over-length prompt alone"):
        make(GapSFTTrainer, GapSFTConfig, data, max_length=24, truncate_overlong=False)


def test_other_columns_and_functions_give_plain_text(make: Make) -> None:
    plain = make(GapSFTTrainer, GapSFTConfig, TEXT).train_dataset[:]
    named = [{"body": row["text"], "label": 1} for row in TEXT]
    assert make(GapSFTTrainer, GapSFTConfig, named, dataset_text_field="body").train_dataset[:] == plain
    parts = [{"word": word} for word in WORDS]
    function = {"formatting_func": lambda row: f"{row['word']}, and then {row['word']} and {row['word']}."}
    assert make(GapSFTTrainer, GapSFTConfig, parts, function).train_dataset[:] == plain


def test_every_method_trains_on_plain_text(make: Make) -> None:
    """Coins fall neither on the first token nor on the last, and pauses stand between tokens."""
    bash = make(BASHTrainer, BASHConfig, TEXT, mixture_coefficient=0.9, temperature=3.0)
    for row, example in zip(bash.train_dataset, bash.examples, strict=True):
        full = [*example.prompt, *example.completion_ids, *example.template_suffix_ids]
        assert row["labels"] == full != row["input_ids"]
        assert row["input_ids"][0] == full[0] and row["input_ids"][-1] == full[-1]
    sampling = {"mixture_coefficient": 0.9, "temperature": 3.0}
    mixing = make(ScheduledSamplingTrainer, ScheduledSamplingConfig, TEXT, **sampling)
    mixing.train()
    assert any(entry.get("sampling/replaced_frac", 0) > 0.1 for entry in mixing.state.log_history)
    paused = make(PauseTrainer, PauseConfig, TEXT, pause_placement="random", pause_fraction=0.5)
    pause = paused.processing_class.convert_tokens_to_ids("<|pause|>")
    assert all(pause in row["input_ids"][1:] and pause not in row["labels"] for row in paused.train_dataset)
    assert trained(paused)


@pytest.mark.skipif(bool(pair_support_errors()), reason="this TRL knows neither pairs of ids nor several heads")
def test_plain_text_has_several_next_tokens_and_no_prompt(make: Make, tokenizer: Any) -> None:
    assert trained(make(MTPTrainer, MTPConfig, TEXT, num_future_tokens=2))
    with pytest.raises(DataError, match="train_dataset, row 0: got no prompt.*expected a prompt.*SPIN generates"):
        make(SPINTrainer, SPINConfig, TEXT)


def test_who_asks_refuses_what_has_no_prompt(make: Make, tokenizer: Any) -> None:
    for data in (TEXT, rows(input_ids=IDS)):
        with pytest.raises(DataError, match="train_dataset, row 0: got no prompt.*expected a prompt.*RAC generates"):
            make(RACTrainer, RACConfig, data)
    with pytest.raises(DataError, match="eval_examples, row 0: got no prompt.*GapCallback completes each prompt"):
        GapCallback(make(GapSFTTrainer, GapSFTConfig, TEXT), Dataset.from_list(TEXT))
    for key in WHOLE:
        with pytest.raises(ConfigError, match=f"^{key}: got false, so that rows have no completion to correct"):
            RACConfig("unused", **{**SETTINGS, key: False})
    with pytest.raises(ConfigError, match="wrapped, which splits rows"):
        RACConfig("unused", **SETTINGS, packing=True, packing_strategy="wrapped")
    with pytest.raises(ConfigError, match="rows have no prompt"):
        PauseConfig("unused", **SETTINGS, assistant_only_loss=False)


def test_what_cannot_be_read_is_refused_by_name(make: Make) -> None:
    shouted = Dataset.from_list(PAIRS).with_transform(lambda batch: batch)
    with pytest.raises(DataError, match=r"train_dataset: got a `Dataset.with_transform\(\)`, expected"):
        make(GapSFTTrainer, GapSFTConfig, shouted)
    for name in ("image", "images"):
        with pytest.raises(DataError, match=f"train_dataset, column {name}: got vision-related data, expected text"):
            make(GapSFTTrainer, GapSFTConfig, [{**row, name: "cat.png"} for row in TEXT])


def test_one_line_says_what_carries_loss(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gapbridge")
    for data, options, words in (
        (TEXT, {}, "loss on every token of a row"),
        (CHAT, {}, "loss on assistant turns"),
        (CHAT, {"train_on_assistant_turns": "last"}, "loss on the last assistant turn"),
        (CHAT, {"assistant_only_loss": False}, "loss on every token of a row"),
        (PAIRS, {}, "loss on completions"),
    ):
        caplog.clear()
        trainer = make(GapSFTTrainer, GapSFTConfig, data, **options)
        trainer.prepare_dataset()
        assert sum(words in record.getMessage() for record in caplog.records) == 1
        # What was asked for stays what it was, for whoever reads more data with it.
        assert trainer.args.assistant_only_loss is options.get("assistant_only_loss", True)


def test_rows_without_a_prompt_keep_their_identity(tokenizer: Any) -> None:
    """The same ids with and without a label on the first: another fingerprint, for other rows are trained."""
    stops = [tokenizer.eos_token_id]
    full, asked = (
        build_examples(Dataset.from_list(data), tokenizer, stops=stops, max_length=None)
        for data in (rows(input_ids=IDS), rows(input_ids=IDS, labels=[[-100, *ids[1:]] for ids in IDS]))
    )
    assert full.without_prompt() == [0, 1, 2, 3] and not asked.without_prompt()
    assert full.fingerprint() != asked.fingerprint()
