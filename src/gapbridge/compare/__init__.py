"""`gapbridge compare`: methods and controls on one recipe, over seeds, with both intervals."""
