"""BASH, batch-scheduled sampling (Cen et al. 2025, Algorithm 1): train on contexts with some sampled tokens."""

DISPLAY_NAME = "BASH"
EXPORTS = {"BASHConfig": "trainer", "BASHTrainer": "trainer"}
