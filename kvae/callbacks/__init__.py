"""What watches or protects a run."""

from kvae.callbacks.checkpoint import Checkpoint
from kvae.callbacks.live import Live

__all__ = ["Checkpoint", "Live"]
