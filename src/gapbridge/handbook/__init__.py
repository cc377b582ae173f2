"""Ways into a fork of the alignment-handbook; see docs/handbook.md. Nothing of a fork's own package is imported."""

from .models import get_model


__all__ = ["get_model"]
