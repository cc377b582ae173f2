"""Data sets as examples: token ids with a stable id."""
