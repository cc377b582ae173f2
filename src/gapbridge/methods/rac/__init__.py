"""RAC, reference-answer-based correction (Cen et al. 2025, Algorithm 2)."""

from .config import RACConfig
from .correct import Correction, correct
from .rows import rac_row
from .trainer import RACTrainer


__all__ = ["Correction", "RACConfig", "RACTrainer", "correct", "rac_row"]
