"""Pause tokens (Goyal et al. 2024): train with M pause tokens before each completion."""

EXPORTS = {"PauseConfig": "trainer", "PauseTrainer": "trainer"}
