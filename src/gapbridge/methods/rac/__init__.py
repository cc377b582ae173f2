"""RAC (Cen et al. 2025, Algorithm 2): train the model to correct its own first answer to the reference answer."""

EXPORTS = {"Correction": "correct", "RACConfig": "trainer", "RACTrainer": "trainer", "correct": "correct"}
