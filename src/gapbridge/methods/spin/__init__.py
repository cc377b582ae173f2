"""SPIN, self-play fine-tuning (Chen et al. 2024): the reference preferred to the model's own answer."""

EXPORTS = {"SPINConfig": "trainer", "SPINTrainer": "trainer"}
