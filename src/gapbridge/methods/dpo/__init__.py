"""DPO, direct preference optimisation (Rafailov et al. 2023): TRL's trainer on pairs of answers."""

EXPORTS = {"PreferenceConfig": "trainer", "PreferenceTrainer": "trainer"}
