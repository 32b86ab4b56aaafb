"""Objectives: the losses to minimize, as functions of a `Draw` and the optimizer's step."""

from kvae.objectives.base import Objective, kl_groups
from kvae.objectives.bounds import ELBO, IWAE, Draw, score
from kvae.objectives.disentangling import DIP, AnnealedCapacity, BetaTCVAE

__all__ = ["DIP", "ELBO", "IWAE", "AnnealedCapacity", "BetaTCVAE", "Draw", "Objective", "kl_groups", "score"]
