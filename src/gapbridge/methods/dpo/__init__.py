"""DPO, direct preference optimisation (Rafailov et al. 2023): train on pairs of completions with TRL's trainer."""

DISPLAY_NAME = "DPO"
EXPORTS = {"GapDPOConfig": "trainer", "GapDPOTrainer": "trainer"}
