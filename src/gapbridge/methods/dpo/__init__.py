"""DPO, direct preference optimisation (Rafailov et al. 2023): TRL's trainer on pairs of answers."""

EXPORTS = {"GapDPOConfig": "trainer", "GapDPOTrainer": "trainer"}
