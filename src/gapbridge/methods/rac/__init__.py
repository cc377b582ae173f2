"""RAC (Cen et al. 2025, Algorithm 2): train the model to correct its own answers."""

DISPLAY_NAME = "RAC"
EXPORTS = {"Correction": "correct", "RACConfig": "trainer", "RACTrainer": "trainer", "correct": "correct"}
