"""Flows: invertible maps of the latents whose log-determinants are known, for posteriors and priors."""

from kvae.flows.affine import Coupling, InverseAutoregressive
from kvae.flows.base import Flow, Transformed
from kvae.flows.planar import Planar

__all__ = ["Coupling", "Flow", "InverseAutoregressive", "Planar", "Transformed"]
