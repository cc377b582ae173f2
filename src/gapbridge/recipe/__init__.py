"""YAML recipes, parsed strictly."""
