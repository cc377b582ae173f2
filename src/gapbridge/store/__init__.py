"""What is drawn before training, on disk."""
