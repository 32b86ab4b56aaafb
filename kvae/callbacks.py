"""What watches or protects a run of `fit`."""

from kvae.training.checkpoint import Checkpoint
from kvae.training.live import Live

__all__ = ["Checkpoint", "Live"]
