"""RAC, reference-answer-based correction (Cen et al. 2025, Algorithm 2)."""

from .correct import Correction, correct
from .rac_config import RACConfig
from .rac_trainer import RACTrainer
from .rows import rac_row


__all__ = ["Correction", "RACConfig", "RACTrainer", "correct", "rac_row"]
