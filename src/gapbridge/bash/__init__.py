"""BASH, batch-scheduled sampling (Cen et al. 2025, Algorithm 1)."""

from .bash_config import BASHConfig
from .bash_trainer import BASHTrainer
from .rows import bash_row


__all__ = ["BASHConfig", "BASHTrainer", "bash_row"]
