"""BASH, batch-scheduled sampling (Cen et al. 2025, Algorithm 1)."""

from .config import BASHConfig
from .rows import bash_row
from .trainer import BASHTrainer


__all__ = ["BASHConfig", "BASHTrainer", "bash_row"]
