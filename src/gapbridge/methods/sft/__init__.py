"""Supervised fine-tuning: every prediction is conditioned on reference tokens. The other methods' base and control."""

EXPORTS: dict[str, str] = {}
