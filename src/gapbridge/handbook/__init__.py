"""Ways into a fork of the alignment-handbook (docs/how-to/handbook.md). Nothing of a fork's package is imported."""

from .models import get_model


__all__ = ["get_model"]
