"""Multi-token prediction (Gloeckle et al. 2024): train to predict the next n tokens at each position."""

DISPLAY_NAME = "MTP"
EXPORTS = {"MTPConfig": "trainer", "MTPTrainer": "trainer"}
