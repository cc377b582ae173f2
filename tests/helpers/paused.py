"""Models and tokenizers with pauses, trainers of them, and data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedModel

from gapbridge import PauseConfig, PauseTrainer, build_examples
from gapbridge.data.pauses import pause_id
from gapbridge.data.special_tokens import stop_tokens
from gapbridge.methods.pause.pause_token import add_pauses
from gapbridge.tasks.word_problems import problems
from helpers.small_runs import SMALL_RUN


COMMON: dict[str, Any] = {**SMALL_RUN, "max_length": 400, "max_steps": 2, "learning_rate": 0.01}


def chats(count: int = 4, split: str = "train") -> Dataset:
    return Dataset.from_list([problem.row() for problem in problems(split, count=count, steps=(1, 2))])


def texts(count: int = 4) -> Dataset:
    return Dataset.from_list(
        [
            {"id": p.id, "prompt": f"{p.prompt}\n", "completion": p.answer}
            for p in problems("train", count=count, steps=(1,))
        ]
    )


def prompts(count: int = 3) -> list[Any]:
    return [problem.row()["prompt"] for problem in problems("test", count=count, steps=(1, 2))]


def pause(model: PreTrainedModel | None, tokenizer: Any, count: int = 3, **options: Any) -> int:
    add_pauses(model, tokenizer, **{"token": "<|pause|>", "count": count, **options})
    index = pause_id(tokenizer)
    assert index is not None
    return index


def trainer_of(folder: Path, model: PreTrainedModel, tokenizer: Any, **options: Any) -> PauseTrainer:
    given = {key: options.pop(key) for key in ("eval_dataset", "peft_config") if key in options}
    args = PauseConfig(str(folder), **{**COMMON, "num_pause_tokens": 3, **options})
    return PauseTrainer(model=model, args=args, train_dataset=chats(), processing_class=tokenizer, **given)


def examples_of(dataset: Dataset, tokenizer: Any, **options: Any) -> Any:
    return build_examples(dataset, tokenizer, **{"stops": stop_tokens(tokenizer), "max_length": None, **options})


def untied(model: PreTrainedModel) -> PreTrainedModel:
    """The same model whose output head has weights of its own."""
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    other = LlamaForCausalLM(config)
    other.load_state_dict(weights)
    other.generation_config = model.generation_config
    return other
