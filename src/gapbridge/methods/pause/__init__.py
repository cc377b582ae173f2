"""Pause tokens (Goyal et al. 2024): train with M pause tokens before each completion."""

DISPLAY_NAME = "pause tokens"
EXPORTS = {"PauseConfig": "trainer", "PauseTrainer": "trainer"}
