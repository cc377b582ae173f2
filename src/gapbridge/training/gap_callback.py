"""The gap in any Hugging Face trainer's log: how much a model's own words disturb it, while it is trained.

The measure is `gapbridge gap`'s recovery curve, averaged over its k: with y the reference and ŷ the model's own draft,
the loss of y_k … y_T behind ŷ_<k against the loss behind y_<k. The drafts are `gapbridge gap`'s too, with the same
noise, but drawn by full-sequence passes through the model as the trainer wrapped it, so that its weights may be in
shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..data.example import Example, ExampleSet
from ..data.formats import require_prompts
from ..data.special_tokens import stop_tokens, undecodable_token_ids
from ..data.tokenization import build_examples
from ..decoding.keyed_sampler import KeyedSampler, rows_at_a_time
from ..decoding.model_state import evaluation_mode
from ..decoding.noise import example_keys
from ..decoding.parallel_sampling import padded_forward_logits_at, parallel_sample
from ..decoding.sampling_params import SamplingParams
from ..decoding.validate_inputs import check_examples, check_lengths
from ..errors import ConfigError, DataError
from .distributed_checks import any_process


DEFAULT_CALLBACK_PREFIX_LENGTHS = (1, 2, 4, 8, 16, 32)


class GapCallback(TrainerCallback):
    """
    Logs `gap/loss_reference_prefix`, `gap/loss_generated_prefix` and `gap/loss_delta`, in nats per token, before the
    first step, every so many steps and after the last.

    `loss_generated_prefix` is the mean of -log π(y_t | x, ŷ_<k, y_k … y_t-1) over the examples, the k of
    `prefix_lengths` and t ≥ k; `loss_reference_prefix` is the mean of -log π(y_t | x, y_<t) over the same (k, t);
    `loss_delta` is what
    `gapbridge gap` calls Δ over all k ≥ 1. An example counts for k if its reference is longer than k and its draft has
    at least k tokens before its stop token.

    ```python
    trainer.add_callback(GapCallback(trainer, held_out, every=100))
    ```

    Args:
        trainer ([`~transformers.Trainer`]): The trainer whose model is measured, and whose log is written.
        eval_examples ([`~datasets.Dataset`] or `ExampleSet`):
            Held-out prompts and answers, in one of the forms of `gapbridge.build_examples`. Of several assistant
            turns in a data set the last is the reference.
        every (`int`, *optional*, defaults to `100`): Steps between two measurements.
        prefix_lengths (`Sequence[int]`, *optional*, defaults to `(1, 2, 4, 8, 16, 32)`):
            The k. A draft needs as many passes as the longest of them, or fewer.
        temperature (`float`, *optional*, defaults to `1.0`): Of the drafts; 0 takes the most likely token.
        batch_size (`int`, *optional*): Rows in a pass of a process. Defaults to `per_device_eval_batch_size`.
        seed (`int`, *optional*, defaults to `0`): Of the drafts.

    Raises:
        ConfigError: an option lies outside its range. DataError: the examples cannot be used.
    """

    def __init__(
        self,
        trainer: Trainer,
        eval_examples: Dataset | ExampleSet,
        *,
        every: int = 100,
        prefix_lengths: Sequence[int] = DEFAULT_CALLBACK_PREFIX_LENGTHS,
        temperature: float = 1.0,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        self._trainer, self._every, self._seed = trainer, every, seed
        self._batch_size = trainer.args.per_device_eval_batch_size if batch_size is None else batch_size
        self._prefix_lengths = sorted(set(prefix_lengths))
        self._check()
        model, tokenizer = trainer.model, trainer.processing_class
        self._stops = frozenset(stop_tokens(tokenizer, model))
        self._examples = self._usable(eval_examples)
        longest = max(len(example.completion_ids) for example in self._examples)
        self._prefix_lengths = [k for k in self._prefix_lengths if k < longest]
        suppressed = tuple(undecodable_token_ids(tokenizer, model))
        options = SamplingParams(temperature=temperature, suppress_tokens=suppressed, seed=seed)
        self._sampler = KeyedSampler(options, trainer.accelerator.device)

    def _check(self) -> None:
        numbers = [("every", self._every), ("batch_size", self._batch_size)]
        numbers += [("prefix_lengths", k) for k in self._prefix_lengths]
        errors = [f"{name} is {value}: it must be at least 1" for name, value in numbers if value < 1]
        if not self._prefix_lengths:
            errors.append("prefix_lengths is empty: give at least one")
        if self._trainer.processing_class is None:
            errors.append("the trainer has no processing_class: give it the tokenizer")
        parallel = self._trainer.accelerator.parallelism_config
        if parallel is not None and (parallel.tp_enabled or parallel.cp_enabled or parallel.sp_enabled):
            errors.append(
                "parallelism_config has processes share rows: GapCallback gives each process rows of its own"
            )
        if errors:
            raise ConfigError(errors)

    def _usable(self, eval_examples: Dataset | ExampleSet) -> list[Example]:
        """The examples whose reference is longer than the shortest k, longest row first."""
        model, tokenizer = self._trainer.model, self._trainer.processing_class
        if not isinstance(eval_examples, ExampleSet):
            options: dict[str, Any] = {
                "source": "eval_examples",
                "train_on_assistant_turns": "last",
                "max_length": None,
            }
            eval_examples = build_examples(eval_examples, tokenizer, stops=sorted(self._stops), **options)
        require_prompts(eval_examples, "GapCallback asks each prompt")
        examples = list(eval_examples.split_turns(self._stops))
        ids, prompts = [example.id for example in examples], [example.prompt for example in examples]
        check_examples(model, ids, {"prompt": prompts, "reference": [example.completion_ids for example in examples]})
        lengths = [len(example.prompt) + len(example.completion_ids) for example in examples]
        check_lengths(model, ids, lengths, "prompt and reference", "Shorten or leave out such rows")
        shortest = self._prefix_lengths[0]
        usable = [
            (n, example)
            for n, example in zip(lengths, examples, strict=True)
            if len(example.completion_ids) > shortest
        ]
        if not usable:
            raise DataError(
                f"eval_examples: no reference is longer than {shortest} tokens: give shorter prefix_lengths"
            )
        return [example for _, example in sorted(usable, key=lambda pair: -pair[0])]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self._log(control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step % self._every == 0 or control.should_training_stop:
            self._log(control)

    def _log(self, control: TrainerControl) -> None:
        found = self.measure()
        if found:
            should_log = control.should_log
            # Not the trainer's own `log`: TRL's would add the metrics of the steps so far, and forget them.
            Trainer.log(self._trainer, found)
            control.should_log = should_log  # which a log entry clears, and the step's own is still to come

    def measure(self) -> dict[str, float]:
        """The three figures, for the weights as they are; nothing if every draft ends before the shortest k.

        All processes must call it together, in training.
        """
        accelerator = self._trainer.accelerator
        batches = [
            self._examples[at : at + self._batch_size] for at in range(0, len(self._examples), self._batch_size)
        ]
        sums = torch.zeros(3, dtype=torch.float64)
        with evaluation_mode(self._trainer.model_wrapped):
            for first in range(0, len(batches), accelerator.num_processes):
                mine = first + accelerator.process_index
                # A process without a batch of its own passes with the first one, so that all make as many passes.
                found = self._sums(batches[mine if mine < len(batches) else 0])
                sums += found if mine < len(batches) else 0
        own, reference, tokens = accelerator.reduce(sums.to(accelerator.device), reduction="sum").tolist()
        if not tokens:
            return {}
        own, reference = own / tokens, reference / tokens
        return {
            "gap/loss_reference_prefix": reference,
            "gap/loss_generated_prefix": own,
            "gap/loss_delta": own - reference,
        }

    def _sums(self, examples: list[Example]) -> Tensor:
        """Of a batch: the summed losses behind own and behind reference prefixes, and of how many tokens; `[3]`."""
        completions = self._drafts(examples)
        plain = self._losses(examples, [example.completion_ids for example in examples])
        sums = torch.zeros(3, dtype=torch.float64)
        for k in self._prefix_lengths:
            contexts = [
                [*own[:k], *e.completion_ids[len(own[:k]) :]] for e, own in zip(examples, completions, strict=True)
            ]
            disturbed = self._losses(examples, contexts)
            for own, reference, completion in zip(disturbed, plain, completions, strict=True):
                if len(completion) >= k < len(reference):
                    sums += torch.stack([own[k:].sum(), reference[k:].sum(), torch.ones_like(own[k:]).sum()])
        return sums

    def _drafts(self, examples: list[Example]) -> list[list[int]]:
        """The first own tokens of each, up to the longest k or the token before the stop token."""
        lengths = [min(self._prefix_lengths[-1], len(example.completion_ids) - 1) for example in examples]
        rows = [
            [*example.generation_prompt_ids, *example.completion_ids[:n]]
            for example, n in zip(examples, lengths, strict=True)
        ]
        tokens, device = _padded(rows), self._trainer.accelerator.device
        start = torch.tensor([len(example.generation_prompt_ids) for example in examples])
        column = torch.arange(tokens.shape[1])
        sampling_mask = (column >= start[:, None]) & (column < (start + torch.tensor(lengths))[:, None])
        keys = example_keys([example.id for example in examples], seed=self._seed, round_index=0)
        tokens, sampling_mask, start, keys = (value.to(device) for value in (tokens, sampling_mask, start, keys))
        model, sampler = self._trainer.model_wrapped, self._sampler
        asking = partial(any_process, self._trainer.accelerator)
        sampled = parallel_sample(model, tokens, sampling_mask, start, keys, sampler, anywhere=asking).tolist()
        own = [row[first : first + n] for row, first, n in zip(sampled, start.tolist(), lengths, strict=True)]
        return [row[: next((at for at, token in enumerate(row) if token in self._stops), len(row))] for row in own]

    def _losses(self, examples: list[Example], contexts: Sequence[Sequence[int]]) -> list[Tensor]:
        """-log π(y_t | x, context_<t) for every position t of every row, float64 on the CPU."""
        device = self._trainer.accelerator.device
        rows = [[*example.prompt, *context][:-1] for example, context in zip(examples, contexts, strict=True)]
        places = [(at, len(e.prompt) - 1 + t) for at, e in enumerate(examples) for t in range(len(e.completion_ids))]
        at_row, at_column = torch.tensor(places, device=device).unbind(dim=1)
        labels = torch.tensor([token for example in examples for token in example.completion_ids], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        logits = padded_forward_logits_at(
            self._trainer.model_wrapped, _padded(rows).to(device), lengths, (at_row, at_column)
        )
        losses = torch.cat(list(_negative_log_probs(logits, labels)))
        return list(losses.cpu().double().split([len(example.completion_ids) for example in examples]))


def _negative_log_probs(logits: Tensor, labels: Tensor) -> Iterator[Tensor]:
    """-log π of `labels` `[k]` in `logits` `[k, vocab]`, in parts."""
    rows = rows_at_a_time(logits)
    for part, wanted in zip(logits.split(rows), labels.split(rows), strict=True):
        yield -part.float().log_softmax(-1).gather(1, wanted[:, None])[:, 0]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
