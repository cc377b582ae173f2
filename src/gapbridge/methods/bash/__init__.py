"""BASH, batch-scheduled sampling (Cen et al. 2025, Algorithm 1): the model's own tokens mixed into the context."""

EXPORTS = {"BASHConfig": "trainer", "BASHTrainer": "trainer"}
