"""Measures of the gap itself: how much a model is disturbed by its own words. See docs/research/gap-definitions.md."""
