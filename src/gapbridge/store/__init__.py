"""What is generated before training, on disk."""
