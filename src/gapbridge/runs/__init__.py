"""Runs: from a recipe to a trained model, resumable."""
