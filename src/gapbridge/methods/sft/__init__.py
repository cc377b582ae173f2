"""Supervised fine-tuning on the reference completions: base and control of the other methods."""

EXPORTS: dict[str, str] = {}
