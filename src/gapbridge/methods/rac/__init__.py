"""RAC, reference-answer-based correction (Cen et al. 2025, Algorithm 2): from the own answer to the reference."""

EXPORTS = {"Correction": "correct", "RACConfig": "trainer", "RACTrainer": "trainer", "correct": "correct"}
