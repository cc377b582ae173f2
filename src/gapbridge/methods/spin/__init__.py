"""SPIN, self-play fine-tuning (Chen et al. 2024): train to prefer the reference to a generated completion."""

DISPLAY_NAME = "SPIN"
EXPORTS = {"SPINConfig": "trainer", "SPINTrainer": "trainer"}
