"""DPO, direct preference optimisation (Rafailov et al. 2023): train on pairs of completions with TRL's trainer."""

EXPORTS = {"GapDPOConfig": "trainer", "GapDPOTrainer": "trainer"}
