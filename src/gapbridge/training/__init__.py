"""From examples to a trained model: what every method's trainer shares. `method.py` is where to begin.

    method.py               the trainer: its constructor checks, `prepare_dataset` generates, `train` trains
    hooks.py                what a method overrides, each with SFT's default
    config.py               the keys of all methods; `completion_config.py`, of those that generate completions
    artifact_cache.py       examples and rows, made once and kept
    dataset_builder.py      contexts and rows of a part; `rows.py`, `stats.py`: one row, what all were made from
    loading.py              models and tokenizers
    preflight.py            what would stop a trainer later; with `vocabulary.py` and `distributed_checks.py`
    trainer_guards.py       TRL's loop with whole checkpoints (`checkpoints.py`), finite weights (`finite_updates.py`),
                            a seeded order (`epoch_order.py`) and means over tokens (`evaluation.py`)
    held_out.py             `evaluate` and `predict`
    preference_trainer.py   the same for pairs of answers

The other modules are a callback, the model card, merged adapters, or files that a run leaves.
"""
