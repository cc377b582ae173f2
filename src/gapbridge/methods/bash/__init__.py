"""BASH, batch-scheduled sampling (Cen et al. 2025, Algorithm 1): train on contexts that mix in sampled tokens."""

EXPORTS = {"BASHConfig": "trainer", "BASHTrainer": "trainer"}
