"""Thin entry points for `accelerate launch -m gapbridge.scripts.<command> --config RECIPE`."""
