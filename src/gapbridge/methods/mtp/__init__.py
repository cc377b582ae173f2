"""Multi-token prediction (Gloeckle et al. 2024): n tokens predicted at once, each by a head."""

EXPORTS = {"MTPConfig": "trainer", "MTPTrainer": "trainer"}
